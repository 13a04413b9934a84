/** How the tokens room waits: a parameter, so that a test can decide when a wait is over. All in ms. */
export type Waiting = {
  /** Time since an arbitrary moment; never goes back, whatever happens to the time of day. */
  readonly elapsedMs: () => number
  /** Resolves after `ms`, or as soon as `signal` aborts; never rejects. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>
}

/** Waits by the machine's clock. */
export const clockWaiting: Waiting = { elapsedMs: () => performance.now(), pause }

/** Not that of node:timers/promises: most pauses here end early, and it makes an error with a stack for each of those. */
function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(over, ms)
    signal?.addEventListener('abort', over, { once: true })
    if (signal?.aborted) over()

    function over(): void {
      clearTimeout(timer)
      signal?.removeEventListener('abort', over)
      resolve()
    }
  })
}
