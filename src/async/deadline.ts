const STEP_MS = 50
/** A step counts as this much at most: after a longer one this process stood still. */
const COUNTED_MS = 100

/** Bounds waits; see `createDeadline`. */
export type Deadline = {
  /** What `work` gives; rejects with what `tooLate` makes when that takes too long. `work` sees `isOver` from then on. */
  within<T>(work: (wait: Wait) => Promise<T>): Promise<T>
}

/** One wait under way. */
export type Wait = { readonly isOver: boolean }

type Waiting = { isOver: boolean; leftMs: number; lookedAt: number; readonly giveUp: () => void }

/**
 * A limit in the time that this process runs: while it stands still, for a garbage collection or for want of a
 * processor, others may well have answered, and that time is not counted against them. It is looked at every 50 ms, of
 * which a pause takes 100 at most; and what has arrived meanwhile is read before a wait is given up.
 */
export function createDeadline(limitMs: number, tooLate: () => Error): Deadline {
  const waits = new Set<Waiting>()
  let isStepping = false

  function step(): void {
    const now = performance.now()
    for (const wait of waits) {
      wait.leftMs -= Math.min(now - wait.lookedAt, COUNTED_MS)
      wait.lookedAt = now
      if (wait.leftMs <= 0) giveUp(wait)
    }
    // Armed anew, not an interval: that would count a pause of several steps more than once.
    isStepping = waits.size > 0
    if (isStepping) setTimeout(step, STEP_MS)
  }

  function giveUp(wait: Waiting): void {
    waits.delete(wait)
    setImmediate(wait.giveUp)
  }

  return {
    async within<T>(work: (wait: Wait) => Promise<T>): Promise<T> {
      const { promise, reject } = Promise.withResolvers<never>()
      const wait: Waiting = {
        ...{ isOver: false, leftMs: limitMs, lookedAt: performance.now() },
        giveUp() {
          wait.isOver = true
          reject(tooLate())
        },
      }
      waits.add(wait)
      if (!isStepping) setTimeout(step, STEP_MS)
      isStepping = true
      try {
        return await Promise.race([work(wait), promise])
      } finally {
        wait.isOver = true
        waits.delete(wait)
      }
    },
  }
}
