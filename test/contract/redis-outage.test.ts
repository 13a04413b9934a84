import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Secret } from '../../src/config/secrets/secret.ts'
import { BffError } from '../../src/errors.ts'
import { createSessionCache } from '../../src/session/session-cache.ts'
import type { Store } from '../../src/store/port.ts'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { steadyNow } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'
import { eventually, openRedisStore, signedIn, silentLog, someHash } from '../kit/store/store-contestants.ts'

/** Every method of the port, with texts that must not come out of an error. */
const EVERY_METHOD: Record<string, (store: Store) => Promise<unknown>> = {
  ping: (store) => store.ping(),
  'sessions.read': (store) => store.sessions.read(someHash()),
  'sessions.slide': (store) => store.sessions.slide(someHash()),
  'sessions.timeLeft': (store) => store.sessions.timeLeft(someHash()),
  'sessions.create': (store) => store.sessions.create(someHash(), 'SEALED'),
  'sessions.replace': (store) =>
    store.sessions.replace(someHash(), { before: 'SEALED', after: 'SEALED too' }),
  'sessions.end': (store) => store.sessions.end(someHash()),
  'sessions.create with indexes': (store) =>
    store.sessions.create(someHash(), 'SEALED', { user: 'sub:KEY', idpSession: 'idp:KEY' }),
  'index.living of a user': (store) => store.index.living('sub:KEY'),
  'index.living of a session at the provider': (store) => store.index.living('idp:KEY'),
  'sessions.noteAbout': (store) => store.sessions.noteAbout(someHash(), 'SEALED'),
  'sessions.about': (store) => store.sessions.about(someHash()),
  'tokens.read': (store) => store.tokens.read(someHash()),
  'tokens.create': (store) => store.tokens.create(someHash(), { refreshToken: 'SEALED', accessTokens: {} }),
  'tokens.write': (store) => store.tokens.write(someHash(), { expectedVersion: 1, refreshToken: 'SEALED' }),
  'tokens.lock': (store) => store.tokens.lock(someHash(), 'OWNER', 1000),
  'tokens.unlock': (store) => store.tokens.unlock(someHash(), 'OWNER'),
  'tokens.keep': (store) => store.tokens.keep(someHash(), { resource: 'orders', sealed: 'SEALED' }),
  'tokens.forgetAll': (store) => store.tokens.forgetAll(someHash()),
  'clientTokens.read': (store) => store.clientTokens.read('KEY'),
  'clientTokens.write': (store) => store.clientTokens.write('KEY', 'SEALED', 1000),
  'clientTokens.lock': (store) => store.clientTokens.lock('KEY', 'OWNER', 1000),
  'clientTokens.unlock': (store) => store.clientTokens.unlock('KEY', 'OWNER'),
  'logins.put': (store) => store.logins.put('KEY', 'SEALED', 1000),
  'logins.read': (store) => store.logins.read('KEY'),
  'logins.take': (store) => store.logins.take('KEY'),
  'endings.last': (store) => store.endings.last(),
  'endings.note': (store) => store.endings.note(['KEY'], 1000),
  'endings.lastOf': (store) => store.endings.lastOf(['KEY']),
  'replays.firstUse': (store) => store.replays.firstUse('logout', 'KEY', 1000),
  'replays.keep': (store) => store.replays.keep('logout', 'KEY', 1000),
  'replays.forget': (store) => store.replays.forget('logout', 'KEY'),
}

async function assertUnavailable(store: Store, withinMs: number, methods = Object.keys(EVERY_METHOD)) {
  await Promise.all(
    methods.map(async (name) => {
      const startedAt = steadyNow()
      const error = await EVERY_METHOD[name]!(store).then(
        () => assert.fail(`${name} succeeded`),
        (thrown: unknown) => thrown,
      )
      const tookMs = steadyNow() - startedAt
      assert.ok(tookMs < withinMs, `${name} took ${tookMs} ms`)
      assert.ok(error instanceof BffError && error.code === 'store_unavailable', `${name}: ${inspect(error)}`)
      assert.equal(error.retryAfterSeconds, 2)
      assert.ok(error.cause instanceof Error)
      assert.doesNotMatch(inspect(error, { depth: 9, showHidden: true }), /SEALED|OWNER|KEY/)
    }),
  )
}

const answers = (store: Store) => () =>
  store.ping().then(
    () => store.invalidations.isLive(),
    () => false,
  )

