import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { createDeadline, type Wait } from '../../../src/async/deadline.ts'

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
