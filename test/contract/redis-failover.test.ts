import assert from 'node:assert/strict'
import { suite, type TestContext } from 'node:test'
import type { SessionHash, Store } from '../../src/store/port.ts'
import { captureLog } from '../kit/cloakroom.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'
import { startRedisAddress } from '../kit/store/redis-address.ts'
import { eventually, openRedisStore, signedIn } from '../kit/store/store-contestants.ts'

const AT_ONCE = { args: ['--repl-diskless-sync-delay', '0'] }

/** A primary with its replica, and two Cloakrooms whose address leads to the primary. */
async function startPair(t: TestContext) {
  const [old, next] = await Promise.all([startRedis(AT_ONCE), startRedis(AT_ONCE)])
  for (const redis of [old, next]) t.after(() => redis.stop())
  await next.cli('REPLICAOF', '127.0.0.1', String(old.port))
  await eventually(async () => (await next.cli('INFO', 'replication')).join().includes('link_status:up'))
  const address = await startRedisAddress(old.port)
  t.after(() => address.close())
  const { log, lines } = captureLog()
  const open = () => openRedisStore(t, address, { keyPrefix: 'app', log })
  const [one, other] = await Promise.all([open(), open()])
  await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
  return { old, next, address, one, other, lines }
}

/** Makes `next` the primary, as a sentinel does, and leads the address to it. */
async function promote({ next, address }: Pick<Awaited<ReturnType<typeof startPair>>, 'next' | 'address'>) {
  await next.cli('REPLICAOF', 'NO', 'ONE')
  address.leadTo(next.port)
}

async function connectionsAt(redis: TestRedis): Promise<number> {
  // One is that of redis-cli, and a replica's is none of ours.
  return (await redis.cli('CLIENT', 'LIST')).filter((line) => !/cmd=client|flags=S/.test(line)).length
}

function ended(store: Store): SessionHash[] {
  const heard: SessionHash[] = []
  store.invalidations.onInvalidate((hash) => hash && heard.push(hash))
  return heard
}

suite('a primary that is replaced while it lives', { skip: skipWithoutRedis(), concurrency: true }, () => {
  /** Both have their own way to the old primary, which takes writes that the new one never sees. */
  async function startTornPair(t: TestContext) {
    const { old, next, address, one } = await startPair(t)
    const later = await startRedisAddress(old.port)
    t.after(() => later.close())
    const other = await openRedisStore(t, later, { keyPrefix: 'app' })
    await eventually(() => other.invalidations.isLive())
    const hash = await signedIn(one)
    await eventually(async () => (await next.cli('EXISTS', `app:{${hash}}:tokens`))[0] === '1')
    await next.cli('REPLICAOF', 'NO', 'ONE')
    for (const way of [address, later]) way.leadTo(next.port)
    return { next, one, other, hash, leaves: { one: () => address.cut(), other: () => later.cut() } }
  }

  const rotation = (n: number) => ({ expectedVersion: n, refreshToken: `rotated-${n}` })

  test('is followed by each replica of ours in its time, and all they had written there is told again in its order before a renewal begins', async (t) => {
    const { next, one, other, hash, leaves } = await startTornPair(t)
    for (let n = 1; n <= 12; n += 1)
      assert.equal(await [one, other][n % 2]!.tokens.write(hash, rotation(n)), 'written')
    assert.deepEqual(await next.cli('HGET', `app:{${hash}}:tokens`, 'v'), ['1'])
    leaves.one()
    // It has gone over, and the other has not: what that wrote is missing there.
    await eventually(async () => (await one.tokens.read(hash))?.version === 1)
    assert.equal(await one.tokens.lock(hash, 'early', 5_000), false)
    const mark = { expectedVersion: 1, attempt: 'open:early' } as const
    const early = one.tokens.write(hash, mark)
    leaves.other()
    // An answer for a refresh token that was offered before: its own record is not there yet, and it is not lost.
    assert.equal(await other.tokens.write(hash, rotation(13)), 'written')
    assert.equal(await early, 'superseded')
    await eventually(() => one.tokens.lock(hash, 'renewal', 5_000))
    const { version, refreshToken } = (await one.tokens.read(hash))!
    assert.deepEqual([version, refreshToken], [14, 'rotated-13'])
  })

  test('and whose writes are lost with the replica of ours that made them: the older record is used once the time is over', async (t) => {
    const { one, other, hash, leaves } = await startTornPair(t)
    for (const [n, store] of [other, one].entries())
      assert.equal(await store.tokens.write(hash, rotation(n + 1)), 'written')
    await other.close()
    leaves.one()
    await eventually(async () => (await one.tokens.read(hash))?.version === 1)
    assert.equal(await one.tokens.write(hash, rotation(3)), 'superseded')
    await eventually(() => one.tokens.lock(hash, 'renewal', 5_000))
    assert.equal(await one.tokens.write(hash, { expectedVersion: 1, attempt: 'open:renewal' }), 'written')
  })

  test('a connection that was cut and leads to the same server costs no wait', async (t) => {
    const { address, one } = await startPair(t)
    const hash = await signedIn(one)
    address.cut()
    await eventually(() =>
      one.ping().then(
        () => true,
        () => false,
      ),
    )
    assert.equal(await one.tokens.lock(hash, 'me', 5_000), true)
  })
})

