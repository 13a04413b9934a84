import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { suite, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { BffError } from '../../src/errors.ts'
import type { CountRequest, Store } from '../../src/store/port.ts'
import { countInProcess, countOverReplicas } from '../../src/store/rate-limits.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import {
  eventually,
  memoryContestant,
  openRedisStore,
  redisContestant,
  redisForThisFile,
  silentLog,
} from '../kit/store/store-contestants.ts'

const server = redisForThisFile()
const MINUTE = 60_000

/** How many of so many requests at once may pass. */
async function passing(requests: number, ...counts: CountRequest[]): Promise<number> {
  const waits = Array.from({ length: requests }, (_, index) => counts[index % counts.length]!('client'))
  return (await Promise.all(waits)).filter((wait) => wait === 0).length
}

for (const contestant of [memoryContestant, redisContestant(server)]) {
  suite(`counting requests: ${contestant.name}`, { skip: contestant.skip, concurrency: true }, () => {
    const open = async (t: TestContext): Promise<Store> => (await contestant.open(t)).store

    test('of 200 requests at once exactly the 50 of the limit pass, 20 times over', async (t) => {
      const store = await open(t)
      for (let round = 0; round < 20; round += 1) {
        const count = store.countRequests(`kind-${round}`, { requests: 50, perMs: MINUTE })
        assert.equal(await passing(200, count), 50)
      }
    })

    test('a request too many is told when the next may come, and one after that passes', async (t) => {
      const count = (await open(t)).countRequests('login', { requests: 2, perMs: 1_000 })
      assert.deepEqual([await count('a'), await count('a')], [0, 0])
      const wait = await count('a')
      assert.ok(wait > 0 && wait <= 1_000, `${wait} ms`)
      assert.ok((await count('a')) <= wait, 'asking again does not prolong it')
      await delay(wait + 20)
      assert.equal(await count('a'), 0)
    })

    test('keys, and kinds, do not share a count', async (t) => {
      const store = await open(t)
      const limit = { requests: 1, perMs: MINUTE }
      const [login, logout] = [store.countRequests('login', limit), store.countRequests('logout', limit)]
      assert.equal(await login('a'), 0)
      assert.ok((await login('a')) > 0)
      assert.deepEqual([await login('b'), await logout('a')], [0, 0])
    })
  })
}

suite('counting requests in Redis', { skip: skipWithoutRedis(), concurrency: true }, () => {
  test('two replicas share the count: of 200 requests at once to both exactly 50 pass, 20 times over', async (t) => {
    const keyPrefix = randomUUID()
    const replicas = [
      await openRedisStore(t, server(), { keyPrefix }),
      await openRedisStore(t, server(), { keyPrefix }),
    ]
    for (let round = 0; round < 20; round += 1) {
      const limit = { requests: 50, perMs: MINUTE }
      const counts = replicas.map((store) => store.countRequests(`kind-${round}`, limit))
      assert.equal(await passing(200, ...counts), 50)
    }
  })

  test('a client that is refused costs no command, and no count ever lacks an end', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const store = await openRedisStore(t, redis, { keyPrefix: 'app' })
    const count = store.countRequests('login', { requests: 10, perMs: MINUTE })
    for (let request = 0; request < 1_000; request += 1) await count('client')
    assert.deepEqual(await redis.cli('keys', '*'), ['app:limit:login:client'])
    // The eleventh is the one that shows it.
    assert.deepEqual(await redis.cli('get', 'app:limit:login:client'), ['11'])
    const [left] = await redis.cli('pttl', 'app:limit:login:client')
    assert.ok(Number(left) > 0 && Number(left) <= MINUTE, `${left} ms`)
  })

  test('a count without an end, however it came about, gets one', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const store = await openRedisStore(t, redis, { keyPrefix: 'app' })
    await redis.cli('set', 'app:limit:login:client', '1000')
    const count = store.countRequests('login', { requests: 10, perMs: MINUTE })
    assert.ok((await count('client')) > 0)
    assert.ok(Number((await redis.cli('pttl', 'app:limit:login:client'))[0]) > 0)
  })

  for (const [name, breakDown] of [
    ['killed', 'kill'],
    ['hanging', 'pause'],
  ] as const)
    test(`Redis ${name}: half of the limit passes and the rest does not, at once and without an error`, async (t) => {
      const redis = await startRedis()
      t.after(() => redis.stop())
      const store = await openRedisStore(t, redis)
      const count = store.countRequests('login', { requests: 50, perMs: MINUTE })
      assert.equal(await count('one client'), 0)
      await redis[breakDown]()
      const startedAt = steadyNow()
      assert.equal(await passing(200, count), 25)
      assert.ok(steadyNow() - startedAt < 1_000, `took ${steadyNow() - startedAt} ms`)
      const soonAfter = steadyNow()
      assert.equal(await count('another client'), 0)
      assert.ok(steadyNow() - soonAfter < 150, 'the next request does not wait for Redis again')
      await (name === 'killed' ? redis.restart() : redis.resume())
      await eventually(async () => {
        const key = randomUUID()
        await count(key)
        return (await redis.cli('keys', `*limit:login:${key}`)).length === 1
      })
    })
})

