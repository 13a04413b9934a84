import { BffError } from '../errors.ts'

type Refusal = { readonly until: number; readonly error: BffError }

const MAX_HELD = 10_000
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

/** Makes an empty, bounded memory. @param now epoch ms. */
export function createRecentRefusals(now: () => number): RecentRefusals {
  const refusals = new Map<string, Refusal>()
  return {
    throwIfRecent(key) {
      const refusal = refusals.get(key)
      if (!refusal) return
      if (now() < refusal.until) throw withTimeLeft(refusal.error, refusal.until - now())
      refusals.delete(key)
    },
    remember(key, error) {
      if (!(error instanceof BffError) || !REMEMBERED.has(error.code)) return
      const seconds = Math.min(error.retryAfterSeconds ?? DEFAULT_SECONDS, MAX_SECONDS)
      if (refusals.size >= MAX_HELD) dropOldest(refusals)
      refusals.delete(key)
      refusals.set(key, { until: now() + seconds * 1000, error })
    },
  }
}

/** The same refusal, with the pause that is left of the one it asked for. */
function withTimeLeft(error: BffError, leftMs: number): BffError {
  if (error.retryAfterSeconds === undefined) return error
  const { code, message, cause, details, headers, stepUp, status } = error
  const retryAfterSeconds = Math.max(1, Math.ceil(leftMs / 1000))
  return new BffError(code, message, { cause, retryAfterSeconds, details, headers, stepUp, status })
}

/** A Map keeps the order of insertion. */
function dropOldest(refusals: Map<string, Refusal>): void {
  for (const key of refusals.keys()) {
    refusals.delete(key)
    return
  }
}
