import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogThrottle, createThrottledWarning } from '../../../src/async/log-throttle.ts'
import { createTestClock } from '../../kit/clock.ts'

test('the first reason is due at once, then one line a minute tells how many there were', () => {
  const clock = createTestClock()
  const throttle = createLogThrottle(clock)
  assert.deepEqual(
    [1, 2, 3].map(() => throttle.count('a')),
    [1, undefined, undefined],
  )
  assert.equal(throttle.count('b'), 1, 'another line has a minute of its own')
  clock.advance(59_999)
  assert.equal(throttle.count('a'), undefined)
  clock.advance(1)
  assert.equal(throttle.count('a'), 4)
  assert.equal(throttle.count('a'), undefined)
})

test('what is forgotten begins anew', () => {
  const throttle = createLogThrottle(createTestClock())
  throttle.count('a')
  throttle.count('a')
  throttle.forget('a')
  assert.equal(throttle.count('a'), 1)
})

test('the rest can be taken before its time, once, and the next line is due a minute later', () => {
  const clock = createTestClock()
  const throttle = createLogThrottle(clock)
  assert.equal(throttle.take('a'), undefined)
  throttle.count('a')
  assert.equal(throttle.take('a'), undefined)
  throttle.count('a')
  clock.advance(30_000)
  assert.equal(throttle.take('a'), 1)
  clock.advance(59_999)
  assert.equal(throttle.count('a'), undefined)
  clock.advance(1)
  assert.equal(throttle.count('a'), 2)
})

test('a warning tells of the first at once, and each minute of the rest, with the fields of the last', () => {
  const clock = createTestClock()
  const lines: unknown[] = []
  const log = { warn: (fields: object, message: string) => void lines.push({ ...fields, message }) }
  const warn = createThrottledWarning(log, 'too many', clock)
  for (const host of ['a', 'b', 'c']) warn({ host })
  assert.deepEqual(lines, [{ host: 'a', count: 1, message: 'too many' }])
  clock.advance(60_000)
  assert.deepEqual(lines[1], { host: 'c', count: 2, message: 'too many' })
  clock.advance(30_000)
  warn({ host: 'd' })
  assert.equal(lines.length, 2)
  clock.advance(30_000)
  assert.deepEqual(lines[2], { host: 'd', count: 1, message: 'too many' })
  clock.advance(60_000)
  warn({ host: 'e' })
  assert.deepEqual(lines[3], { host: 'e', count: 1, message: 'too many' }, 'after a quiet minute at once')
  assert.equal(lines.length, 4)
})
