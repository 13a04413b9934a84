import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { createDeadline, type Wait, within } from '../../../src/async/deadline.ts'
import { createTestClock } from '../../kit/clock.ts'

const createLimit = (ms: number) => createDeadline(ms, () => new Error('too late'))

/** As a garbage collection, a throttled container or a paused machine does. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

test('what never comes is given up after its time, and hears of it', async () => {
  const startedAt = performance.now()
  let seen: Wait | undefined
  const never = createLimit(120).within((wait) => {
    seen = wait
    return new Promise(() => undefined)
  })
  await assert.rejects(never, /too late/)
  assert.ok(performance.now() - startedAt >= 120)
  assert.equal(seen?.isOver, true)
})

test('what comes, or fails, in time is what it is', async () => {
  const limit = createLimit(60)
  assert.equal(await limit.within(async () => 'it'), 'it')
  await assert.rejects(
    limit.within(() => Promise.reject(new Error('no'))),
    /no/,
  )
})

test('the time in which the process stands still does not count, in one piece or in several', async () => {
  const late = createLimit(400).within(() => delay(900, 'late'))
  for (let pause = 0; pause < 2; pause += 1) {
    await delay(20)
    standStill(400)
  }
  assert.equal(await late, 'late')
})

test('a wait within a time gives what comes, fails as it does, and leaves no timer', async () => {
  const clock = createTestClock()
  const late = () => assert.fail('it was in time')
  assert.equal(await within(Promise.resolve('it'), 100, { late, clock }), 'it')
  await assert.rejects(within(Promise.reject(new Error('no')), 100, { late, clock }), /no/)
  assert.equal(clock.planned(), 0)
})

test('a wait within a time ends with what `late` gives or throws', async () => {
  const clock = createTestClock()
  const never = new Promise<string>(() => undefined)
  const ended: unknown[] = []
  within(never, 100, { late: () => 'instead', clock }).then((value) => ended.push(value))
  const late = () => {
    throw new Error('too late')
  }
  within(never, 100, { late, clock }).catch((error) => ended.push(error.message))
  await clock.elapse(99)
  assert.deepEqual(ended, [])
  await clock.elapse(1)
  assert.deepEqual(ended, ['instead', 'too late'])
})

test('a wait within a time ends when its client leaves, or has left', async () => {
  const clock = createTestClock()
  const never = new Promise<string>(() => undefined)
  const late = () => assert.fail('it was in time')
  const client = Object.assign(new EventEmitter(), { destroyed: false })
  const left = within(never, 100, { late, clock, closing: client })
  client.emit('close')
  assert.equal(await left, undefined)
  client.destroyed = true
  assert.equal(await within(never, 100, { late, clock, closing: client }), undefined)
  assert.deepEqual([client.listenerCount('close'), clock.planned()], [0, 0])
})
