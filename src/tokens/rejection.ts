import { BffError } from '../errors.ts'
import type { Wish } from './renewal.ts'
import type { StoredAccessToken, TokenHolder } from './token-record.ts'

/** What an upstream said of a token (RFC 6750 §3.1, RFC 9470 §3, Entra's claims challenge). */
export type Rejection = {
  readonly token: { readonly value: string }
  readonly challenge:
    | { readonly kind: 'invalid_token' }
    | { readonly kind: 'insufficient_claims'; readonly claims: string }
    | {
        readonly kind: 'insufficient_user_authentication'
        readonly acrValues?: string
        readonly maxAge?: number
      }
  /** Whether the request could be sent again. */
  readonly isRepeatable: boolean
}

/** Send the request again with this token, or give the client the upstream's own answer. */
export type RejectionReaction =
  | { readonly kind: 'resend'; readonly token: StoredAccessToken }
  | { readonly kind: 'relay' }

export type RejectionsDeps = {
  readonly renew: (wish: Wish) => Promise<StoredAccessToken>
  /** The token in the store, read past every copy. */
  readonly stored: (holder: TokenHolder, resource: string) => Promise<StoredAccessToken | undefined>
  readonly now: () => number
}

/** However often an upstream says no, one (session, resource) is renewed out of turn once a minute. */
const FORCED_EVERY_MS = 60_000
const MAX_HELD = 10_000
const RELAY: RejectionReaction = { kind: 'relay' }

type Forced = { readonly rejected: string; readonly at: number; readonly result: Promise<StoredAccessToken> }

/**
 * Reacts to a token that an upstream rejects although it is good by the clock: that token is dropped, one renewal
 * tried, and the request sent once more. What the user must cure by signing in again rejects with
 * `reauthentication_required` and the step-up it needs.
 */
export function createRejections({ renew, stored, now }: RejectionsDeps) {
  const forced = new Map<string, Forced>()

  async function replacementFor(wish: Wish & { rejected: string }): Promise<StoredAccessToken | undefined> {
    const { holder, resource, rejected } = wish
    const key = holder.hash + resource
    const recent = () => {
      const found = forced.get(key)
      return found && now() < found.at + FORCED_EVERY_MS ? found : undefined
    }
    const before = recent()
    if (before?.rejected === rejected) return before.result
    const token = await stored(holder, resource)
    if (token && token.value !== rejected && now() < token.expiresAt) return token
    // Another request may have forced it while this one looked.
    const meanwhile = recent()
    if (meanwhile) return meanwhile.rejected === rejected ? meanwhile.result : undefined
    if (token?.forcedAt !== undefined && now() < token.forcedAt + FORCED_EVERY_MS) return undefined
    return force(key, wish)
  }

  function force(key: string, wish: Wish & { rejected: string }): Promise<StoredAccessToken> {
    const result = renew(wish)
    // Oldest first, as a Map keeps them: no token outstays its minute here.
    for (const [oldest, { at }] of forced) {
      if (forced.size < MAX_HELD && now() < at + FORCED_EVERY_MS) break
      forced.delete(oldest)
    }
    forced.delete(key)
    forced.set(key, { rejected: wish.rejected, at: now(), result })
    return result
  }

  return async function reactTo(
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
}

function stepUpRequired(stepUp: NonNullable<BffError['stepUp']>): BffError {
  return new BffError('reauthentication_required', 'the API wants the user to sign in again', {
    stepUp,
    details: { reason: stepUp.claims ? 'insufficient_claims' : 'insufficient_user_authentication' },
  })
}