test('an outage of the shared count is told once, and its end once', async () => {
  const lines: string[] = []
  const tell = (_fields: object, message: string) => lines.push(message)
  const log = { info: tell, warn: tell, error: tell }
  let isAway = true
  const shared = async () => {
    if (isAway) throw new BffError('store_unavailable', 'away')
    return [1, MINUTE] as const
  }
  const count = countOverReplicas({ requests: 5, perMs: MINUTE }, { count: shared, log })
  for (let request = 0; request < 10; request += 1) await count('client')
  isAway = false
  await eventually(async () => {
    await count(randomUUID())
    return lines.length > 1
  })
  assert.deepEqual(lines, [
    'rate limits are counted by each replica for itself',
    'rate limits are counted over all replicas',
  ])
})

suite('counting requests in this process', () => {
  test('a flood of clients fills no memory, and does not let a client that is refused pass', async () => {
    const limit = { requests: 5, perMs: MINUTE }
    const count = countInProcess(limit)
    for (let request = 0; request < 6; request += 1) await count('heavy')
    const before = heapUsed()
    for (let client = 0; client < 9_000; client += 1) await count(`client ${client}`)
    assert.ok((await count('heavy')) > 0)
    const after = heapUsed()
    for (let client = 0; client < 200_000; client += 1) await count(`another ${client}`)
    const flooded = heapUsed()
    const kib = (bytes: number) => `${Math.round(bytes / 1024)} KiB`
    console.log(`9,000 clients: ${kib(after - before)}; 200,000 more: ${kib(flooded - after)}`)
    assert.ok(flooded - after < 4 * 1024 * 1024)
    assert.equal(await count('another 199999'), 0)
  })

  test('the flood finds the same bound while the shared count is away, and when it refuses', async () => {
    const away = () => Promise.reject(new Error('away'))
    const refusing = async () => [2, MINUTE] as const
    for (const shared of [away, refusing]) {
      const count = countOverReplicas({ requests: 1, perMs: MINUTE }, { count: shared, log: silentLog })
      for (let client = 0; client < 12_000; client += 1) await count(`client ${client}`)
      const before = heapUsed()
      const cpuBefore = process.cpuUsage()
      for (let client = 0; client < 50_000; client += 1) await count(`another ${client}`)
      const { user, system } = process.cpuUsage(cpuBefore)
      assert.ok(heapUsed() - before < 4 * 1024 * 1024)
      // A list that is searched whole for every client takes minutes.
      const tookMs = (user + system) / 1_000
      assert.ok(tookMs < 30_000, `50,000 clients took ${Math.round(tookMs)} ms`)
    }
  })
})

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

function heapUsed(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}
