import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type CircuitBreakerOptions,
  type CircuitChange,
  createCircuitBreaker,
} from '../../../src/async/circuit-breaker.ts'

/** A breaker in front of something that may answer some requests and not others, such as an upstream. */
function breakerWith(failures: number, openMs = 1_000) {
  return breakerOf({
    failures,
    openMs: () => openMs,
    probeMs: openMs,
    quietMs: openMs,
    successOutdates: true,
  })
}

function breakerOf(options: Omit<CircuitBreakerOptions, 'now' | 'observe'>) {
  const clock = { ms: 0 }
  const all: CircuitChange[] = []
  const changes: boolean[] = []
  const breaker = createCircuitBreaker({
    ...options,
    now: () => clock.ms,
    observe(change) {
      all.push(change)
      if (change !== 'reopened') changes.push(change === 'opened')
    },
  })
  function fail(): void {
    const period = breaker.enter()!
    breaker.failed(period)
    breaker.ended(period)
  }
  return { breaker, clock, changes, all, fail }
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
  breaker.succeeded()
  fail()
  assert.equal(breaker.isOpen(), false)
})

test('failures of requests that began together open it once', () => {
  const { breaker, changes } = breakerWith(2)
  const passes = Array.from({ length: 10 }, () => breaker.enter()!)
  for (const pass of passes) breaker.failed(pass)
  assert.deepEqual(changes, [true])
  assert.equal(breaker.openLeftMs(), 1_000)
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
  assert.equal(breaker.openLeftMs(), 1_000)
  clock.ms = 1_999
  assert.equal(breaker.enter(), undefined)
  clock.ms = 2_000
  const second = breaker.enter()!
  assert.notEqual(second, undefined)
  assert.equal(breaker.enter(), undefined)
  clock.ms = 2_500
  breaker.failed(hanging)
  breaker.ended(hanging)
  assert.equal(
    breaker.openLeftMs(),
    500,
    'what becomes of the first says nothing while the second is on its way',
  )
  breaker.succeeded()
  breaker.ended(second)
  assert.equal(breaker.isOpen(), false)
  assert.deepEqual(changes, [true, false])
})

test('a probe that fails begins the pause again, and is no opening', () => {
  const { breaker, clock, changes, fail } = breakerWith(1)
  fail()
  clock.ms = 1_000
  fail()
  assert.equal(breaker.openLeftMs(), 1_000)
  assert.equal(breaker.enter(), undefined)
  assert.deepEqual(changes, [true])
})

test('a probe that is answered closes it', () => {
  const { breaker, clock, changes, fail } = breakerWith(1)
  fail()
  clock.ms = 1_000
  breaker.enter()
  breaker.succeeded()
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
  breaker.succeeded()
  breaker.ended(slow)
  breaker.failed(probe)
  assert.equal(breaker.isOpen(), false)
})

test('the late failure of an old request neither opens it again nor ends the probe', () => {
  const { breaker, clock, fail } = breakerWith(1)
  const slow = breaker.enter()!
  fail()
  clock.ms = 1_000
  const probe = breaker.enter()!
  breaker.failed(slow)
  breaker.ended(slow)
  assert.equal(breaker.enter(), undefined)
  breaker.succeeded()
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
  breaker.succeeded()
  clock.ms = 30_000
  for (const pass of slow) breaker.failed(pass)
  assert.deepEqual(changes, [])
})

test('a burst of failures between two answers says nothing; only after a pause without any they count', () => {
  const { breaker, clock, changes, fail } = breakerWith(3)
  for (clock.ms = 0; clock.ms < 5_000; clock.ms += 999) {
    breaker.succeeded()
    for (let i = 0; i < 50; i++) fail()
  }
  assert.deepEqual(changes, [])
  clock.ms += 1
  for (const _ of [1, 2]) fail()
  assert.deepEqual(changes, [])
  fail()
  assert.deepEqual(changes, [true])
})

test('opens for longer each time that a probe fails, and begins anew after a success', () => {
  const times: number[] = []
  const { breaker, clock, all, fail } = breakerOf({
    failures: 2,
    openMs(opened) {
      times.push(opened)
      return 1_000 * opened
    },
  })
  for (const _ of [1, 2]) fail()
  for (const openMs of [1_000, 2_000]) {
    assert.equal(breaker.openLeftMs(), openMs)
    clock.ms += openMs
    fail()
  }
  clock.ms += 3_000
  breaker.enter()
  breaker.succeeded()
  for (const _ of [1, 2]) fail()
  assert.deepEqual(times, [1, 2, 3, 1])
  assert.deepEqual(all, ['opened', 'reopened', 'reopened', 'closed', 'opened'])
})

test('without a limit for probes the next one goes only when the one before has ended', () => {
  const { breaker, clock, fail } = breakerOf({ failures: 1, openMs: () => 1_000 })
  fail()
  clock.ms = 1_000
  const probe = breaker.enter()!
  clock.ms = 1_000_000
  assert.equal(breaker.isPassable(), false)
  assert.equal(breaker.enter(), undefined)
  assert.equal(breaker.openLeftMs(), 0, 'nothing says when the probe ends')
  breaker.ended(probe)
  assert.equal(breaker.isPassable(), true)
  assert.notEqual(breaker.enter(), undefined)
})

test('to be passable takes no probe’s part', () => {
  const { breaker, clock, fail } = breakerOf({ failures: 1, openMs: () => 1_000 })
  assert.equal(breaker.isPassable(), true)
  fail()
  assert.equal(breaker.isPassable(), false)
  clock.ms = 1_000
  for (const _ of [1, 2]) assert.equal(breaker.isPassable(), true)
  assert.notEqual(breaker.enter(), undefined)
})

test('failures of requests that were sent before a success count, unless a success outdates them', () => {
  const { breaker, changes } = breakerOf({ failures: 2, openMs: () => 1_000 })
  const sent = Array.from({ length: 3 }, () => breaker.period())
  breaker.failed(sent[0]!)
  breaker.succeeded()
  breaker.failed(sent[1]!)
  assert.deepEqual(changes, [])
  breaker.failed(sent[2]!)
  assert.deepEqual(changes, [true])
})

test('an open circuit can be kept so, never for less than it would be', () => {
  const { breaker, clock, fail } = breakerOf({ failures: 1, openMs: () => 1_000 })
  fail()
  breaker.stayOpen(500)
  assert.equal(breaker.openLeftMs(), 1_000)
  clock.ms = 1_000
  const probe = breaker.enter()!
  breaker.stayOpen(2_000)
  breaker.ended(probe)
  assert.equal(breaker.openLeftMs(), 2_000)
  clock.ms = 2_999
  assert.equal(breaker.enter(), undefined)
  clock.ms = 3_000
  assert.notEqual(breaker.enter(), undefined)
})
