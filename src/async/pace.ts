/** The pace of calls to a server that has refused what was too much. */
export type Pace = {
  /** Ms until the next call may begin; 0: now. */
  delayMs(): number
  /** A call begins now. */
  began(): void
  /** A call was served. */
  served(): void
  /** A call that began at `begunAt` was refused as too much; what began before the last such refusal changes nothing. */
  refused(begunAt: number): void
  /** After a while in which the server was not asked, because too many calls in a row had failed: begins slowly again. */
  restart(): void
  /** No refusal for a minute, in which no call had to wait for its turn. */
  isOver(): boolean
}

/** RFC 9438 §4.6: what is left of the rate after a refusal. */
const DECREASE = 0.7
/** Calls a second at which it begins, and at least: where few are signed in, a short outage must not make them wait. */
const LEAST_RATE = 4
/** For each second: of the rate that was safe, and in calls a second at least. */
const INCREASE = { share: 0.02, least: 0.2 }
/** Calls that may come at once after a pause: those of so long. */
const BURST_MS = 250
const OVER_MS = 60_000

/**
 * Finds the rate that a server takes, as congestion control finds the capacity of a path (RFC 5681 §3.1): slow start, which
 * doubles the rate every second up to the last safe one, then an additive increase, and a multiplicative decrease at each
 * refusal. When so much failed that the server was not asked for a while, half of the last safe rate counts as safe. It is
 * a rate and no window, because with many replicas less than one call at a time each may be too much. A rate that is not
 * used up does not grow (RFC 7661).
 *
 * @param safeRate calls a second that may be safe; none is known unless given. @param now any clock in ms.
 */
export function createPace(now: () => number, safeRate = Number.POSITIVE_INFINITY): Pace {
  let safe = Math.max(LEAST_RATE, safeRate)
  let rate = Number.isFinite(safe) ? safe : LEAST_RATE
  let nextAt = now()
  let refusedAt = Number.NEGATIVE_INFINITY
  let neededAt = now()

  return {
    delayMs() {
      const left = nextAt - now()
      // A rest of less than a millisecond is rounding: a timer for it might never be over.
      if (left < 1) return 0
      neededAt = now()
      return left
    },
    began() {
      nextAt = Math.max(nextAt, now() - BURST_MS) + 1_000 / rate
    },
    served() {
      // One of so many in this second; after 250 ms without a wait the rate is not what holds calls back.
      if (now() - neededAt > BURST_MS) return
      if (rate < safe) rate = Math.min(safe, rate * 2 ** Math.min(1, 1 / rate))
      else rate += Math.max(INCREASE.share * safe, INCREASE.least) / rate
    },
    refused(begunAt) {
      neededAt = now()
      if (begunAt < refusedAt) return
      refusedAt = now()
      // A refusal at a rate below the safe one is no proof against that: others may have been too many.
      const known = Number.isFinite(safe) ? Math.max(rate, safe) : rate
      safe = Math.max(LEAST_RATE, known * DECREASE)
      rate = Math.max(LEAST_RATE, rate * DECREASE)
    },
    restart() {
      safe = Math.max(LEAST_RATE, safe / 2)
      rate = LEAST_RATE
      nextAt = neededAt = now()
    },
    isOver: () => now() - neededAt >= OVER_MS,
  }
}
