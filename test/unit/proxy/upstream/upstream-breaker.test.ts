import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBreaker } from '../../../../src/proxy/upstream/breaker.ts'

function breakerWith(failures: number, pauseMs = 1_000) {
  const clock = { ms: 0 }
  const changes: boolean[] = []
  const observe = (isOpen: boolean) => void changes.push(isOpen)
  const breaker = createBreaker({ failures, pauseMs, now: () => clock.ms, observe })
  const fail = () => breaker.failed(breaker.enter()!, 'silence')
  return { breaker, clock, changes, fail }
}

test('so many failures in a row open it', () => {
  const { breaker, changes, fail } = breakerWith(3)
  for (const _ of [1, 2]) fail()
  assert.equal(breaker.isOpen(), false)
  fail()
  assert.equal(breaker.enter(), undefined)
  assert.deepEqual(changes, [true])
})

test('an answer between them begins the count again', () => {
  const { breaker, fail } = breakerWith(2)
  fail()
  breaker.answered()
  fail()
  assert.equal(breaker.isOpen(), false)
})

test('failures of requests that began together open it once', () => {
  const { breaker, changes } = breakerWith(2)
  const passes = Array.from({ length: 10 }, () => breaker.enter()!)
  for (const pass of passes) breaker.failed(pass, 'silence')
  assert.deepEqual(changes, [true])
  assert.equal(breaker.pauseLeftMs(), 1_000)
})

test('after the pause exactly one probe goes', () => {
  const { breaker, clock, fail } = breakerWith(1)
  fail()
  clock.ms = 999
  assert.equal(breaker.enter(), undefined)
  clock.ms = 1_000
  assert.notEqual(breaker.enter(), undefined)
  assert.equal(breaker.enter(), undefined)
})

test('a probe that hangs holds nobody back longer than the pause', () => {
  const { breaker, clock, changes, fail } = breakerWith(1)
  fail()
  clock.ms = 1_000
  const hanging = breaker.enter()!
  assert.equal(breaker.pauseLeftMs(), 1_000)
  clock.ms = 1_999
  assert.equal(breaker.enter(), undefined)
  clock.ms = 2_000
  const second = breaker.enter()!
  assert.notEqual(second, undefined)
  assert.equal(breaker.enter(), undefined)
  clock.ms = 2_500
  breaker.failed(hanging, 'silence')
  breaker.ended(hanging)
  assert.equal(
    breaker.pauseLeftMs(),
    500,
    'what becomes of the first says nothing while the second is on its way',
  )
  breaker.answered()
  breaker.ended(second)
  assert.equal(breaker.isOpen(), false)
  assert.deepEqual(changes, [true, false])
})

test('a probe that fails begins the pause again, and is no opening', () => {
  const { breaker, clock, changes, fail } = breakerWith(1)
  fail()
  clock.ms = 1_000
  fail()
  assert.equal(breaker.pauseLeftMs(), 1_000)
  assert.equal(breaker.enter(), undefined)
  assert.deepEqual(changes, [true])
})

test('a probe that is answered closes it', () => {
  const { breaker, clock, changes, fail } = breakerWith(1)
  fail()
  clock.ms = 1_000
  breaker.enter()
  breaker.answered()
  assert.equal(breaker.isOpen(), false)
  assert.deepEqual(changes, [true, false])
})

test('a probe of which nothing is known lets another go', () => {
  const { breaker, clock, fail } = breakerWith(1)
  fail()
  clock.ms = 1_000
  breaker.ended(breaker.enter()!)
  assert.notEqual(breaker.enter(), undefined)
})

test('the late answer of an old request closes it, and the probe says nothing after that', () => {
  const { breaker, clock, fail } = breakerWith(1)
  const slow = breaker.enter()!
  fail()
  clock.ms = 1_000
  const probe = breaker.enter()!
  breaker.answered()
  breaker.ended(slow)
  breaker.failed(probe, 'silence')
  assert.equal(breaker.isOpen(), false)
})

test('the late failure of an old request neither opens it again nor ends the probe', () => {
  const { breaker, clock, fail } = breakerWith(1)
  const slow = breaker.enter()!
  fail()
  clock.ms = 1_000
  const probe = breaker.enter()!
  breaker.failed(slow, 'silence')
  breaker.ended(slow)
  assert.equal(breaker.enter(), undefined)
  breaker.answered()
  breaker.ended(probe)
  assert.equal(breaker.isOpen(), false)
})

test('with no failures to count it never opens', () => {
  const { breaker, fail } = breakerWith(0)
  for (let i = 0; i < 1_000; i++) fail()
  assert.equal(breaker.isOpen(), false)
})

test('whoever began before the last answer says nothing, however many fail together', () => {
  const { breaker, clock, changes } = breakerWith(20)
  const slow = Array.from({ length: 100 }, () => breaker.enter()!)
  breaker.answered()
  clock.ms = 30_000
  for (const pass of slow) breaker.failed(pass, 'silence')
  assert.deepEqual(changes, [])
})

test('a burst of failures between two answers says nothing; only after a pause without any they count', () => {
  const { breaker, clock, changes, fail } = breakerWith(3)
  for (clock.ms = 0; clock.ms < 5_000; clock.ms += 999) {
    breaker.answered()
    for (let i = 0; i < 50; i++) fail()
  }
  assert.deepEqual(changes, [])
  clock.ms += 1
  for (const _ of [1, 2]) fail()
  assert.deepEqual(changes, [])
  fail()
  assert.deepEqual(changes, [true])
})

test('connections that are cut open it, but a probe that is cut lets the next one go at once', () => {
  const { breaker, clock, changes } = breakerWith(2)
  for (const _ of [1, 2]) breaker.failed(breaker.enter()!, 'cut')
  assert.equal(breaker.enter(), undefined)
  clock.ms = 1_000
  const probe = breaker.enter()!
  breaker.failed(probe, 'cut')
  assert.equal(breaker.enter(), undefined)
  breaker.ended(probe)
  assert.notEqual(breaker.enter(), undefined)
  assert.deepEqual(changes, [true])
})
