/** How slowly a client may send a body that is waited for. */
export type BodyPace = {
  /** On average over the whole body; 0 = as slowly as it likes. */
  readonly bytesPerSecond: number
  /** What it may take in any case. */
  readonly graceMs: number
}

const TICK_MS = 1_000

/**
 * Calls `tooSlow` each second in which a body has taken longer than the grace, and what its bytes may take at the lowest
 * rate. A second counts only when its bytes are awaited at the end of it: neither the upstream's slowness is the
 * client's, nor ours. Returns the timer to clear; undefined when any pace will do.
 */
export function watchPace(
  { bytesPerSecond, graceMs }: BodyPace,
  look: () => { isAwaited: boolean; received: number },
  tooSlow: () => void,
): NodeJS.Timeout | undefined {
  if (bytesPerSecond === 0) return undefined
  let waitedMs = 0
  return setInterval(() => {
    const { isAwaited, received } = look()
    if (isAwaited) waitedMs += TICK_MS
    if (waitedMs > graceMs + (received / bytesPerSecond) * 1_000) tooSlow()
  }, TICK_MS)
}
