/**
 * The time of day, the time that passes, and waits. The whole process has one, which is a parameter everywhere, so that a
 * test decides when a wait is over. All times in ms. This file alone asks the machine for the time.
 */
export type Clock = {
  /** Epoch ms: for what is compared with other machines, and the ends of tokens and sessions. May be set back or forth. */
  readonly now: () => number
  /** Time since an arbitrary moment; never goes back: for whatever lasts so long from now on. */
  readonly monotonicNow: () => number
  /** Calls `call` once after `ms`. The process waits for it, unless the timer is told otherwise. */
  readonly after: (ms: number, call: () => void) => Timer
  /** Resolves after `ms`, or as soon as `signal` aborts; never rejects. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>
}

/** One planned call. */
export type Timer = {
  /** The call is not made any more; does nothing when it was. */
  cancel(): void
  /** Starts the same time again, also when the call was made already. */
  restart(): void
  /** Lets the process end before the call. Returns the timer. */
  unref(): Timer
}

class SystemTimer implements Timer {
  readonly #timeout: NodeJS.Timeout

  constructor(ms: number, call: () => void) {
    this.#timeout = setTimeout(call, ms)
  }
  cancel(): void {
    clearTimeout(this.#timeout)
  }
  restart(): void {
    this.#timeout.refresh()
  }
  unref(): Timer {
    this.#timeout.unref()
    return this
  }
}

const systemAfter: Clock['after'] = (ms, call) => new SystemTimer(ms, call)

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicNow: performance.now.bind(performance),
  after: systemAfter,
  pause: createPause(systemAfter),
}

/**
 * Makes the `pause` of a clock from its `after`. Not that of node:timers/promises: most pauses here end early, and it
 * makes an error with a stack for each of those.
 */
export function createPause(after: Clock['after']): Clock['pause'] {
  return (ms, signal) =>
    new Promise((resolve) => {
      const timer = after(ms, over)
      signal?.addEventListener('abort', over, { once: true })
      if (signal?.aborted) over()

      function over(): void {
        timer.cancel()
        signal?.removeEventListener('abort', over)
        resolve()
      }
    })
}

/** Calls `call` every `ms`, for the first time in `ms`. Returns the timer to cancel. */
export function every(clock: Pick<Clock, 'after'>, ms: number, call: () => void): Timer {
  const timer = clock.after(ms, () => {
    timer.restart()
    call()
  })
  return timer
}
