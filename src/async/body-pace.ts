import { type Clock, every, systemClock, type Timer } from './clock.ts'

/** How slowly a client may send a body that is waited for. */
export type BodyPace = {
  /** On average over the whole body; 0 = as slowly as it likes. */
  readonly bytesPerSecond: number
  /** What it may take in any case. */
  readonly graceMs: number
}

const TICK_MS = 1_000

/** A body as its pace is watched. */
export type WatchedBody = {
  /** Whether its bytes are awaited now, and how many came so far. */
  readonly look: () => { isAwaited: boolean; received: number }
  readonly tooSlow: () => void
}

/**
 * Calls `tooSlow` each second in which a body has taken longer than the grace, and what its bytes may take at the lowest
 * rate. A second counts only when its bytes are awaited at the end of it: neither the upstream's slowness is the
 * client's, nor ours. Returns the timer to cancel; undefined when any pace will do.
 */
export function watchPace(
  { bytesPerSecond, graceMs }: BodyPace,
  { look, tooSlow }: WatchedBody,
  clock: Pick<Clock, 'after'> = systemClock,
): Timer | undefined {
  if (bytesPerSecond === 0) return undefined
  let waitedMs = 0
  return every(clock, TICK_MS, () => {
    const { isAwaited, received } = look()
    if (isAwaited) waitedMs += TICK_MS
    if (waitedMs > graceMs + (received / bytesPerSecond) * 1_000) tooSlow()
  })
}
