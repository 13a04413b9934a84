import assert from 'node:assert/strict'
import { suite, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { Secret } from '../../src/config/secrets/secret.ts'
import type { BffError } from '../../src/errors.ts'
import type { SessionHash, Store } from '../../src/store/port.ts'
import type { RedisAddress } from '../../src/store/redis/connection/servers.ts'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { captureLog } from '../kit/cloakroom.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { accessRule, addedRights, sentinelAccessRule } from '../kit/store/access-rule.ts'
import { startLoad } from '../kit/store/load-on-store.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { sharedSentinels } from '../kit/store/shared-sets.ts'
import {
  eventually,
  openRedisStore,
  signedIn,
  signedInWhenServed,
  someHash,
} from '../kit/store/store-contestants.ts'

const TIMES = { idleTimeoutMs: () => 60_000, absoluteTimeoutMs: () => 600_000 }

/** Two replicas of Cloakroom on the shared set, which hear each other. */
async function openTwo(t: TestContext, durability: 'none' | 'replica' = 'none') {
  const { set, address } = await sharedSentinels()
  await set.settled()
  const { log, lines } = captureLog()
  const keyPrefix = `app${someHash()}`
  const open = async () => {
    const store = await createRedisStore({ ...address, keyPrefix, durability }, TIMES, { log })
    t.after(() => store.close())
    return store
  }
  const [one, other] = await Promise.all([open(), open()])
  await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
  return { set, address, keyPrefix, one, other, lines }
}

function ended(store: Store): (SessionHash | undefined)[] {
  const heard: (SessionHash | undefined)[] = []
  store.invalidations.onInvalidate((hash) => heard.push(hash))
  return heard
}

/** The end of a session at one replica reaches the other, if need be once both have left a primary that hangs. */
async function assertHeard(one: Store, other: Store): Promise<void> {
  const heard = ended(one)
  for (;;) {
    heard.length = 0
    await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
    const hash = await signedInWhenServed(other)
    await other.sessions.end(hash)
    // Undefined: its subscription had to begin anew, so it has dropped every copy.
    await eventually(() => heard.includes(hash) || heard.includes(undefined))
    if (heard.includes(hash)) return
  }
}

const refusal = (store: Store) =>
  store.tryOut().then(
    () => 'nothing',
    (error: BffError) => `${error.code}: ${(error.cause as Error | undefined)?.message}`,
  )

suite('Redis with sentinels', { skip: skipWithoutRedis() }, () => {
  test('a primary that is killed under load: 503 until another is promoted, no session lost, copies dropped, ends heard again', async (t) => {
    const { set, one, other } = await openTwo(t)
    const load = await startLoad(t, [one, other])
    await set.settled()
    const heard = ended(one)
    const old = await set.primary()
    load.mark()
    await old.kill()
    await eventually(() => heard.includes(undefined))
    await set.movedFrom(old)
    await assertHeard(one, other)
    const { served, refusals, lost, others } = await load.stop()
    assert.deepEqual([lost, others], [[], []])
    assert.ok(served > 0 && refusals.length > 0)
    await set.rejoin(old)
    await set.settled()
    // It has come back as a replica, and nobody writes to it.
    assert.notEqual(await set.primary(), old)
    await assertHeard(one, other)
  })

  test('a primary that hangs is left, and is no primary for us when it goes on', async (t) => {
    const { set, one, other } = await openTwo(t)
    const load = await startLoad(t, [one, other])
    await set.settled()
    const old = await set.primary()
    old.pause()
    t.after(() => old.resume())
    await set.movedFrom(old)
    await assertHeard(one, other)
    const hash = await signedInWhenServed(one)
    old.resume()
    // It takes itself for the primary, until the sentinels tell it otherwise some seconds later: that is not waited for.
    await assertHeard(one, other)
    assert.ok(await one.sessions.read(hash))
    await old.cli('REPLICAOF', '127.0.0.1', await set.portOfPrimary())
    await set.settled()
    await assertHeard(one, other)
    assert.ok(await one.sessions.read(hash))
    const { lost, others } = await load.stop()
    assert.deepEqual([lost, others], [[], []])
  })

  test('a failover that an operator asks for, with the old primary alive, loses nothing that was written after it', async (t) => {
    const { set, one, other, keyPrefix } = await openTwo(t)
    const load = await startLoad(t, [one, other])
    const old = await set.primary()
    await set.sentinelServers[0]!.cli('SENTINEL', 'FAILOVER', set.masterName)
    const next = await set.movedFrom(old)
    // The sentinels tell it in eight seconds.
    await old.cli('REPLICAOF', '127.0.0.1', await set.portOfPrimary())
    await set.settled()
    const hash = await signedInWhenServed(one)
    assert.deepEqual(await next.cli('EXISTS', `${keyPrefix}:{${hash}}:session`), ['1'])
    await assertHeard(one, other)
    const { lost, others } = await load.stop()
    assert.deepEqual([lost, others], [[], []])
  })

  test('the access rules of the README are enough, with the password changed in its file under way, and no password is shown', async (t) => {
    const { set, address } = await sharedSentinels()
    await set.settled()
    const [first, second] = ['first-password', 'second-password']
    const rule = [...accessRule(first), ...addedRights().durability]
    for (const server of set.servers) await server.cli(...rule)
    for (const sentinel of set.sentinelServers) await sentinel.cli(...sentinelAccessRule(first))
    t.after(async () => {
      for (const server of [...set.servers, ...set.sentinelServers])
        await server.cli('ACL', 'DELUSER', 'cloakroom')
    })
    let current = first
    const password = new Secret(() => current)
    const { log, lines } = captureLog()
    const own = { ...address, username: 'cloakroom', password, sentinelUsername: 'cloakroom' }
    const config = {
      ...own,
      sentinelPassword: password,
      keyPrefix: 'cloakroom',
      durability: 'replica' as const,
    }
    const store = await createRedisStore(config as RedisAddress & typeof config, TIMES, { log })
    t.after(() => store.close())
    await store.tryOut()
    for (const server of [...set.servers, ...set.sentinelServers]) {
      await server.cli('ACL', 'SETUSER', 'cloakroom', 'resetpass', `>${second}`)
    }
    current = second
    for (const server of [...set.servers, ...set.sentinelServers]) {
      await server.cli('CLIENT', 'KILL', 'USER', 'cloakroom')
    }
    await eventually(async () => (await refusal(store)) === 'nothing')
    const old = await set.primary()
    await old.kill()
    await set.movedFrom(old)
    await eventually(async () => (await refusal(store)) === 'nothing')
    await set.rejoin(old)
    // What was not in a file is not there after a start.
    await old.cli(...rule)
    await set.settled()
    assert.doesNotMatch(inspect([lines, store], { depth: 9 }), /(first|second)-password/)
  })

  test('what is wrong is told by the trial: the name, the password of the sentinels, a right for WAIT, sentinels that are away', async (t) => {
    const { set, address } = await sharedSentinels()
    await set.settled()
    const open = async (changes: object) => {
      const store = await openRedisStore(t, { ...address, ...changes } as RedisAddress)
      return refusal(store)
    }
    const nobody = { host: '127.0.0.1', port: 1 }
    const [there] = set.sentinels
    await Promise.all(
      [
        {
          of: { masterName: 'mistress' },
          says: /no sentinel names the primary of mistress: .*knows no primary/,
        },
        { of: { sentinelPassword: new Secret('wrong') }, says: /no sentinel names .*WRONGPASS/ },
        { of: { sentinelPassword: undefined }, says: /no sentinel names .*NOAUTH/ },
        { of: { password: new Secret('wrong') }, says: /WRONGPASS/ },
        { of: { sentinels: [nobody] }, says: /127\.0\.0\.1:1: .*ECONNREFUSED/ },
        { of: { tls: { servername: 'other.example' } }, says: /certificate/ },
        // One that is away is no reason to be away.
        { of: { sentinels: [nobody, there] }, says: /^nothing$/ },
      ].map(async ({ of, says }) => assert.match(await open(of), says)),
    )
    for (const server of set.servers) await server.cli(...accessRule('geheim'))
    t.after(async () => {
      for (const server of set.servers) await server.cli('ACL', 'DELUSER', 'cloakroom')
    })
    const asCloakroom = { ...address, username: 'cloakroom', password: new Secret('geheim') }
    const store = await createRedisStore(
      { ...asCloakroom, keyPrefix: 'cloakroom', durability: 'replica' },
      TIMES,
      { log: captureLog().log },
    )
    t.after(() => store.close())
    assert.match(await refusal(store), /NOPERM .*wait/)
  })
})

suite('a rotated refresh token and a failover that loses writes', { skip: skipWithoutRedis() }, () => {
  /**
   * Rotates the refresh tokens of 20 sessions while the replica is behind for 200 ms, kills the primary as soon as they are
   * stored, and counts the sessions that have another refresh token after the failover. `isConfirmed`: the replica had them all in time.
   */
  async function rotateAndLose(
    t: TestContext,
    durability: 'none' | 'replica',
    { isWriterLost }: { isWriterLost: boolean },
  ): Promise<{ lost: number; isConfirmed: boolean }> {
    const { set, one, other, lines } = await openTwo(t, durability)
    const hashes = await Promise.all(Array.from({ length: 20 }, () => signedIn(one)))
    const old = await set.primary()
    const replica = set.servers.find((server) => server !== old)!
    await eventually(async () => {
      const [a, b] = await Promise.all([old, replica].map((server) => server.cli('DBSIZE')))
      return a![0] === b![0]
    })
    // What a dead process has given to its socket still arrives: more than a socket holds keeps the rest in the process.
    replica.pause()
    for (let n = 0; n < 24; n += 1) await old.cli('SET', `ballast-${n}`, 'x'.repeat(1_000_000))
    setTimeout(() => replica.resume(), 200)
    const rotations = hashes.map((hash) =>
      one.tokens.write(hash, { expectedVersion: 1, refreshToken: 'rotated' }),
    )
    assert.deepEqual(new Set(await Promise.all(rotations)), new Set(['written']))
    await old.kill()
    // It would tell the new primary again what the old one had taken.
    if (isWriterLost) await one.close()
    await set.movedFrom(old)
    await eventually(() => other.invalidations.isLive())
    if (!isWriterLost)
      await eventually(async () => (await other.tokens.read(hashes[0]!))?.refreshToken === 'rotated')
    const kept = await Promise.all(hashes.map((hash) => other.tokens.read(hash)))
    await set.rejoin(old)
    await (await set.primary()).cli('FLUSHALL')
    await set.settled()
    return {
      lost: kept.filter((tokens) => tokens?.refreshToken !== 'rotated').length,
      isConfirmed: !lines.some((line) => line.includes('no replica of redis has confirmed')),
    }
  }

  test('with durability none those of the last moment are lost, if the replica of ours that wrote them is lost as well', async (t) => {
    assert.equal((await rotateAndLose(t, 'none', { isWriterLost: true })).lost, 20)
  })

  test('what was taken and lost is told again by the replica of ours that wrote it', async (t) => {
    const { lost } = await rotateAndLose(t, 'none', { isWriterLost: false })
    assert.ok(lost < 20, `${lost} of 20`)
  })

  test('with durability replica none is lost, because each was on the replica before it was used', async (t) => {
    for (let tries = 0; tries < 5; tries += 1) {
      const { lost, isConfirmed } = await rotateAndLose(t, 'replica', { isWriterLost: true })
      if (isConfirmed) return assert.equal(lost, 0)
      t.diagnostic('tried again, because the replica needed more than half a second')
    }
    assert.fail('the replica always needed more than half a second')
  })

  test('with durability replica and no replica that answers, it is used after half a second, with a warning and a count', async (t) => {
    const { set, address } = await sharedSentinels()
    await set.settled()
    const { log, lines } = captureLog()
    let counted = 0
    const unreplicated = () => {
      counted += 1
    }
    const config = { ...address, keyPrefix: `app${someHash()}`, durability: 'replica' as const }
    const store = await createRedisStore(config, TIMES, { log, unreplicated })
    t.after(() => store.close())
    const hashes = await Promise.all(Array.from({ length: 5 }, () => signedIn(store)))
    const primary = await set.primary()
    const replica = set.servers.find((server) => server !== primary)!
    replica.pause()
    t.after(() => replica.resume())
    const rotate = (hash: SessionHash, version: number) =>
      store.tokens.write(hash, { expectedVersion: version, refreshToken: `rotated-${version}` })
    const startedAt = performance.now()
    const first = hashes.map((hash) => rotate(hash, 1))
    // Other commands do not wait behind it.
    assert.ok(await store.sessions.read(hashes[0]!))
    assert.equal(counted, 0)
    assert.deepEqual(new Set(await Promise.all(first)), new Set(['written']))
    assert.ok(performance.now() - startedAt >= 450)
    assert.equal(counted, 5)
    assert.equal(lines.filter((line) => line.includes('no replica of redis has confirmed')).length, 1)
    replica.resume()
    await eventually(async () => {
      const before = counted
      const { version } = (await store.tokens.read(hashes[0]!))!
      await rotate(hashes[0]!, version)
      return counted === before
    })
  })
})
