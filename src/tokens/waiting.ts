import { setTimeout as delay } from 'node:timers/promises'

/** How the tokens room waits: a parameter, so that a test can decide when a wait is over. All in ms. */
export type Waiting = {
  /** Time since an arbitrary moment; never goes back, whatever happens to the time of day. */
  readonly elapsedMs: () => number
  /** Resolves after `ms`, or as soon as `signal` aborts; never rejects. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>
}

/** Waits by the machine's clock. */
export const clockWaiting: Waiting = {
  elapsedMs: () => performance.now(),
  pause: (ms, signal) => delay(ms, undefined, { signal }).catch(() => undefined),
}
