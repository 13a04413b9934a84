import type { Clock } from '../async/clock.ts'
import { createExpiringMap, heapBytes, heapShare } from '../async/expiring-map.ts'
import { BffError, type ErrorCode } from '../errors.ts'
import type { AccessToken, RenewToken, TokenHolder, WantedToken } from './record/sealing.ts'

/** What an upstream said of a token (RFC 6750 §3.1, RFC 9470 §3, Entra's claims challenge). */
export type TokenChallenge =
  | { readonly kind: 'invalid_token' }
  /** `claims` is JSON text, for the `claims` parameter of a token or authorization request. */
  | { readonly kind: 'insufficient_claims'; readonly claims: string }
  /** `maxAge` in seconds. */
  | {
      readonly kind: 'insufficient_user_authentication'
      readonly acrValues?: string
      readonly maxAge?: number
    }

/** A token of ours that an upstream rejected with its 401. */
export type Rejection = {
  /** The one that was sent. */
  readonly token: Pick<AccessToken, 'value'>
  readonly challenge: TokenChallenge
  /** Whether the request could be sent again: it had no body, or all of it is at hand. */
  readonly isRepeatable: boolean
}

/** `resend`: once more with this token. `relay`: the client gets the upstream's own 401. */
export type RejectionReaction =
  | { readonly kind: 'resend'; readonly token: AccessToken }
  | { readonly kind: 'relay' }

