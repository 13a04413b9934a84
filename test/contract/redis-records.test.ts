import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { suite, test } from 'node:test'
import type { SessionHash } from '../../src/store/port.ts'
import { steadyNow } from '../kit/steady.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import {
  eventually,
  FIRST_TOKENS,
  openRedisStore,
  redisForThisFile,
  signedIn,
  someHash,
} from '../kit/store/store-contestants.ts'

suite('what lies in Redis', { skip: skipWithoutRedis() }, () => {
  const server = redisForThisFile()

  test('keys and types are those of the contract, and every key ends by itself', async (t) => {
    const keyPrefix = `keys-${randomUUID()}`
    const store = await openRedisStore(t, server(), { keyPrefix })
    const hash = someHash()
    await store.sessions.create(hash, 'sealed', { user: 'sub:ada', idpSession: 'idp:one' })
    await store.tokens.create(hash, FIRST_TOKENS)
    await store.endings.note(['idp:one'], 60_000)
    await store.replays.firstUse('logout', 'jti', 60_000)
    await store.sessions.noteAbout(hash, 'sealed')
    await store.tokens.lock(hash, 'me', 60_000)
    const accessToken = { resource: 'billing', sealed: 'sealed-at-b' }
    await store.tokens.write(hash, { expectedVersion: 1, accessToken })
    await store.logins.put('attempt', 'sealed', 60_000)
    await store.clientTokens.write('audit', 'sealed', 60_000)
    await store.clientTokens.lock('audit', 'me', 60_000)

    const keys = await server().cli('KEYS', `${keyPrefix}*`)
    const types: Record<string, string | undefined> = {}
    for (const key of keys) {
      types[key] = (await server().cli('TYPE', key))[0]
      assert.ok(Number((await server().cli('PTTL', key))[0]) > 0, `${key} has no end`)
    }
    assert.deepEqual(types, {
      [`${keyPrefix}:{${hash}}:session`]: 'string',
      [`${keyPrefix}:{${hash}}:tokens`]: 'hash',
      [`${keyPrefix}:{${hash}}:refresh-lock`]: 'string',
      [`${keyPrefix}:{${hash}}:life`]: 'string',
      [`${keyPrefix}:{${hash}}:about`]: 'string',
      [`${keyPrefix}:sub:ada`]: 'zset',
      [`${keyPrefix}:idp:one`]: 'set',
      [`${keyPrefix}:ended:idp:one`]: 'string',
      [`${keyPrefix}:endings`]: 'string',
      [`${keyPrefix}:used:logout:${createHash('sha256').update('jti').digest('base64url')}`]: 'string',
      [`${keyPrefix}:login:attempt`]: 'string',
      [`${keyPrefix}:client:audit`]: 'string',
      [`${keyPrefix}:client-lock:audit`]: 'string',
    })
    const fields = await server().cli('HKEYS', `${keyPrefix}:{${hash}}:tokens`)
    assert.deepEqual(fields.sort(), ['at:billing', 'at:orders', 'rt', 'v'])
    await store.sessions.end(hash)
    assert.deepEqual(await server().cli('KEYS', `${keyPrefix}:{*`), [])
    assert.deepEqual(await server().cli('EXISTS', `${keyPrefix}:sub:ada`, `${keyPrefix}:idp:one`), ['0'])
  })

  test('an index ends with the last session it may name, and forgets what has gone, but nothing that is about to be created', async (t) => {
    const keyPrefix = `index-${randomUUID()}`
    const [sub, idp] = [`${keyPrefix}:sub:ada`, `${keyPrefix}:idp:one`]
    const indexes = { user: 'sub:ada', idpSession: 'idp:one' } as const
    const times = { idleTimeoutMs: 60_000, absoluteTimeoutMs: 600_000 }
    const store = await openRedisStore(t, server(), { keyPrefix, ...times })
    const long = await openRedisStore(t, server(), { keyPrefix, ...times, absoluteTimeoutMs: 3_600_000 })
    const members = async () => [
      await server().cli('ZRANGE', sub, '0', '-1'),
      (await server().cli('SMEMBERS', idp)).sort(),
    ]
    const pending = someHash()
    const [now = 0] = (await server().cli('TIME')).map((seconds) => Number(seconds) * 1000)
    await server().cli('ZADD', sub, String(now), pending)
    await server().cli('SADD', idp, pending)
    // Long ago by the clock of Redis: older than any session, and old enough to be no sign-in on its way.
    const gone = someHash()
    const half = someHash()
    await server().cli('ZADD', sub, String(now - 700_000), someHash(), String(now - 40_000), gone)
    await server().cli('SADD', idp, gone, half)

    const first = someHash()
    await store.sessions.create(first, 'sealed', indexes)
    await eventually(async () => (await members())[1]?.length === 2)
    assert.deepEqual(await members(), [[pending, first], [pending, first].sort()])
    for (const key of [sub, idp]) {
      const [left] = await server().cli('PTTL', key)
      assert.ok(Number(left) > 590_000 && Number(left) <= 600_000, key)
    }
    await long.sessions.create(someHash(), 'sealed', indexes)
    await store.sessions.create(someHash(), 'sealed', indexes)
    for (const key of [sub, idp]) assert.ok(Number((await server().cli('PTTL', key))[0]) > 3_590_000, key)
    assert.equal((await store.index.living('sub:ada')).length, 3)
    assert.equal((await store.index.living('idp:one')).length, 3)
  })

  test('a session is noted before it exists: when it cannot be noted, it is not created', async (t) => {
    const keyPrefix = `order-${randomUUID()}`
    const store = await openRedisStore(t, server(), { keyPrefix })
    const hash = someHash()
    await server().cli('SET', `${keyPrefix}:idp:one`, 'of another type')
    await assert.rejects(
      store.sessions.create(hash, 'sealed', { user: 'sub:ada', idpSession: 'idp:one' }),
      /did not serve indexIdpSession/,
    )
    assert.equal(await store.sessions.read(hash), undefined)
  })

  test('tokens live exactly as long as their session: sliding takes them along, writing does not prolong them', async (t) => {
    const keyPrefix = `ttl-${randomUUID()}`
    const store = await openRedisStore(t, server(), { keyPrefix, idleTimeoutMs: 60_000 })
    const hash = await signedIn(store)
    const key = (part: string) => `${keyPrefix}:{${hash}}:${part}`
    const ttl = async (part: string) => Number((await server().cli('PTTL', key(part)))[0])

    await server().cli('PEXPIRE', key('session'), '20000')
    await store.tokens.lock(hash, 'me', 60_000)
    await store.tokens.write(hash, { expectedVersion: 1, refreshToken: 'rt-2' })
    assert.ok((await ttl('tokens')) <= 20_000)
    await store.sessions.read(hash)
    await store.sessions.timeLeft(hash)
    assert.ok((await ttl('session')) <= 20_000)
    await store.sessions.slide(hash)
    assert.ok((await ttl('session')) > 40_000)
    assert.ok((await ttl('tokens')) > 40_000)
  })

  test('tokens that Redis evicted are no licence to write over nothing', async (t) => {
    const keyPrefix = `evicted-${randomUUID()}`
    const store = await openRedisStore(t, server(), { keyPrefix })
    const hash = await signedIn(store)
    await store.tokens.lock(hash, 'me', 60_000)
    await server().cli('DEL', `${keyPrefix}:{${hash}}:tokens`)
    const change = { expectedVersion: 1, refreshToken: 'rt-2' }
    assert.equal(await store.tokens.write(hash, change), 'superseded')
    assert.equal(await store.tokens.read(hash), undefined)
  })

  test('scripts work again after Redis has forgotten them', async (t) => {
    const store = await openRedisStore(t, server())
    const hash = await signedIn(store)
    await store.sessions.slide(hash)
    await server().cli('SCRIPT', 'FLUSH')
    assert.equal(await store.sessions.slide(hash), 60_000)
  })

  test('another replica hears one message of a refresh', async (t) => {
    const keyPrefix = `refresh-${randomUUID()}`
    const here = await openRedisStore(t, server(), { keyPrefix })
    const there = await openRedisStore(t, server(), { keyPrefix })
    const hash = await signedIn(here)
    const heard: unknown[] = []
    const isLast = Promise.withResolvers<void>()
    there.invalidations.onInvalidate((changed) => {
      heard.push(changed)
      if (changed !== hash) isLast.resolve()
    })
    const accessToken = { resource: 'orders', sealed: 'sealed-at-2' }
    await here.tokens.write(hash, { expectedVersion: 1, attempt: 'open:me' })
    await here.tokens.write(hash, { expectedVersion: 2, refreshToken: 'rt-2', attempt: 'ended' })
    await here.tokens.write(hash, { expectedVersion: 3, accessToken, attempt: 'ended' })
    const after = await signedIn(here)
    await here.sessions.end(after)
    await isLast.promise
    assert.deepEqual(heard, [hash, after])
  })

  test('another replica hears of every change of what is copied, and of every end, within 100 ms', async (t) => {
    const keyPrefix = `replicas-${randomUUID()}`
    const here = await openRedisStore(t, server(), { keyPrefix })
    const there = await openRedisStore(t, server(), { keyPrefix })
    const foreign = await openRedisStore(t, server(), { keyPrefix: `${keyPrefix}-other` })
    const heardElsewhere: unknown[] = []
    foreign.invalidations.onInvalidate((changed) => heardElsewhere.push(changed))
    const hash = await signedIn(here)
    await here.tokens.lock(hash, 'me', 60_000)
    for (const change of [
      () =>
        here.tokens.write(hash, { expectedVersion: 1, accessToken: { resource: 'orders', sealed: 'at-2' } }),
      () => here.sessions.replace(hash, { before: 'sealed', after: 'changed' }),
      () => here.tokens.forgetAll(hash),
      () => here.sessions.end(hash),
    ]) {
      const heard = Promise.withResolvers<SessionHash | undefined>()
      const unsubscribe = there.invalidations.onInvalidate(heard.resolve)
      await change()
      const doneAt = steadyNow()
      assert.equal(await heard.promise, hash)
      assert.ok(steadyNow() - doneAt < 100)
      unsubscribe()
    }
    assert.deepEqual(heardElsewhere, [])
  })

  test('a session of one replica is read, ended and gone at the other', async (t) => {
    const keyPrefix = `shared-${randomUUID()}`
    const here = await openRedisStore(t, server(), { keyPrefix })
    const there = await openRedisStore(t, server(), { keyPrefix })
    const hash = await signedIn(here)
    assert.equal(await there.sessions.read(hash), 'sealed')
    const [one, other] = await Promise.all([here.sessions.end(hash), there.sessions.end(hash)])
    assert.equal([one, other].filter(Boolean).length, 1)
    assert.equal(await here.sessions.read(hash), undefined)
  })

  test('an end that finds only tokens still takes them', async (t) => {
    const keyPrefix = `orphan-${randomUUID()}`
    const store = await openRedisStore(t, server(), { keyPrefix })
    const hash = await signedIn(store)
    await server().cli('DEL', `${keyPrefix}:{${hash}}:session`)
    assert.equal((await store.sessions.end(hash))?.refreshToken, 'sealed-rt-1')
    assert.equal(await store.sessions.end(someHash()), undefined)
  })
})
