import { type Clock, createPause, type Timer } from '../../src/async/clock.ts'

/** A clock that stands still until the test moves it. */
export type TestClock = Clock & {
  /** Moves it on, and makes the calls that are due on the way, in order, each at its own time. */
  advance(ms: number): void
  /** The same, and lets what waits for no timer run after each call: what a call begins may plan the next. */
  elapse(ms: number): Promise<void>
  /** Sets the time of day alone, as an operator or NTP may. */
  setTimeOfDay(epochMs: number): void
  /** How many calls are planned. */
  planned(): number
}

/** Some moment, in epoch ms. */
const START = 1_800_000_000_000

type Planned = { readonly at: number; readonly call: () => void; isCancelled: boolean }

/** Makes one. `startAt`: its first time of day, in epoch ms. */
export function createTestClock(startAt = START): TestClock {
  let elapsed = 0
  let dayStart = startAt
  /** By the time of their calls; the cancelled ones stay until theirs comes. */
  const plans: Planned[] = []

  function plan(ms: number, call: () => void): Planned {
    const planned = { at: elapsed + Math.max(0, ms), call, isCancelled: false }
    let low = 0
    let high = plans.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (plans[middle]!.at <= planned.at) low = middle + 1
      else high = middle
    }
    plans.splice(low, 0, planned)
    return planned
  }

  function after(ms: number, call: () => void): Timer {
    let planned = plan(ms, call)
    const timer = {
      cancel() {
        planned.isCancelled = true
      },
      restart() {
        planned.isCancelled = true
        planned = plan(ms, call)
      },
      unref: () => timer,
    }
    return timer
  }

  /** The next call until `end`, made; false when there is none. */
  function callNext(end: number): boolean {
    while (plans.length > 0 && plans[0]!.at <= end) {
      const { at, call, isCancelled } = plans.shift()!
      if (isCancelled) continue
      elapsed = Math.max(elapsed, at)
      call()
      return true
    }
    return false
  }

  return {
    now: () => dayStart + elapsed,
    monotonicNow: () => elapsed,
    after,
    pause: createPause(after),
    advance(ms) {
      const end = elapsed + ms
      while (callNext(end));
      elapsed = end
    },
    async elapse(ms) {
      const end = elapsed + ms
      do await settled()
      while (callNext(end))
      elapsed = end
      await settled()
    },
    setTimeOfDay(epochMs) {
      dayStart = epochMs - elapsed
    },
    planned: () => plans.filter(({ isCancelled }) => !isCancelled).length,
  }
}

/** Lets everything run that waits for no timer. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve))
}
