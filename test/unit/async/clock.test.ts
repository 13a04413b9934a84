import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { every, systemClock } from '../../../src/async/clock.ts'
import { createTestClock } from '../../kit/clock.ts'

// The machine may stand still between any two lines: what is timed here is timed from one call to the next.
for (const [name, setUp] of [
  [
    'the machine’s clock',
    () => ({
      clock: systemClock,
      elapse: (ms: number) => new Promise<void>((r) => setTimeout(r, ms + 20)),
      block: (ms: number) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
    }),
  ],
  [
    'a test’s clock',
    () => {
      const clock = createTestClock()
      return { clock, elapse: clock.elapse, block: clock.advance }
    },
  ],
] as const) {
  test(`${name}: a call is made once, after its time, unless it is cancelled`, async () => {
    const { clock, elapse } = setUp()
    const calls: string[] = []
    const startedAt = clock.monotonicNow()
    clock.after(40, () => calls.push('late'))
    clock.after(20, () => calls.push('early'))
    clock.after(20, () => calls.push('never')).cancel()
    assert.deepEqual(calls, [])
    await elapse(40)
    assert.deepEqual(calls, ['early', 'late'])
    assert.ok(clock.monotonicNow() - startedAt >= 39)
    await elapse(40)
    assert.equal(calls.length, 2)
  })

  test(`${name}: a timer that is restarted begins its time again, also after its call`, async () => {
    const { clock, elapse, block } = setUp()
    const calledAt: number[] = []
    const timer = clock.after(60, () => calledAt.push(clock.monotonicNow()))
    // No timer is looked at while this function runs, so the call is still to come.
    block(30)
    for (const calls of [1, 2]) {
      const restartedAt = clock.monotonicNow()
      timer.restart()
      await elapse(60)
      assert.equal(calledAt.length, calls)
      assert.ok(calledAt.at(-1)! - restartedAt >= 59)
    }
  })

  test(`${name}: a pause ends after its time or with its signal, and leaves no listener`, async () => {
    const { clock, elapse } = setUp()
    const ended: string[] = []
    const cut = new AbortController()
    clock.pause(30).then(() => ended.push('time'))
    clock.pause(60_000, cut.signal).then(() => ended.push('signal'))
    await elapse(30)
    assert.deepEqual(ended, ['time'])
    cut.abort()
    await elapse(0)
    assert.deepEqual(ended, ['time', 'signal'])
    await clock.pause(60_000, cut.signal)
    assert.equal(getEventListeners(cut.signal, 'abort').length, 0)
  })

  test(`${name}: what is called every so often stops when it is cancelled, also by itself`, async () => {
    const { clock, elapse } = setUp()
    const calledAfter: number[] = []
    const startedAt = clock.monotonicNow()
    const timer = every(clock, 30, () => {
      calledAfter.push(clock.monotonicNow() - startedAt)
      if (calledAfter.length === 2) timer.cancel()
    })
    while (calledAfter.length < 2) await elapse(10)
    await elapse(90)
    assert.equal(calledAfter.length, 2)
    assert.ok(calledAfter[0]! >= 29 && calledAfter[1]! >= 58, String(calledAfter))
  })
}

test('the time of day can be set, the time that passes cannot', () => {
  const clock = createTestClock(1_000)
  clock.advance(10)
  assert.deepEqual([clock.now(), clock.monotonicNow()], [1_010, 10])
  clock.setTimeOfDay(5)
  clock.advance(10)
  assert.deepEqual([clock.now(), clock.monotonicNow(), clock.planned()], [15, 20, 0])
})
