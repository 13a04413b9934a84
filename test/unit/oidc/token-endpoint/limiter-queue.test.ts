import '../../../kit/untracked.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mostWaiting } from '../../../../src/async/semaphore.ts'
import {
  ask,
  good,
  held,
  NETWORK_ERROR,
  refusal,
  settle,
  setUp,
  WAIT_MS,
} from '../../../kit/provider/limiter-kit.ts'

test('10,000 callers at once: never more than 32 in flight, in order of arrival, and everybody is answered', async () => {
  const { limiter, seen } = setUp()
  const order: number[] = []
  const answers = Array.from({ length: 10_000 }, (_, caller) =>
    ask(limiter, async () => {
      order.push(caller)
      await new Promise((resolve) => setImmediate(resolve))
      return caller
    }),
  )
  assert.equal(seen.queue, 10_000 - 32)
  assert.deepEqual(await Promise.all(answers), [...answers.keys()])
  assert.deepEqual(order, [...answers.keys()])
  assert.deepEqual([seen.mostInFlight, seen.inFlight, seen.queue], [32, 0, 0])
})

test('nobody who comes later overtakes the queue, not even between one call and the next', async () => {
  const { limiter } = setUp({ concurrency: 1 })
  const order: string[] = []
  const note = (name: string) => () => ask(limiter, async () => void order.push(name))
  const first = held()
  const running = ask(limiter, first.script).then(note('late'))
  const waiting = [note('second')(), note('third')()]
  first.resolve('done')
  await Promise.all([running, ...waiting])
  assert.deepEqual(order, ['second', 'third', 'late'])
})

test('while the provider hangs, whoever waits is refused on time, and the permits come back', async () => {
  const { limiter, seen, tick } = setUp()
  const calls = Array.from({ length: 32 }, held)
  const hanging = calls.map(({ script }) => ask(limiter, script))
  const waiting = Array.from({ length: 10_000 }, () => refusal(ask(limiter, good)))
  await tick(2_000)
  const later = refusal(ask(limiter, good))
  await tick(WAIT_MS - 2_001)
  assert.equal(seen.queue, 10_001)
  await tick(1)
  assert.equal(seen.queue, 1)
  const refusals = await Promise.all(waiting)
  assert.ok(refusals.every(({ code }) => code === 'provider_unavailable'))
  // Not all in the same moment again.
  const pauses = refusals.map(({ retryAfter }) => retryAfter!)
  assert.deepEqual([Math.min(...pauses), Math.max(...pauses)], [5, 35])
  await tick(2_000)
  assert.equal((await later).code, 'provider_unavailable')
  for (const { resolve } of calls) resolve('late but there')
  await Promise.all(hanging)
  assert.equal(await ask(limiter, good), 'token')
  assert.deepEqual([seen.inFlight, seen.mostInFlight], [0, 32])
})

test('calls that time out open the breaker, and then nobody is left waiting', async () => {
  const { limiter, seen, tick } = setUp()
  const calls = Array.from({ length: 32 }, held)
  const hanging = calls.map(({ script }) => ask(limiter, script).catch((error) => error))
  const waiting = Array.from({ length: 1_000 }, () => refusal(ask(limiter, good)))
  await tick(1_000)
  for (const { reject } of calls) reject(NETWORK_ERROR)
  await Promise.all(hanging)
  for (const { retryAfter } of await Promise.all(waiting)) assert.equal(retryAfter, 2)
  assert.deepEqual([seen.queue, seen.states], [0, ['open']])
})

test('a queue that is full, by number or by its part of the heap, refuses at once', async () => {
  const { limiter, seen, tick } = setUp({ concurrency: 1 })
  const hanging = held()
  const running = ask(limiter, hanging.script)
  const most = mostWaiting(50_000)
  const waiting = Array.from({ length: most }, () => ask(limiter, good).catch((error) => error))
  assert.equal((await refusal(ask(limiter, good))).code, 'provider_unavailable')
  assert.equal(seen.longestQueue, most)
  hanging.resolve('token')
  await running
  await tick(0)
  assert.ok((await Promise.all(waiting)).every((answer) => answer === 'token'))
})

test('work that was admitted waits only once, and holds its permit until it ends', async () => {
  const { limiter, seen } = setUp({ concurrency: 1 })
  const order: string[] = []
  const lock = held()
  const work = limiter.admit(async () => {
    await lock.script()
    order.push(String(await ask(limiter, async () => 'first')))
  })
  const next = ask(limiter, async () => order.push('second'))
  await settle()
  assert.deepEqual([seen.inFlight, seen.queue, order], [0, 1, []])
  lock.resolve(undefined)
  await Promise.all([work, next])
  assert.deepEqual(order, ['first', 'second'])
})