export type RejectionsDeps = {
  readonly renew: RenewToken
  /** The token in the store, read past every copy. */
  readonly stored: (holder: TokenHolder, resource: string) => Promise<AccessToken | undefined>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

/** What becomes of a session's tokens that an upstream rejects although they are good by the clock. */
export type Rejections = {
  /** Rejects as a renewal does, and with `reauthentication_required` when the user must sign in again. */
  reactTo(holder: TokenHolder, resource: string, rejection: Rejection): Promise<RejectionReaction>
  /** Number of tokens that are dropped now, of all sessions: nearly always 0. */
  droppedTokens(): number
  /** Whether the token was rejected and another may be had: then it is not to be sent. */
  isDropped(holder: TokenHolder, resource: string, token: AccessToken): boolean
  /** The token to send in place of a dropped one; that one, once another was refused. Rejects while none is had. */
  insteadOf(holder: TokenHolder, resource: string, token: AccessToken): Promise<AccessToken>
}

const RELAY: RejectionReaction = { kind: 'relay' }

/**
 * Reacts to a token that an upstream rejects although it is good by the clock: that token is dropped, one renewal
 * tried, and the request sent once more. What the user must cure by signing in again rejects with
 * `reauthentication_required` and the step-up it needs.
 */
export function createRejections({ renew, stored, clock }: RejectionsDeps): Rejections {
  const { replacementFor, isDropped, droppedTokens } = createForcedRenewals<
    WantedToken & { rejected: string }
  >({
    keyOf: ({ holder, resource }) => holder.hash + resource,
    stored: ({ holder, resource }) => stored(holder, resource),
    ...{ renew, clock },
  })

  async function reactTo(
    holder: TokenHolder,
    resource: string,
    { token, challenge, isRepeatable }: Rejection,
  ): Promise<RejectionReaction> {
    if (challenge.kind === 'insufficient_user_authentication') {
      const { acrValues, maxAge } = challenge
      throw stepUpRequired({ resource, acrValues, maxAge })
    }
    const claims = challenge.kind === 'insufficient_claims' ? challenge.claims : undefined
    const replacement = replacementFor({ holder, resource, rejected: token.value, claims })
    if (!isRepeatable) {
      // The next request gets the new token; this one is answered as the upstream did.
      replacement.catch(() => undefined)
      return RELAY
    }
    const found = await replacement
    if (found) return { kind: 'resend', token: found }
    if (claims !== undefined) throw stepUpRequired({ resource, claims })
    return RELAY
  }

  return {
    reactTo,
    droppedTokens,
    isDropped: (holder, resource, token) => isDropped(holder.hash + resource, token),
    insteadOf: async (holder, resource, token) =>
      (await replacementFor({ holder, resource, rejected: token.value })) ?? token,
  }
}

function stepUpRequired(stepUp: NonNullable<BffError['stepUp']>): BffError {
  return new BffError('reauthentication_required', 'the API wants the user to sign in again', {
    stepUp,
    details: { reason: stepUp.claims ? 'insufficient_claims' : 'insufficient_user_authentication' },
  })
}

/** A token that is wanted in place of one that an upstream has rejected. */
export type WantedReplacement = {
  readonly rejected: string
  /** JSON text of the claims that the rejected token lacks for one request; for others it may do. */
  readonly claims?: string | undefined
}

export type ForcedRenewalsDeps<Wanted extends WantedReplacement> = {
  /** The token that is meant, whatever its value; the same for all who want it. */
  readonly keyOf: (wanted: Wanted) => string
  readonly renew: (wanted: Wanted) => Promise<AccessToken>
  /** The token as others know it. */
  readonly stored: (wanted: Wanted) => AccessToken | undefined | Promise<AccessToken | undefined>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

/** Replaces tokens that an upstream rejects although they are good by the clock. */
export type ForcedRenewals<Wanted extends WantedReplacement> = {
  /**
   * The token to use in place of the rejected one; undefined when that was renewed out of turn within the minute.
   * Rejects as the renewal did.
   */
  replacementFor(wanted: Wanted): Promise<AccessToken | undefined>
  droppedTokens(): number
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
export function createForcedRenewals<Wanted extends WantedReplacement>(
  deps: ForcedRenewalsDeps<Wanted>,
): ForcedRenewals<Wanted> {
  const { keyOf, renew, stored, clock } = deps
  // The token that comes is about as long as the one it replaces.
  const forced = createRecent<Forced>(clock, ({ rejected }) => 3 * heapBytes(rejected))
  const dropped = createRecent<string>(clock, heapBytes)

  function takeBack(key: string, rejected: string): undefined {
    if (dropped.get(key) === rejected) dropped.delete(key)
  }

  async function replacementFor(wanted: Wanted): Promise<AccessToken | undefined> {
    const { rejected, claims } = wanted
    const key = keyOf(wanted)
    const before = forced.get(key)
    if (before?.rejected === rejected) return before.result
    // At once, for the next request; but the one in the store, if that is another, matters more.
    if (claims === undefined && dropped.get(key) === undefined) dropped.set(key, rejected)
    const token = await stored(wanted)
    if (token && token.value !== rejected && clock.now() < token.expiresAt) {
      if (dropped.get(key) === token.value) return replacementFor({ ...wanted, rejected: token.value })
      takeBack(key, rejected)
      return token
    }
    // Another request may have forced it while this one looked, or another replica.
    const meanwhile = forced.get(key)
    if (meanwhile?.rejected === rejected) return meanwhile.result
    if (meanwhile || isWithinMinute(token?.forcedAt, clock.now())) return takeBack(key, rejected)
    return force(key, wanted)
  }

  function force(key: string, wanted: Wanted): Promise<AccessToken> {
    const { rejected, claims } = wanted
    const attempt = { rejected, result: renew(wanted) }
    if (claims === undefined && dropped.get(key) !== rejected) dropped.set(key, rejected)
    forced.set(key, attempt)
    attempt.result.catch((error) => {
      if (!isPassing(error)) takeBack(key, rejected)
      else if (forced.get(key) === attempt) forced.delete(key)
    })
    return attempt.result
  }

  return {
    replacementFor,
    droppedTokens: dropped.size,
    isDropped: (key, token) => dropped.get(key) === token.value,
  }
}

function isPassing(error: unknown): boolean {
  return error instanceof BffError && PASSING.has(error.code)
}

const MINUTE_MS = 60_000
const MAX_RECENT = 10_000
/** The part of the heap that one of the maps may take. */
const RECENT_SHARE = 1 / 64

/** What was noted within the last minute, by key; bounded. @param bytesOf about what a note takes. */
function createRecent<T>({ monotonicNow }: Pick<Clock, 'monotonicNow'>, bytesOf: (note: T) => number) {
  const bytes = { max: heapShare(RECENT_SHARE), of: bytesOf }
  const notes = createExpiringMap<string, T>({ monotonicNow, max: MAX_RECENT, bytes })
  return { ...notes, set: (key: string, note: T) => notes.set(key, note, MINUTE_MS) }
}

/**
 * Whether `at`, a time of day that another replica may have written, is less than a minute from now; both in epoch ms. A
 * clock that was ahead must not make a minute of an hour.
 */
function isWithinMinute(at: number | undefined, now: number): boolean {
  return at !== undefined && Math.abs(now - at) < MINUTE_MS
}
