import type { Clock } from '../async/clock.ts'
import { createExpiringMap, heapBytes, heapShare } from '../async/expiring-map.ts'
import { createSingleFlight } from '../async/single-flight.ts'
import { BffError } from '../errors.ts'
import type { UserClaims } from '../store/port.ts'
import { createRecentRefusals } from './recent-refusals.ts'
import { type AccessToken, storedAccessToken } from './record/sealing.ts'
import type { TokenExchangeGrant } from './token-exchange.ts'

/** An access token that a client brought, verified. */
export type BearerToken = {
  readonly value: string
  /** Names it. */
  readonly hash: string
  readonly claims: UserClaims
  /** Epoch ms. */
  readonly expiresAt: number
}

export type BearerExchangeDeps = {
  readonly exchangeGrant: TokenExchangeGrant
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

const MAX_HELD = 10_000
/** The part of the heap that the exchanged tokens may take. */
const HELD_SHARE = 1 / 64
/** No session ends it: a token that was exchanged is asked for again after so long, and what was revoked is no longer given. */
const LONGEST_HELD_MS = 300_000

/**
 * Makes the exchange of access tokens that clients bring for those of a resource (RFC 8693, or on behalf of): one at a time
 * for each token and resource, kept in this process for five minutes at most and never beyond the end of either token.
 * Rejects with session_required, reauthentication_required, access_denied, provider_rejected or provider_unavailable.
 */
export function createBearerExchange({ exchangeGrant, clock }: BearerExchangeDeps) {
  const { now, monotonicNow } = clock
  const held = createExpiringMap<string, AccessToken>({
    ...{ monotonicNow, max: MAX_HELD },
    bytes: { max: heapShare(HELD_SHARE), of: heapBytes },
  })
  const flights = createSingleFlight<AccessToken>()
  const refusals = createRecentRefusals(monotonicNow)

  async function exchange(key: string, bearer: BearerToken, resource: string): Promise<AccessToken> {
    refusals.throwIfRecent(key)
    try {
      const request = { resource, subjectToken: bearer.value, session: `bearer ${bearer.hash}` }
      const token = storedAccessToken(await exchangeGrant(request))
      const leftMs = Math.min(token.renewAt - now(), bearer.expiresAt - now(), LONGEST_HELD_MS)
      if (leftMs > 0) held.set(key, token, leftMs)
      return token
    } catch (error) {
      const refusal = asChallenge(error)
      refusals.remember(key, refusal)
      throw refusal
    }
  }

  return async function exchanged(bearer: BearerToken, resource: string): Promise<AccessToken> {
    const key = JSON.stringify([bearer.hash, resource])
    const token = held.get(key)
    if (token && now() < token.expiresAt) return token
    return flights.share(key, () => exchange(key, bearer, resource))
  }
}

/**
 * The client has no session that a sign-in of ours could cure: it is told what its next token must bring, as Entra ID's
 * APIs tell their clients, or that this one is no longer good (RFC 6750 §3.1).
 */
function asChallenge(error: unknown): unknown {
  if (!(error instanceof BffError) || error.code !== 'reauthentication_required') return error
  const { code, message, details, stepUp, cause, logged } = error
  const claims = stepUp?.claims && Buffer.from(stepUp.claims).toString('base64')
  const challenge = claims ? `error="insufficient_claims", claims="${claims}"` : 'error="invalid_token"'
  return new BffError(code, message, {
    ...{ details, cause, logged, offersLogin: false },
    headers: { 'www-authenticate': `Bearer ${challenge}` },
  })
}