suite('a primary that is demoted and stays up', { skip: skipWithoutRedis(), concurrency: true }, () => {
  test('is replaced on both connections without a command that shows it, and ends of sessions are heard again', async (t) => {
    const pair = await startPair(t)
    const { old, next, one, other } = pair
    const heard = ended(one)
    const hash = await signedIn(other)
    await eventually(async () => (await next.cli('EXISTS', `app:{${hash}}:session`))[0] === '1')
    await promote(pair)
    // Its link to the new primary does not come up: what is published there does not reach it.
    await old.cli('REPLICAOF', '127.0.0.1', '1')
    await eventually(async () => (await connectionsAt(old)) === 0)
    await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
    await other.sessions.end(hash)
    await eventually(() => heard.includes(hash))
  })

  test('is left by a subscription whose commands go to the new primary: what is not heard is not live', async (t) => {
    const pair = await startPair(t)
    const { old, next, one, other, lines } = pair
    await promote(pair)
    // The old primary does not know of the new one, and only the connections for commands were cut.
    await old.cli('CLIENT', 'KILL', 'TYPE', 'normal')
    await eventually(async () => (await connectionsAt(old)) === 0)
    await eventually(() => one.invalidations.isLive() && other.invalidations.isLive())
    const heard = ended(one)
    const hash = await signedIn(other)
    await other.sessions.end(hash)
    await eventually(() => heard.includes(hash))
    assert.equal((await next.cli('PUBSUB', 'NUMSUB', 'app:invalidate'))[1], '2')
    const told = lines.filter((line) => /hears nothing/.test(line))
    assert.equal(told.length, 2, 'each says so once')
  })

  test('refuses no write that comes meanwhile', async (t) => {
    const pair = await startPair(t)
    const { old, one } = pair
    await promote(pair)
    await old.cli('REPLICAOF', '127.0.0.1', String(pair.next.port))
    for (let round = 0; round < 10; round += 1) await signedIn(one)
    assert.equal((await pair.next.cli('DBSIZE'))[0], '30')
  })

  test('that the address still leads to is no store, and no reason for belief', async (t) => {
    const { old, one } = await startPair(t)
    await old.cli('REPLICAOF', '127.0.0.1', '1')
    // While it is reconnecting there is just no connection.
    await eventually(() =>
      signedIn(one).then(
        () => assert.fail('it was stored'),
        (error: Error) => /READONLY/.test((error.cause as Error).message),
      ),
    )
    await old.cli('REPLICAOF', 'NO', 'ONE')
    await eventually(() => one.invalidations.isLive())
    await signedIn(one)
  })
})
