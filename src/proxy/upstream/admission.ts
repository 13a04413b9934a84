import { BffError } from '../../errors.ts'
import type { Breaker, BreakerPass, NoAnswer } from './breaker.ts'
import type { Places } from './places.ts'

/** Who asks to be let through to an upstream. */
export type Visitor = {
  /** Their turn has come; they tell the gate when they leave. */
  go(pass: BreakerPass): void
  /** They are not let through. */
  refuse(error: BffError): void
}

/** What stands before the connections to one upstream: its breaker, and the limit on what is under way. */
export type Gate = {
  /**
   * Lets a visitor go, now or when a place falls free within `waitMs`, or refuses them with `upstream_unreachable` or
   * `upstream_timeout`. Returns what takes them out of the line, if they stand in it.
   */
  enter(visitor: Visitor, waitMs: number): (() => void) | undefined
  /** A visitor that was let through is done. */
  leave(pass: BreakerPass): void
  /** The upstream answered. */
  answered(): void
  /** The upstream gave no answer. */
  failed(pass: BreakerPass, noAnswer: NoAnswer): void
  isOpen(): boolean
}

/** Makes a gate; without places as many go through as come. */
export function createGate(breaker: Breaker, places: Places | undefined): Gate {
  function enter(visitor: Visitor, waitMs: number): (() => void) | undefined {
    const pass = breaker.enter()
    if (pass === undefined) visitor.refuse(leftAlone(breaker))
    else if (!places || places.take()) visitor.go(pass)
    else {
      // The probe must not stand in a line while nobody else may try.
      breaker.ended(pass)
      return places.wait(
        { enter: () => enterFromLine(visitor, places), giveUp: () => visitor.refuse(noConnectionInTime()) },
        waitMs,
      )
    }
    return undefined
  }

  function enterFromLine(visitor: Visitor, held: Places): void {
    // Others may have found out meanwhile that nobody answers.
    const pass = breaker.enter()
    if (pass !== undefined) {
      visitor.go(pass)
      return
    }
    held.leave()
    visitor.refuse(leftAlone(breaker))
  }

  function leave(pass: BreakerPass): void {
    breaker.ended(pass)
    places?.leave()
  }
  const { answered, failed, isOpen } = breaker
  return { enter, leave, answered, failed, isOpen }
}

function leftAlone(breaker: Breaker): BffError {
  return new BffError('upstream_unreachable', 'the upstream does not answer and is left alone for a while', {
    retryAfterSeconds: Math.max(1, Math.ceil(breaker.pauseLeftMs() / 1000)),
  })
}

/** The refusal of a request that no connection took in time. */
export function noConnectionInTime(): BffError {
  return new BffError('upstream_timeout', 'no connection to the upstream fell free in time')
}
