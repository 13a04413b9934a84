/** Lets a request through, and names the time it belongs to: what comes of it later must not be taken for news. */
export type BreakerPass = number

export type BreakerDeps = {
  /** Failures in a row that open it; 0 = never. */
  readonly failures: number
  /** Until one request may try again. */
  readonly pauseMs: number
  /** Any clock in ms. */
  readonly now: () => number
  /** Told once of each opening and closing; a probe that fails is neither. */
  readonly observe: (isOpen: boolean) => void
}

/** Leaves an upstream alone that gives no answers: one request at a time finds out whether it is back. */
export type Breaker = {
  /** A pass, or undefined while the upstream is left alone. Whoever has one says what came of it, or that it is over. */
  enter(): BreakerPass | undefined
  /** The upstream answered, whatever it said. */
  answered(): void
  /** There was no answer. */
  failed(pass: BreakerPass): void
  /** It is over; without news before, nothing is known, and another request may be the probe. */
  ended(pass: BreakerPass): void
  isOpen(): boolean
  /** How long the upstream is left alone at least, in ms; never negative. */
  pauseLeftMs(): number
}

/** Makes a closed breaker. */
export function createBreaker({ failures, pauseMs, now, observe }: BreakerDeps): Breaker {
  let inARow = 0
  let isOpen = false
  let isProbing = false
  let pauseEndsAt = 0
  /** Grows with each change, so that what began before it is told apart. */
  let current: BreakerPass = 0

  function enter(): BreakerPass | undefined {
    if (!isOpen) return current
    if (isProbing || now() < pauseEndsAt) return undefined
    isProbing = true
    return ++current
  }

  function answered(): void {
    inARow = 0
    if (isOpen) change(false)
  }

  function failed(pass: BreakerPass): void {
    if (pass !== current || failures === 0) return
    if (isOpen) pause()
    else if (++inARow >= failures) {
      pause()
      change(true)
    }
  }

  function pause(): void {
    isProbing = false
    pauseEndsAt = now() + pauseMs
    current++
  }

  function change(open: boolean): void {
    isOpen = open
    isProbing = false
    inARow = 0
    current++
    observe(open)
  }

  function ended(pass: BreakerPass): void {
    if (isProbing && pass === current) isProbing = false
  }
  const pauseLeftMs = () => Math.max(0, pauseEndsAt - now())
  return { enter, answered, failed, ended, isOpen: () => isOpen, pauseLeftMs }
}
