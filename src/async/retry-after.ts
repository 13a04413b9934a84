import { type Clock, systemClock } from './clock.ts'

export type RetryAfterOptions = {
  /** Seconds, at least 1: what a single caller is told. */
  readonly least: number
  /** The machine's unless given. */
  readonly clock?: Pick<Clock, 'monotonicNow'>
}

/** Callers that are let come back in each second: fewer than one replica can refuse, or serve, beside its other work. */
const PER_SECOND = 300
const MOST_SECONDS = 30

/**
 * Gives each caller that is refused for want of room the time of its turn, for Retry-After (RFC 9110 §10.2.3): those who are
 * refused in the same moment would come back in the same moment, and be too many again.
 *
 * @returns whole seconds from now, 30 more than the least at most: of still more callers the next turn begins.
 */
export function createRetryAfter({ least, clock = systemClock }: RetryAfterOptions): () => number {
  let turnMs = 0
  return function retryAfterSeconds() {
    const nowMs = clock.monotonicNow()
    const firstMs = nowMs + least * 1_000
    const isFree = turnMs < firstMs || turnMs > firstMs + MOST_SECONDS * 1_000
    turnMs = isFree ? firstMs : turnMs + 1_000 / PER_SECOND
    return Math.round((turnMs - nowMs) / 1_000)
  }
}
