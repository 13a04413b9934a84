/** Lets a request through, and names the time it belongs to: what comes of it later must not be taken for news. */
export type BreakerPass = number

/** `silence`: no connection, or no answer in time. `cut`: a connection was made, and ended without an answer. */
export type NoAnswer = 'silence' | 'cut'

export type BreakerDeps = {
  /** Failures in a row that open it; 0 = never. */
  readonly failures: number
  /** Until one request may try again, and how long nobody must have been answered before it opens. */
  readonly pauseMs: number
  /** Any clock in ms. */
  readonly now: () => number
  /** Told once of each opening and closing; a probe that fails is neither. */
  readonly observe: (isOpen: boolean) => void
}

/**
 * Leaves an upstream alone that answers nobody: one request in each pause finds out whether it is back. Clients choose
 * what they ask for, so one endpoint that hangs or crashes must not speak for the others.
 */
export type Breaker = {
  /** A pass, or undefined while the upstream is left alone. Whoever has one says what came of it, or that it is over. */
  enter(): BreakerPass | undefined
  /** The upstream answered, whatever it said. */
  answered(): void
  /** There was no answer. */
  failed(pass: BreakerPass, noAnswer: NoAnswer): void
  /** It is over; without news before, nothing is known, and another request may be the probe. */
  ended(pass: BreakerPass): void
  isOpen(): boolean
  /** How long nobody is let through, in ms; never negative. */
  pauseLeftMs(): number
}

/** Makes a closed breaker. */
export function createBreaker({ failures, pauseMs, now, observe }: BreakerDeps): Breaker {
  let inARow = 0
  let isOpen = false
  let answeredAt = Number.NEGATIVE_INFINITY
  let pauseEndsAt = 0
  /** Grows with each answer, change and probe, so that what began before it is told apart. */
  let current: BreakerPass = 0

  function enter(): BreakerPass | undefined {
    if (!isOpen) return current
    if (now() < pauseEndsAt) return undefined
    // A probe that hangs must not keep everybody waiting for its end.
    return pause()
  }

  function answered(): void {
    inARow = 0
    answeredAt = now()
    current++
    if (isOpen) change(false)
  }

  function failed(pass: BreakerPass, noAnswer: NoAnswer): void {
    if (pass !== current || failures === 0) return
    if (isOpen) {
      // Cutting is quick: who lets that happen again and again could be the probe each time.
      if (noAnswer === 'silence') pause()
    } else if (now() - answeredAt >= pauseMs && ++inARow >= failures) {
      pause()
      change(true)
    }
  }

  function pause(): BreakerPass {
    pauseEndsAt = now() + pauseMs
    return ++current
  }

  function change(open: boolean): void {
    isOpen = open
    inARow = 0
    current++
    observe(open)
  }

  function ended(pass: BreakerPass): void {
    if (isOpen && pass === current) pauseEndsAt = now()
  }
  const pauseLeftMs = () => Math.max(0, pauseEndsAt - now())
  return { enter, answered, failed, ended, isOpen: () => isOpen, pauseLeftMs }
}
