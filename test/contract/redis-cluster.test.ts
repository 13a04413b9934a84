import assert from 'node:assert/strict'
import { suite, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { Secret } from '../../src/config/secrets/secret.ts'
import type { BffError } from '../../src/errors.ts'
import type { SessionHash, Store } from '../../src/store/port.ts'
import { slotOf } from '../../src/store/redis/connection/cluster.ts'
import type { RedisAddress } from '../../src/store/redis/connection/servers.ts'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { captureLog } from '../kit/cloakroom.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { accessRule, addedRights } from '../kit/store/access-rule.ts'
import { startLoad } from '../kit/store/load-on-store.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { sharedCluster } from '../kit/store/shared-sets.ts'
import {
  eventually,
  openRedisStore,
  signedIn,
  signedInWhenServed,
  someHash,
} from '../kit/store/store-contestants.ts'

const TIMES = { idleTimeoutMs: () => 60_000, absoluteTimeoutMs: () => 600_000 }

/** Two replicas of Cloakroom on the shared cluster, which hear each other. */
async function openTwo(t: TestContext) {
  const { set, address } = await sharedCluster()
  await set.settled()
  const keyPrefix = `app${someHash()}`
  const open = () => openRedisStore(t, address, { keyPrefix })
  const [one, other] = await Promise.all([open(), open()])
  await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
  const sessionKey = (hash: SessionHash) => `${keyPrefix}:{${hash}}:session`
  return { set, address, keyPrefix, one, other, sessionKey }
}

/** The end of sessions in every part of the cluster reaches the other replica, if need be once both have left a node that hangs. */
async function assertHeard(one: Store, other: Store): Promise<void> {
  const heard = new Set<SessionHash | undefined>()
  const forget = one.invalidations.onInvalidate((hash) => heard.add(hash))
  for (;;) {
    heard.clear()
    await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
    const hashes = await Promise.all(Array.from({ length: 12 }, () => signedInWhenServed(other)))
    await Promise.all(hashes.map((hash) => other.sessions.end(hash)))
    // Undefined: its subscription had to begin anew, so it has dropped every copy.
    await eventually(() => heard.has(undefined) || hashes.every((hash) => heard.has(hash)))
    if (hashes.every((hash) => heard.has(hash))) break
  }
  forget()
}

const refusal = (store: Store) =>
  store.tryOut().then(
    () => 'nothing',
    (error: BffError) => `${error.code}: ${(error.cause as Error | undefined)?.message}`,
  )

suite('Redis Cluster', { skip: skipWithoutRedis() }, () => {
  test('the slot of a key is that of its hash tag, as the nodes count it', async () => {
    const { set } = await sharedCluster()
    const keys = [
      'a',
      'cloakroom:{H}:session',
      'cloakroom:sub:x',
      '{}x',
      'x{}y',
      'a{b}{c}',
      'a{{b}}c',
      'ünïcode',
    ]
    for (const key of keys) {
      assert.deepEqual(await set.nodes[0]!.cli('CLUSTER', 'KEYSLOT', key), [String(slotOf(key))], key)
    }
  })

  test('slots that move, one after the other, under load: every step is served, and no session is lost', async (t) => {
    const { set, one, other, sessionKey } = await openTwo(t)
    const load = await startLoad(t, [one, other])
    for (const hash of load.hashes.slice(0, 10)) {
      const owner = await set.ownerOf(sessionKey(hash))
      const next = (await set.primaries()).find((node) => node !== owner)!
      await set.moveSlots([slotOf(sessionKey(hash))], next)
    }
    const { served, refusals, lost, others } = await load.stop()
    assert.deepEqual([refusals, lost, others], [[], [], []])
    assert.ok(served > 0)
    await assertHeard(one, other)
  })

  test('a slot that is halfway: what is still at the old node is served there, what is not, at the new one', async (t) => {
    const { set, one, other, sessionKey } = await openTwo(t)
    const hash = await signedIn(one)
    const slot = slotOf(sessionKey(hash))
    const owner = await set.ownerOf(sessionKey(hash))
    const next = (await set.primaries()).find((node) => node !== owner)!
    const finish = await set.beginMove(slot, next)
    assert.equal(await one.sessions.read(hash), 'sealed')
    const accessToken = { resource: 'orders', sealed: 'at-2' }
    assert.equal(await one.tokens.write(hash, { expectedVersion: 1, accessToken }), 'written')
    // A key that is not there yet is made at the new node.
    assert.equal(await one.tokens.lock(hash, 'me', 10_000), true)
    assert.equal(await other.tokens.lock(hash, 'another', 10_000), false)
    // What is about several keys, of which some are not there, is refused by both until all are at one of them.
    const [left] = await Promise.all([one.sessions.slide(hash), finish()])
    assert.ok(left)
    assert.equal(await other.tokens.lock(hash, 'another', 10_000), false)
    assert.equal((await other.tokens.read(hash))?.accessTokens.orders, 'at-2')
    // A script that the node does not know is sent whole.
    for (const node of await set.primaries()) await node.cli('SCRIPT', 'FLUSH')
    assert.ok(await one.sessions.slide(hash))
    assert.ok(await one.sessions.end(hash).then(() => true))
  })

  test('a primary that is killed under load: sessions elsewhere are served on, 503 for its own until a replica is promoted, none is lost', async (t) => {
    const { set, one, other } = await openTwo(t)
    const load = await startLoad(t, [one, other])
    await set.settled()
    const heard: unknown[] = []
    one.invalidations.onInvalidate((hash) => heard.push(hash))
    const [old] = await set.primaries()
    load.mark()
    await old!.kill()
    await eventually(async () => {
      const primaries = await set.primaries()
      return primaries.length === 3 && !primaries.includes(old!)
    })
    await assertHeard(one, other)
    assert.ok(heard.includes(undefined), 'copies are dropped while one of the primaries is not heard')
    const { served, lost, others } = await load.stop()
    assert.deepEqual([lost, others], [[], []])
    assert.ok(served > 0)
    await old!.restart()
    await set.settled()
    await assertHeard(one, other)
  })

  test('a primary that hangs is left, and its sessions are served by the one that takes over', async (t) => {
    const { set, one, other } = await openTwo(t)
    const load = await startLoad(t, [one, other])
    await set.settled()
    const [old] = await set.primaries()
    old!.pause()
    t.after(() => old!.resume())
    await eventually(async () => (await set.primaries()).every((node) => node !== old))
    await assertHeard(one, other)
    old!.resume()
    await set.settled()
    await assertHeard(one, other)
    const { lost, others } = await load.stop()
    assert.deepEqual([lost, others], [[], []])
  })

  test('the access rule of the README with what it adds is enough, with the password changed under way, and no password is shown', async (t) => {
    const { set, address } = await sharedCluster()
    await set.settled()
    const added = addedRights()
    const rule = [...accessRule('first-password'), ...added.cluster, ...added.durability]
    for (const node of set.nodes) await node.cli(...rule)
    t.after(async () => {
      for (const node of set.nodes) await node.cli('ACL', 'DELUSER', 'cloakroom')
    })
    let current = 'first-password'
    const { log, lines } = captureLog()
    const own = { ...address, username: 'cloakroom', password: new Secret(() => current) }
    const config = { ...own, keyPrefix: 'cloakroom', durability: 'replica' as const }
    const store = await createRedisStore(config as RedisAddress & typeof config, TIMES, { log })
    t.after(() => store.close())
    await store.tryOut()
    const hash = await signedIn(store)
    assert.equal(await store.tokens.write(hash, { expectedVersion: 1, refreshToken: 'rotated' }), 'written')
    current = 'second-password'
    for (const node of set.nodes) await node.cli('ACL', 'SETUSER', 'cloakroom', 'resetpass', `>${current}`)
    for (const node of set.nodes) await node.cli('CLIENT', 'KILL', 'USER', 'cloakroom')
    await eventually(async () => (await refusal(store)) === 'nothing')
    assert.equal((await store.tokens.read(hash))?.refreshToken, 'rotated')
    assert.doesNotMatch(inspect([lines, store], { depth: 9 }), /(first|second)-password/)
    for (const right of [...added.cluster, ...added.durability]) {
      for (const node of set.nodes) await node.cli('ACL', 'SETUSER', 'cloakroom', right.replace('+', '-'))
      const without = await createRedisStore(config as RedisAddress & typeof config, TIMES, { log })
      // Leave to ask is needed only while slots move.
      if (right !== '+asking') assert.match(await refusal(without), /NOPERM/, right)
      await without.close()
      for (const node of set.nodes) await node.cli('ACL', 'SETUSER', 'cloakroom', right)
    }
  })

  test('what is wrong is told by the trial: nodes that are away, a wrong password, a server that is no cluster', async (t) => {
    const { set, address } = await sharedCluster()
    await set.settled()
    const open = async (changes: object) =>
      refusal(await openRedisStore(t, { ...address, ...changes } as RedisAddress))
    const nobody = { host: '127.0.0.1', port: 1 }
    await Promise.all(
      [
        { of: { cluster: [nobody] }, says: /no node of the cluster answers: 127\.0\.0\.1:1: .*ECONNREFUSED/ },
        { of: { password: new Secret('wrong') }, says: /no node of the cluster answers: .*WRONGPASS/ },
        { of: { tls: { servername: 'other.example' } }, says: /certificate/ },
        { of: { cluster: [nobody, set.seeds[3]!] }, says: /^nothing$/ },
      ].map(async ({ of, says }) => assert.match(await open(of), says)),
    )
  })
})
