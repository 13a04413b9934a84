import { type Clock, systemClock } from './clock.ts'

export type RetryAfterOptions = {
  /** Seconds, at least 1: what a single caller is told. */
  readonly least: number
  /** The machine's unless given. */
  readonly clock?: Pick<Clock, 'monotonicNow'>
}

/** Callers that come back in each second: few enough for a replica to answer beside its other work. */
const PER_SECOND = 300
/** Longest wait beyond the least one. */
const MOST_SECONDS = 30

/**
 * Makes values of Retry-After (RFC 9110 §10.2.3) for callers that are refused because there are too many. Callers that are
 * refused at the same time get different values. With the same value they would come back together, and be too many again.
 *
 * @returns gives whole seconds, from `least` to 30 more; after the highest value it begins at `least` again.
 */
export function createRetryAfter({ least, clock = systemClock }: RetryAfterOptions): () => number {
  /** When the caller that was told last comes back. */
  let turnMs = 0
  return function retryAfterSeconds() {
    const nowMs = clock.monotonicNow()
    const firstMs = nowMs + least * 1_000
    const nextMs = turnMs + 1_000 / PER_SECOND
    turnMs = nextMs > firstMs && nextMs <= firstMs + MOST_SECONDS * 1_000 ? nextMs : firstMs
    return Math.round((turnMs - nowMs) / 1_000)
  }
}
