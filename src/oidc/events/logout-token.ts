import type { ProviderConfig } from '../../config/config.ts'
import type { RelyingParty } from '../token-endpoint/relying-party.ts'
import { EventTokenError, isObject, verifyEventToken } from './event-token.ts'

/** What a provider tells to have ended: one of its sessions, or all of a user. */
export type ProviderLogout = {
  readonly iss: string
  readonly sub?: string
  /** The provider's name for its session. */
  readonly sid?: string
  readonly jti: string
  /** How long the token would be taken again, in ms. */
  readonly goodForMs: number
}

export type LogoutTokensDeps = {
  readonly provider: Pick<ProviderConfig, 'clientId' | 'clockToleranceMs' | 'logoutToken'>
  readonly isIssuer: (iss: string) => boolean
  readonly relyingParty: Pick<RelyingParty, 'requireSigned'>
  /** Epoch ms. */
  readonly now: () => number
}

const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout'
/** Providers make the token when they send it; it may have waited in their queue. */
const LONGEST_AGE_MS = 5 * 60_000

/**
 * Makes the check of logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.6), whose signature must be one that an ID
 * token may have. It rejects with an EventTokenError, or with BffError while the provider's keys cannot be read.
 */
export function createVerifyLogoutToken({ provider, isIssuer, relyingParty, now }: LogoutTokensDeps) {
  const { clientId, clockToleranceMs, logoutToken } = provider
  const rules = {
    // §2.4 recommends the type and does not demand it; many providers sign with `JWT` or none.
    types: logoutToken.requireType ? ['logout+jwt'] : ['logout+jwt', 'jwt', undefined],
    ...{ isIssuer, isAudience: (aud: string) => aud === clientId },
    requireSigned: relyingParty.requireSigned,
    ...{ longestAgeMs: LONGEST_AGE_MS, clockToleranceMs, now },
  }

  return async function verifyLogoutToken(jws: string): Promise<ProviderLogout> {
    const { claims, iss, jti, events, goodForMs } = await verifyEventToken(jws, rules)
    const { sub, sid, exp, azp } = claims
    if (exp === undefined && logoutToken.requireExp) throw bad('the logout token has no exp', 'exp')
    if (azp !== undefined && azp !== clientId)
      throw bad('the logout token has the azp of another client', 'azp')
    if (!isObject(events[LOGOUT_EVENT])) throw bad('the events of the token tell of no logout', 'events')
    // An ID token must not be taken for a logout token, nor the other way round.
    if ('nonce' in claims) throw bad('the logout token has a nonce', 'nonce')
    if (sub === undefined && sid === undefined) throw bad('the logout token has neither sub nor sid', 'sub')
    return { iss, jti, goodForMs, ...named({ sub }), ...named({ sid }) }
  }
}

/** A name of a user or session, where there is one. */
function named<Name extends string>(claim: Readonly<Record<Name, unknown>>): { [key in Name]?: string } {
  const [[name, value] = ['', undefined]] = Object.entries(claim)
  if (value === undefined) return {}
  if (typeof value !== 'string' || value === '')
    throw bad(`the logout token has a ${name} that is no name`, name)
  return { [name]: value } as { [key in Name]?: string }
}

function bad(message: string, claim: string): EventTokenError {
  return new EventTokenError('invalid_request', message, { claim })
}
