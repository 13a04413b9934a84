import { type CircuitPeriod, createCircuitBreaker } from '../../async/circuit-breaker.ts'
import type { Clock } from '../../async/clock.ts'
import { createSemaphore, type Semaphore } from '../../async/semaphore.ts'
import { BffError } from '../../errors.ts'

/** `silence`: no connection, or no answer in time. `cut`: a connection was made, and ended without an answer. */
export type NoAnswer = 'silence' | 'cut'

/** A request that asks to be let through to an upstream. */
export type WaitingRequest = {
  /** It is let through; it calls `leave` with this when it is over. */
  go(period: CircuitPeriod): void
  /** It is not let through. */
  refuse(error: BffError): void
}

/** What stands before the connections to one upstream: its circuit breaker, and the limit on requests in flight. */
export type Admission = {
  /**
   * Lets a request go, now or when a permit falls free within `waitMs`, or refuses it with `upstream_unreachable` or
   * `upstream_timeout`. Returns what ends its waiting, if it waits.
   */
  enter(request: WaitingRequest, waitMs: number): (() => void) | undefined
  /** A request that was let through is over. */
  leave(period: CircuitPeriod): void
  /** The upstream answered, whatever it said. */
  answered(): void
  /** The upstream gave no answer. */
  failed(period: CircuitPeriod, noAnswer: NoAnswer): void
  /** Whether the upstream gets no request but a probe now and then. */
  isOpen(): boolean
}

export type AdmissionOptions = {
  /** Requests in a row without an answer that open the circuit, 0 = never; and for how long it opens, in ms. */
  readonly breaker: { readonly failures: number; readonly pauseMs: number }
  /** Most requests in flight; no limit when undefined. */
  readonly permits: number | undefined
  /** Told when the circuit opens and when it closes; a probe that fails is neither. */
  readonly observe: (isOpen: boolean) => void
  readonly clock: Pick<Clock, 'monotonicNow' | 'after'>
}

/**
 * Stops asking an upstream that answers no request: one request in each open time finds out whether it is back. Clients
 * choose what they ask for, so one endpoint that hangs or crashes must not speak for the others: only failures count that
 * come when no other request was answered for as long as the circuit would stay open.
 */
export function createAdmission({ breaker, permits, observe, clock }: AdmissionOptions): Admission {
  const circuit = createCircuitBreaker({
    failures: breaker.failures,
    openMs: () => breaker.pauseMs,
    // A probe that hangs must not keep all others waiting for its end.
    probeMs: breaker.pauseMs,
    quietMs: breaker.pauseMs,
    successOutdates: true,
    now: clock.monotonicNow,
    observe(change) {
      if (change !== 'reopened') observe(change === 'opened')
    },
  })
  const semaphore =
    permits === undefined ? undefined : createSemaphore({ permits, refusal: noConnectionInTime, clock })

  function enter(request: WaitingRequest, waitMs: number): (() => void) | undefined {
    if (!circuit.isPassable()) request.refuse(circuitOpen())
    // The probe must not stand in a line while no other may try: its part is taken with the permit.
    else if (!semaphore || semaphore.tryAcquire()) request.go(circuit.enter()!)
    else return waitFor(semaphore, request, waitMs)
    return undefined
  }

  function waitFor(permits: Semaphore<BffError>, request: WaitingRequest, waitMs: number): () => void {
    const refuse = (error: BffError) => request.refuse(error)
    return permits.wait({ enter: () => enterFromLine(permits, request), refuse }, waitMs)
  }

  function enterFromLine(permits: Semaphore<BffError>, request: WaitingRequest): void {
    // Others may have found out meanwhile that the upstream does not answer.
    const period = circuit.enter()
    if (period !== undefined) {
      request.go(period)
      return
    }
    permits.release()
    request.refuse(circuitOpen())
  }

  function circuitOpen(): BffError {
    return new BffError(
      'upstream_unreachable',
      'the circuit of the upstream is open, because it does not answer',
      {
        retryAfterSeconds: Math.max(1, Math.ceil(circuit.openLeftMs() / 1000)),
      },
    )
  }

  return {
    enter,
    leave(period) {
      circuit.ended(period)
      semaphore?.release()
    },
    answered: circuit.succeeded,
    failed(period, noAnswer) {
      // Cutting is quick: a client that brings it about again and again could be the probe each time.
      if (noAnswer === 'silence' || !circuit.isOpen()) circuit.failed(period)
    },
    isOpen: circuit.isOpen,
  }
}

/** The refusal of a request that no connection took in time. */
export function noConnectionInTime(): BffError {
  return new BffError('upstream_timeout', 'no connection to the upstream fell free in time')
}
