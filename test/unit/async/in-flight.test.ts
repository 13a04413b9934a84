import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createInFlightWork } from '../../../src/async/in-flight.ts'
import { createTestClock } from '../../kit/clock.ts'

test('the end waits for all work, also for what was begun on the way', async () => {
  const works = createInFlightWork(createTestClock())
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  works.add(first.promise)
  const ended = works.end(1_000)
  assert.deepEqual([works.isEnding(), works.isOver()], [true, false])
  works.add(second.promise)
  first.reject(new Error('it failed'))
  await new Promise(setImmediate)
  assert.equal(works.isOver(), false)
  second.resolve()
  assert.equal(await ended, 0)
  assert.equal(works.isOver(), true)
})

test('the end waits no longer than it may, and says how much is not done', async () => {
  const clock = createTestClock()
  const works = createInFlightWork(clock)
  works.add(new Promise(() => undefined))
  works.add(Promise.resolve())
  const ended = works.end(1_000)
  await clock.elapse(999)
  assert.equal(works.isOver(), false)
  await clock.elapse(1)
  assert.equal(await ended, 1)
  assert.equal(works.isOver(), true)
})
