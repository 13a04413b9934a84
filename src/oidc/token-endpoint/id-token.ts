import { type LoggedFacts, reasonBelow } from '../../errors.ts'
import type { UserClaims } from '../../store/port.ts'
import { halfHash, signatureHeaderOf, unverifiedKeyId } from './jwt.ts'

/** No ID token is good for a year: such an `exp` was not meant as one. */
const LONGEST_LIFE_SECONDS = 365 * 24 * 3600

/** An ID token that fails a check. Its message names the rule, and what of a time claim is wrong, but no claim value. */
export class IdTokenError extends Error {
  /** For the log: the claim, how far it is from our clock, and the key that the token says it is signed with. */
  readonly facts: LoggedFacts

  constructor(message: string, facts: LoggedFacts, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'IdTokenError'
    this.facts = facts
  }
}

export type IdTokenRules = {
  readonly clientId: string
  /** How far the provider's clock may be from ours, on either side. */
  readonly clockToleranceMs: number
  /** Epoch ms. */
  readonly now: number
}

/**
 * The rules of OpenID Connect Core §2 and §3.1.3.7 that openid-client leaves to its caller. Throws an IdTokenError.
 */
export function requireSoundClaims(
  claims: UserClaims,
  { clientId, clockToleranceMs, now }: IdTokenRules,
): UserClaims {
  const { sub, azp, iat, exp } = claims
  if (sub === '') throw new IdTokenError('the ID token has an empty sub', { claim: 'sub' })
  // §3.1.3.7 rule 5: openid-client looks at azp only where there are several audiences.
  if (azp !== undefined && azp !== clientId) {
    throw new IdTokenError('the ID token has the azp of another client', { claim: 'azp' })
  }
  const seconds = now / 1000
  const tolerance = clockToleranceMs / 1000
  if (Number(iat) > seconds + tolerance) throw badTime('iat', Number(iat) - seconds, tolerance)
  if (Number(exp) > seconds + tolerance + LONGEST_LIFE_SECONDS) {
    throw new IdTokenError('the ID token has an exp that is no date', { claim: 'exp' })
  }
  return claims
}

/** OpenID Connect Core §3.1.3.8: an ID token that names its access token by a hash came with this one. Throws an IdTokenError. */
export function requireAccessToken(
  { at_hash: atHash }: UserClaims,
  idToken: string,
  accessToken: string,
): void {
  if (atHash === undefined || atHash === halfHash(accessToken, signatureHeaderOf(idToken).alg)) return
  throw new IdTokenError('the ID token has the at_hash of another access token', { claim: 'at_hash' })
}

/** Says what is wrong with an ID token for which openid-client, or one of our rules, has thrown `error`. */
export function idTokenError(error: unknown, idToken: unknown): IdTokenError {
  const { message, facts } = error instanceof IdTokenError ? error : judgement(error)
  const cause = error instanceof IdTokenError ? error.cause : error
  return new IdTokenError(message, { ...facts, keyId: unverifiedKeyId(idToken) }, cause)
}

/** What openid-client tells of a failed check, two causes below its own error. */
function judgement(error: unknown): Pick<IdTokenError, 'message' | 'facts'> {
  const message = reasonBelow(error) ?? (error instanceof Error ? error.message : 'the ID token is not sound')
  for (let at = error, depth = 0; depth < 4; depth += 1) {
    const { claim, claims, now, tolerance, cause } = (at ?? {}) as Record<string, unknown>
    if (typeof claim === 'string') {
      const value = (claims as Record<string, unknown> | undefined)?.[claim]
      const isTime = typeof now === 'number' && typeof value === 'number'
      return isTime ? badTime(claim, value - now, Number(tolerance)) : { message, facts: { claim } }
    }
    at = cause
  }
  return { message, facts: {} }
}

function badTime(claim: string, offset: number, tolerance: number): IdTokenError {
  const offsetSeconds = Math.round(offset)
  const away = `${Math.abs(offsetSeconds)} s ${offsetSeconds < 0 ? 'in the past' : 'in the future'}`
  const message = `the ID token has an ${claim} ${away}, and provider.clockTolerance is ${tolerance} s`
  return new IdTokenError(message, { claim, offsetSeconds })
}