suite('a Redis in trouble', { skip: skipWithoutRedis(), concurrency: true }, () => {
  async function server(t: { after(f: () => unknown): void }, options = {}): Promise<TestRedis> {
    const redis = await startRedis(options)
    t.after(() => redis.stop())
    return redis
  }

  test('killed: every method waits for the connection, fails at once after a second, and works again when Redis is back', async (t) => {
    const redis = await server(t)
    const store = await openRedisStore(t, redis)
    await redis.kill()
    await eventually(() => !store.invalidations.isLive())
    await assertUnavailable(store, 1000)
    await eventually(() =>
      store.ping().then(
        () => assert.fail(),
        (error) => /ECONNREFUSED/.test(error.cause.message),
      ),
    )
    await delay(600)
    await assertUnavailable(store, 300)
    await redis.restart()
    const backAt = steadyNow()
    await eventually(answers(store))
    assert.ok(steadyNow() - backAt < 3000)
    await signedIn(store)
  })

  test('killed while commands are in flight: each settles', async (t) => {
    const redis = await server(t)
    const store = await openRedisStore(t, redis)
    redis.pause()
    const inFlight = assertUnavailable(store, 1000)
    await redis.kill()
    await inFlight
  })

  test('frozen: every method fails within 600 ms with store_unavailable, and works again when Redis goes on', async (t) => {
    const redis = await server(t)
    const store = await openRedisStore(t, redis)
    const dropped: unknown[] = []
    store.invalidations.onInvalidate((hash) => dropped.push(hash))
    redis.pause()
    await assertUnavailable(store, 1000)
    await eventually(() => !store.invalidations.isLive())
    assert.deepEqual(dropped, [undefined])
    redis.resume()
    await eventually(answers(store))
    await signedIn(store)
  })

  test('frozen for long: the connection is given up, attempts to reconnect fail fast, and it recovers', async (t) => {
    const redis = await server(t)
    const down: string[] = []
    const log = { ...silentLog, warn: (_: object, message: string) => void down.push(message) }
    const store = await openRedisStore(t, redis, { log })
    redis.pause()
    await assertUnavailable(store, 1000)
    await eventually(() => down.length === 2)
    await assertUnavailable(store, 1000)
    redis.resume()
    const backAt = steadyNow()
    await eventually(answers(store))
    assert.ok(steadyNow() - backAt < 5000)
    assert.deepEqual(down.toSorted(), [
      'redis command connection is down',
      'redis invalidation connection is down',
    ])
  })

  test('away at start: the store is made all the same, and works once Redis is there', async (t) => {
    const redis = await server(t)
    await redis.kill()
    const store = await openRedisStore(t, redis)
    assert.equal(store.invalidations.isLive(), false)
    await assertUnavailable(store, 1000)
    await redis.restart()
    await eventually(answers(store))
  })

  test('frozen at start: the store is made within 4 s all the same', async (t) => {
    const redis = await server(t)
    redis.pause()
    const startedAt = steadyNow()
    const store = await openRedisStore(t, redis)
    assert.ok(steadyNow() - startedAt < 4000)
    redis.resume()
    await eventually(answers(store))
  })

  test('the subscription cut: copies are dropped and bypassed until it is back', async (t) => {
    const redis = await server(t)
    const store = await openRedisStore(t, redis)
    const { invalidations } = store
    const cache = createSessionCache<string>({
      ...{ invalidations, trustedMs: 60_000, max: 10, maxBytes: 100_000, monotonicNow: () => 0 },
    })
    t.after(() => cache.close())
    const hash = someHash()
    await cache.load('key', hash, async () => 'copy')
    assert.equal(cache.peek('key'), 'copy')
    await redis.cli('ACL', 'SETUSER', 'default', 'resetchannels')
    await eventually(() => !invalidations.isLive())
    assert.equal(cache.peek('key'), undefined)
    assert.equal(await cache.load('key', hash, async () => 'read'), 'read')
    assert.equal(cache.size, 0)
    await store.ping()
    await redis.cli('ACL', 'SETUSER', 'default', 'allchannels')
    await eventually(() => invalidations.isLive())
    await cache.load('key', hash, async () => 'trusted again')
    assert.equal(cache.peek('key'), 'trusted again')
  })

  test('turned into a read-only replica: writes fail with store_unavailable until it is a primary again', async (t) => {
    const redis = await server(t)
    const store = await openRedisStore(t, redis)
    await redis.cli('REPLICAOF', '127.0.0.1', '1')
    await assertUnavailable(store, 1000, ['sessions.create', 'sessions.end', 'tokens.lock', 'logins.put'])
    await redis.cli('REPLICAOF', 'NO', 'ONE')
    await eventually(answers(store))
    await signedIn(store)
  })

  test('out of memory: writes fail with store_unavailable, reads do not', async (t) => {
    const redis = await server(t, { args: ['--maxmemory-policy', 'noeviction'] })
    const store = await openRedisStore(t, redis)
    const hash = await signedIn(store)
    await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
    await assertUnavailable(store, 1000, ['sessions.create', 'tokens.lock', 'logins.put'])
    assert.equal(await store.sessions.read(hash), 'sealed')
    assert.equal((await store.tokens.read(hash))?.version, 1)
    await store.sessions.end(hash)
  })

  test('a rotated password is picked up at the next connection, and never shown', async (t) => {
    const redis = await server(t, { password: 'first-password' })
    let current = 'first-password'
    const logged: unknown[] = []
    const note = (...line: unknown[]) => void logged.push(line)
    const store = await createRedisStore(
      { url: redis.url, password: new Secret(() => current), keyPrefix: 'rotation' },
      { idleTimeoutMs: () => 60_000 },
      { log: { info: note, warn: note, error: note } },
    )
    t.after(() => store.close())
    await store.ping()
    await redis.cli('CONFIG', 'SET', 'requirepass', 'second-password')
    current = 'second-password'
    await redis.cli('-a', 'second-password', 'CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await redis.cli('-a', 'second-password', 'CLIENT', 'KILL', 'TYPE', 'pubsub')
    await eventually(answers(store))
    assert.doesNotMatch(inspect([logged, store], { depth: 9 }), /(first|second)-password/)
  })
})
