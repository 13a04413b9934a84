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
