import type { Clock } from '../async/clock.ts'
import { BffError } from '../errors.ts'
import { createForcedRenewals } from './forced-renewals.ts'
import type { AccessToken, RenewToken, TokenHolder, WantedToken } from './record/token-record.ts'

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
  | { readonly kind: 'resend'; readonly token: AccessToken }
  | { readonly kind: 'relay' }

export type RejectionsDeps = {
  readonly renew: RenewToken
  /** The token in the store, read past every copy. */
  readonly stored: (holder: TokenHolder, resource: string) => Promise<AccessToken | undefined>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

const RELAY: RejectionReaction = { kind: 'relay' }

/** What becomes of tokens that an upstream rejects although they are good by the clock. */
export type Rejections = {
  /** Rejects as a renewal does, and with `reauthentication_required` when the user must sign in again. */
  reactTo(holder: TokenHolder, resource: string, rejection: Rejection): Promise<RejectionReaction>
  /** Whether the token was rejected and another may be had: then it is not to be sent. */
  isDropped(holder: TokenHolder, resource: string, token: AccessToken): boolean
  /** The token to send in place of a dropped one; that one, once another was refused. Rejects while none is had. */
  insteadOf(holder: TokenHolder, resource: string, token: AccessToken): Promise<AccessToken>
}

/**
 * Reacts to a token that an upstream rejects although it is good by the clock: that token is dropped, one renewal
 * tried, and the request sent once more. What the user must cure by signing in again rejects with
 * `reauthentication_required` and the step-up it needs.
 */
export function createRejections({ renew, stored, clock }: RejectionsDeps): Rejections {
  const { replacementFor, isDropped } = createForcedRenewals<WantedToken & { rejected: string }>({
    keyOf: ({ holder, resource }) => holder.hash + resource,
    stored: ({ holder, resource }) => stored(holder, resource),
    ...{ renew, now: clock.now, monotonicNow: clock.monotonicNow },
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
