import { BffError } from '../../errors.ts'
import { unverifiedJwt, unverifiedKeyId } from '../token-endpoint/jwt.ts'
import { EventTokenError } from './event-token.ts'

export type RevocationCallerDeps = {
  readonly isIssuer: (iss: string) => boolean
  /** URL of the endpoint, which the token must be for. */
  readonly endpoint: string
  /** Throws a plain Error for a signature that is not the provider's, BffError when that cannot be told now. */
  readonly requireSigned: (jws: string) => Promise<void>
  readonly clockToleranceMs: number
  /** Epoch ms. */
  readonly now: () => number
}

/** A token that may be used for longer is no token of one request. */
const LONGEST_LIFE_MS = 3_600_000

/**
 * Makes the check of the JWT that a provider authenticates a global token revocation with: a type of its own, so that none
 * of its other tokens will do, this endpoint as its audience, and a short life. Rejects with an EventTokenError, or with
 * BffError while the provider's keys cannot be read.
 */
export function createVerifyRevocationCaller(deps: RevocationCallerDeps) {
  const { isIssuer, endpoint, requireSigned, clockToleranceMs, now } = deps

  return async function verifyRevocationCaller(jws: string): Promise<void> {
    const { header, claims } = unverifiedJwt(jws) ?? {}
    if (!header || !claims) throw bad('the bearer token is no JWT')
    const type = String(header.typ)
      .toLowerCase()
      .replace(/^application\//, '')
    if (type !== 'global-token-revocation+jwt') throw bad('the token is of another type (typ)')
    const { iss, aud, iat, exp, nbf } = claims
    if (typeof iss !== 'string' || !isIssuer(iss)) throw bad('the token is of another issuer', 'iss')
    if (![aud].flat().includes(endpoint)) throw bad('the token is for another audience', 'aud')
    const at = now()
    const isLater = (time: unknown) => Number(time) * 1000 > at + clockToleranceMs
    if (!isNumber(exp) || exp * 1000 + clockToleranceMs <= at) throw bad('the token has expired', 'exp')
    if (exp * 1000 > at + LONGEST_LIFE_MS + clockToleranceMs) throw bad('the token lives too long', 'exp')
    if (iat !== undefined && (!isNumber(iat) || isLater(iat))) throw bad('iat is in the future', 'iat')
    if (nbf !== undefined && (!isNumber(nbf) || isLater(nbf))) throw bad('the token is not good yet', 'nbf')
    try {
      await requireSigned(jws)
    } catch (error) {
      if (error instanceof BffError) throw error
      const keyId = unverifiedKeyId(jws)
      throw new EventTokenError('invalid_key', 'no key of the provider verifies the token', { keyId }, error)
    }
  }
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

function bad(message: string, claim?: string): EventTokenError {
  return new EventTokenError('invalid_request', message, claim === undefined ? {} : { claim })
}
