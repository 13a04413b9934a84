import { createExpiringMap, heapBytes, heapShare } from '../async/expiring-map.ts'
import { BffError, type ErrorCode } from '../errors.ts'
import type { AccessToken } from './record/token-record.ts'

/** A wish for a token in place of one that an upstream has rejected. */
export type ForcedWish = {
  readonly rejected: string
  /** JSON text of the claims that the rejected token lacks for one request; for others it may do. */
  readonly claims?: string | undefined
}

export type ForcedRenewalsDeps<Wish extends ForcedWish> = {
  /** The token that is meant, whatever its value; the same for all wishes for it. */
  readonly keyOf: (wish: Wish) => string
  readonly renew: (wish: Wish) => Promise<AccessToken>
  /** The token as others know it. */
  readonly stored: (wish: Wish) => AccessToken | undefined | Promise<AccessToken | undefined>
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** Replaces tokens that an upstream rejects although they are good by the clock. */
export type ForcedRenewals<Wish extends ForcedWish> = {
  /**
   * The token to use in place of the rejected one; undefined when that was renewed out of turn within the minute.
   * Rejects as the renewal did.
   */
  replacementFor(wish: Wish): Promise<AccessToken | undefined>
  /** Whether the token is not to be sent: it was rejected within the last minute, and another may be had. */
  isDropped(key: string, token: AccessToken): boolean
}

/** No answer came: what is wrong may be over at any moment, and says nothing of the token. */
const PASSING: ReadonlySet<ErrorCode> = new Set(['provider_unavailable', 'store_unavailable'])

type Forced = { readonly rejected: string; readonly result: Promise<AccessToken> }

/**
 * However often an upstream says no, one token is renewed out of turn once a minute. An attempt that got no answer does
 * not count: the next caller tries again, as often as the memory of recent refusals lets it.
 */
export function createForcedRenewals<Wish extends ForcedWish>(
  deps: ForcedRenewalsDeps<Wish>,
): ForcedRenewals<Wish> {
  const { keyOf, renew, stored, now, monotonicNow } = deps
  // The token that comes is about as long as the one it replaces.
  const forced = createRecent<Forced>(monotonicNow, ({ rejected }) => 3 * heapBytes(rejected))
  const dropped = createRecent<string>(monotonicNow, heapBytes)

  function takeBack(key: string, rejected: string): undefined {
    if (dropped.get(key) === rejected) dropped.delete(key)
  }

  async function replacementFor(wish: Wish): Promise<AccessToken | undefined> {
    const { rejected, claims } = wish
    const key = keyOf(wish)
    const before = forced.get(key)
    if (before?.rejected === rejected) return before.result
    // At once, for the next request; but the one in the store, if that is another, matters more.
    if (claims === undefined && dropped.get(key) === undefined) dropped.set(key, rejected)
    const token = await stored(wish)
    if (token && token.value !== rejected && now() < token.expiresAt) {
      if (dropped.get(key) === token.value) return replacementFor({ ...wish, rejected: token.value })
      takeBack(key, rejected)
      return token
    }
    // Another request may have forced it while this one looked, or another replica.
    const meanwhile = forced.get(key)
    if (meanwhile?.rejected === rejected) return meanwhile.result
    if (meanwhile || isWithinMinute(token?.forcedAt, now())) return takeBack(key, rejected)
    return force(key, wish)
  }

  function force(key: string, wish: Wish): Promise<AccessToken> {
    const { rejected, claims } = wish
    const attempt = { rejected, result: renew(wish) }
    if (claims === undefined && dropped.get(key) !== rejected) dropped.set(key, rejected)
    forced.set(key, attempt)
    attempt.result.catch((error) => {
      if (!isPassing(error)) takeBack(key, rejected)
      else if (forced.get(key) === attempt) forced.delete(key)
    })
    return attempt.result
  }

  return { replacementFor, isDropped: (key, token) => dropped.get(key) === token.value }
}

function isPassing(error: unknown): boolean {
  return error instanceof BffError && PASSING.has(error.code)
}

const MINUTE_MS = 60_000
const MAX_RECENT = 10_000
/** The part of the heap that one of the maps may take. */
const RECENT_SHARE = 1 / 64

/** What was noted within the last minute, by key; bounded. `bytesOf`: about what a note takes. */
function createRecent<T>(monotonicNow: () => number, bytesOf: (value: T) => number) {
  const bytes = { max: heapShare(RECENT_SHARE), of: bytesOf }
  const notes = createExpiringMap<string, T>({ monotonicNow, max: MAX_RECENT, bytes })
  return { ...notes, set: (key: string, value: T) => notes.set(key, value, MINUTE_MS) }
}

/**
 * Whether `at`, a time of day that another replica may have written, is less than a minute from now; both in epoch ms. A
 * clock that was ahead must not make a minute of an hour.
 */
function isWithinMinute(at: number | undefined, now: number): boolean {
  return at !== undefined && Math.abs(now - at) < MINUTE_MS
}
