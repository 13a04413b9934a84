import { createExpiringMap, heapShare } from '../async/expiring-map.ts'
import { BffError, type BffErrorOptions, describeError } from '../errors.ts'

const MAX_HELD = 10_000
/** The part of the heap that they may take, and what one takes with its key and the stack of the error. */
const REFUSALS_SHARE = 1 / 64
const REFUSAL_BYTES = 2_048
const DEFAULT_SECONDS = 5
const MAX_SECONDS = 3_600
const REMEMBERED = new Set([
  'provider_rejected',
  'provider_unavailable',
  'reauthentication_required',
  'access_denied',
])

/** Refusals of the last seconds, so that a provider that said no is not asked again by every request. */
export type RecentRefusals = {
  throwIfRecent(key: string): void
  /** Notes refusals of the provider, for as long as they say; anything else is none. */
  remember(key: string, error: unknown): void
}

/** Nothing is remembered yet, and never more than a bounded part of the heap. @param monotonicNow ms. */
export function createRecentRefusals(monotonicNow: () => number): RecentRefusals {
  const bytes = { max: heapShare(REFUSALS_SHARE), of: () => REFUSAL_BYTES }
  const refusals = createExpiringMap<string, BffError>({ monotonicNow, max: MAX_HELD, bytes })
  return {
    throwIfRecent(key) {
      const refusal = refusals.get(key)
      if (refusal) throw withTimeLeft(refusal, refusals.expiresInMs(key))
    },
    remember(key, error) {
      if (!(error instanceof BffError) || !REMEMBERED.has(error.code)) return
      const seconds = Math.min(error.retryAfterSeconds ?? DEFAULT_SECONDS, MAX_SECONDS)
      refusals.set(key, lean(error), seconds * 1000)
    },
  }
}

/** The same refusal, with the pause that is left of the one it asked for. */
function withTimeLeft(error: BffError, leftMs: number): BffError {
  if (error.retryAfterSeconds === undefined) return error
  return copyOf(error, { retryAfterSeconds: Math.max(1, Math.ceil(leftMs / 1000)) })
}

/** The same refusal without the answer that may hang on its cause. */
function lean(error: BffError): BffError {
  return error.cause instanceof Error ? copyOf(error, { cause: summaryOf(error.cause) }) : error
}

/** An error that says the same in the log, and holds nothing else. */
function summaryOf(error: Error): Error {
  const { name, message, code, cause } = describeError(error)
  const summary = new Error(message, cause === undefined ? undefined : { cause: named(new Error(), cause) })
  return Object.assign(named(summary, name), code === undefined ? {} : { code })
}

function named(error: Error, name: string): Error {
  return Object.assign(error, { name, stack: undefined })
}

function copyOf(error: BffError, changed: BffErrorOptions): BffError {
  const { code, message, cause, retryAfterSeconds, details, headers, stepUp, status, offersLogin } = error
  return new BffError(code, message, {
    ...{ cause, retryAfterSeconds, details, headers, stepUp, status, offersLogin },
    ...changed,
  })
}
