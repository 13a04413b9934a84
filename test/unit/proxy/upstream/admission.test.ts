import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CircuitPeriod } from '../../../../src/async/circuit-breaker.ts'
import { createAdmission } from '../../../../src/proxy/upstream/pool.ts'
import { createTestClock } from '../../../kit/clock.ts'

function admissionWith(failures: number, permits?: number) {
  const clock = createTestClock()
  const changes: boolean[] = []
  const admission = createAdmission({
    breaker: { failures, pauseMs: 1_000 },
    permits,
    observe: (isOpen) => void changes.push(isOpen),
    clock,
  })
  /** The request's period when it is let through, or its refusal. */
  function enter(waitMs = 5_000) {
    const request: { period?: CircuitPeriod; refused?: string; retryAfter?: number; stop?: () => void } = {}
    request.stop = admission.enter(
      {
        go(period) {
          request.period = period
        },
        refuse({ code, retryAfterSeconds }) {
          request.refused = code
          request.retryAfter = retryAfterSeconds
        },
      },
      waitMs,
    )
    return request
  }
  return { admission, clock, changes, enter }
}

test('connections that are cut open it, but a probe that is cut lets the next one go at once', () => {
  const { admission, clock, changes, enter } = admissionWith(2)
  for (const _ of [1, 2]) admission.failed(enter().period!, 'cut')
  assert.equal(enter().period, undefined)
  clock.advance(1_000)
  const probe = enter().period!
  admission.failed(probe, 'cut')
  assert.equal(enter().period, undefined)
  admission.leave(probe)
  assert.notEqual(enter().period, undefined)
  assert.deepEqual(changes, [true])
})

test('an open circuit refuses at once, and says when to ask again', () => {
  const { admission, clock, enter } = admissionWith(1)
  admission.failed(enter().period!, 'silence')
  clock.advance(1)
  const { refused, retryAfter, stop } = enter()
  assert.deepEqual([refused, retryAfter, stop], ['upstream_unreachable', 1, undefined])
  assert.equal(admission.isOpen(), true)
})

test('a request waits for a permit, and no longer than it may', () => {
  const { admission, clock, enter } = admissionWith(0, 1)
  const first = enter()
  const second = enter(100)
  const third = enter(200)
  assert.deepEqual([second.period, third.period], [undefined, undefined])
  clock.advance(100)
  assert.equal(second.refused, 'upstream_timeout')
  admission.leave(first.period!)
  assert.notEqual(third.period, undefined)
})

test('a request that waited is refused when the circuit opened meanwhile, and its permit goes on', () => {
  const { admission, enter } = admissionWith(1, 1)
  const first = enter()
  const [second, third] = [enter(), enter()]
  admission.failed(first.period!, 'silence')
  admission.leave(first.period!)
  assert.deepEqual([second.refused, third.refused], ['upstream_unreachable', 'upstream_unreachable'])
})

test('the probe does not stand in the line for a permit', () => {
  const { admission, clock, changes, enter } = admissionWith(1, 1)
  const hanging = enter()
  const slow = enter()
  admission.failed(hanging.period!, 'silence')
  clock.advance(1_000)
  const probe = enter()
  assert.deepEqual([probe.period, probe.refused], [undefined, undefined], 'it waits')
  slow.stop?.()
  admission.leave(hanging.period!)
  assert.notEqual(probe.period, undefined)
  admission.answered()
  admission.leave(probe.period!)
  assert.deepEqual(changes, [true, false])
})
