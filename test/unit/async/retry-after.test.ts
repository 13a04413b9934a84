import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRetryAfter } from '../../../src/async/retry-after.ts'
import { createTestClock } from '../../kit/clock.ts'

const count = (values: readonly number[]) => {
  const counts = new Map<number, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return counts
}

test('one caller is told the least, and so are those who come one after the other', () => {
  const clock = createTestClock()
  const next = createRetryAfter({ least: 2, clock })
  for (let n = 0; n < 10; n += 1) {
    assert.equal(next(), 2)
    clock.advance(1_000)
  }
})

test('of a crowd no more than 300 are told the same second, and none is told to wait longer than 32 s', () => {
  const next = createRetryAfter({ least: 2, clock: createTestClock() })
  const told = count(Array.from({ length: 9_000 }, next))
  assert.deepEqual([Math.min(...told.keys()), Math.max(...told.keys())], [2, 32])
  assert.ok(Math.max(...told.values()) <= 301, `${Math.max(...told.values())}`)
})

test('a crowd is spread also while the clock goes on between two of its refusals', () => {
  const clock = createTestClock()
  const next = createRetryAfter({ least: 2, clock })
  const told = Array.from({ length: 3_000 }, () => {
    clock.advance(0.1)
    return next()
  })
  assert.equal(told.at(-1), 12)
  assert.ok(Math.max(...count(told).values()) <= 320)
})

test('those who come meanwhile get later turns, until the crowd is over', () => {
  const clock = createTestClock()
  const next = createRetryAfter({ least: 1, clock })
  for (let n = 0; n < 3_000; n += 1) next()
  clock.advance(5_000)
  assert.equal(next(), 6)
  clock.advance(10_000)
  assert.equal(next(), 1)
})
