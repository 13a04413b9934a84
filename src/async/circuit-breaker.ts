/** The period of a circuit in which a request began. A result that arrives in a later period is not counted. */
export type CircuitPeriod = number

/** `reopened`: a probe failed. A probe itself is no change. */
export type CircuitChange = 'opened' | 'reopened' | 'closed'

export type CircuitBreakerOptions = {
  /** Failures in a row that open it; 0 = never. */
  readonly failures: number
  /** How long it stays open, in ms; `times`: how often it opened since it was closed, at least 1. Asked at each opening. */
  readonly openMs: (times: number) => number
  /** How long a probe keeps others from being one, in ms, although it has not ended; for ever unless given. */
  readonly probeMs?: number
  /** Failures within so many ms after a success do not count; all count unless given. */
  readonly quietMs?: number
  /** Whether a success begins a period, so that failures of requests from before it do not count. */
  readonly successOutdates?: boolean
  /** Any clock in ms. */
  readonly now: () => number
  /** Told of each change. */
  readonly observe: (change: CircuitChange) => void
}

/**
 * Closed, it lets every request through. After some failures in a row it is open, and lets none through for a while. Then
 * it is half-open: one request is the probe, whose success closes it, and whose failure opens it again.
 */
export type CircuitBreaker = {
  /** The period of a request that may go now, which is the probe if the circuit was open; undefined if it may not. */
  enter(): CircuitPeriod | undefined
  /** Whether `enter` would let a request through. Begins no probe. */
  isPassable(): boolean
  /** Open or half-open. */
  isOpen(): boolean
  /** Ms until the next request may go, as far as it is known; never negative. */
  openLeftMs(): number
  /** The period of a request that is sent now. */
  period(): CircuitPeriod
  /** Closes the circuit, whatever period the request belongs to. */
  succeeded(): void
  /** Counts, if the request belongs to the period of now. */
  failed(period: CircuitPeriod): void
  /** Keeps an open circuit so for at least `ms` from now. */
  stayOpen(ms: number): void
  /** A request is over. After a probe without success or failure, the next request is the probe. */
  ended(period: CircuitPeriod): void
}

type Probe = { readonly period: CircuitPeriod; readonly endsAt: number }

/** Makes a closed circuit. */
export function createCircuitBreaker(options: CircuitBreakerOptions): CircuitBreaker {
  const { failures, openMs, probeMs = Number.POSITIVE_INFINITY, quietMs = 0, now, observe } = options
  let current: CircuitPeriod = 0
  let inARow = 0
  /** How often it opened since it was closed; 0 = closed. */
  let openings = 0
  let openUntil = 0
  let succeededAt = Number.NEGATIVE_INFINITY
  let probe: Probe | undefined

  const isOpen = () => openings > 0
  const isPassable = () => !isOpen() || (now() >= openUntil && (probe === undefined || now() >= probe.endsAt))

  function enter(): CircuitPeriod | undefined {
    if (!isOpen()) return current
    if (!isPassable()) return undefined
    current++
    probe = { period: current, endsAt: now() + probeMs }
    return current
  }

  function succeeded(): void {
    inARow = 0
    succeededAt = now()
    if (options.successOutdates) current++
    if (!isOpen()) return
    openings = 0
    probe = undefined
    current++
    observe('closed')
  }

  function failed(period: CircuitPeriod): void {
    if (period !== current || failures === 0) return
    if (isOpen()) open('reopened')
    else if (now() - succeededAt >= quietMs && ++inARow >= failures) open('opened')
  }

  function open(change: CircuitChange): void {
    openings++
    inARow = 0
    current++
    openUntil = now() + openMs(openings)
    observe(change)
  }

  function ended(period: CircuitPeriod): void {
    if (probe?.period === period) probe = undefined
  }

  function openLeftMs(): number {
    const probeEndsAt = probe?.endsAt ?? Number.POSITIVE_INFINITY
    return Math.max(0, openUntil - now(), Number.isFinite(probeEndsAt) ? probeEndsAt - now() : 0)
  }
  return {
    ...{ enter, isPassable, isOpen, openLeftMs, succeeded, failed, ended },
    period: () => current,
    stayOpen(ms) {
      openUntil = Math.max(openUntil, now() + ms)
    },
  }
}
