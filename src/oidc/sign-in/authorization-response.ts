import type { ProviderConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { IdTokenError, idTokenError, requireSoundClaims } from '../token-endpoint/id-token.ts'
import { halfHash, issuerFor, signatureHeaderOf, unverifiedClaims } from '../token-endpoint/jwt.ts'
import type { ProviderKeys } from '../token-endpoint/key-set.ts'
import type { AuthorizationChecks, ProviderMetadata } from '../token-endpoint/openid-client.ts'

/** An authorization response whose signed parts are good. */
export type VerifiedResponse = {
  /** The redirect URI with the parameters of the response, as a plain query would have them. */
  readonly callback: URL
  /** Who signed in, by the ID token of the response itself (response type `code id_token`). */
  readonly user?: { readonly iss: unknown; readonly sub: unknown }
}

export type AuthorizationResponseDeps = {
  readonly provider: Pick<ProviderConfig, 'clientId' | 'clockToleranceMs'>
  readonly keys: ProviderKeys
  /** Epoch ms. */
  readonly now: () => number
}

type Claims = Readonly<Record<string, unknown>>

/** The browser brings this ID token, and the provider has just made it (OpenID Connect Core §3.1.3.7 rule 10). */
const LONGEST_AGE_SECONDS = 3600

/**
 * Verifies what of a response is signed, before anything in it is used: the JWT that it is (JARM), or the ID token in it
 * (OpenID Connect Core §3.3.2.11). Throws a plain Error that names the rule, an IdTokenError, or what the key set throws.
 * State, `iss` and errors are left to the checks of a plain response.
 */
export async function verifiedResponse(
  deps: AuthorizationResponseDeps,
  metadata: ProviderMetadata,
  { callback, checks }: { callback: URL; checks: AuthorizationChecks },
): Promise<VerifiedResponse> {
  if (checks.responseMode === 'jwt') return { callback: await openedJwt(deps, metadata, callback) }
  if (checks.responseType !== 'code id_token' || callback.searchParams.has('error')) return { callback }
  return withoutIdToken(deps, metadata, { callback, checks })
}

/** Throws unless both ID tokens of a sign-in are of the same user (OpenID Connect Core §3.3.3.6). */
export function requireSameUser(
  { user }: VerifiedResponse,
  claims: Readonly<Record<string, unknown>> | undefined,
): void {
  if (user === undefined || (user.iss === claims?.iss && user.sub === claims?.sub)) return
  throw new BffError('invalid_callback', 'the two ID tokens of the sign-in are not of the same user', {
    logged: { step: 'id_token', claim: user.iss === claims?.iss ? 'sub' : 'iss' },
  })
}

/** JARM §2.4: the parameters that the JWT holds; what stands beside it counts for nothing. */
async function openedJwt(
  { provider, keys, now }: AuthorizationResponseDeps,
  { jwksUri, issuer, responseSigningAlgorithms }: ProviderMetadata,
  callback: URL,
): Promise<URL> {
  const [jwt, ...others] = callback.searchParams.getAll('response')
  // RFC 6749 §3.1: no parameter comes twice.
  if (others.length > 0) throw new Error('the response has several signed responses')
  if (!jwt) throw new Error('the response is no JWT, although a signed one was asked for')
  if (jwt.split('.').length === 5) {
    throw new Error(
      'the response is encrypted: register the client without authorization_encrypted_response_alg',
    )
  }
  try {
    requireAlgorithm(jwt, responseSigningAlgorithms)
    await keys.requireSigned(jwt, jwksUri)
  } catch (error) {
    if (error instanceof BffError) throw error
    // Not as it comes: a TypeError would be taken for a failure of the network.
    throw new Error('the signature of the signed response is not good', { cause: error })
  }
  const { aud, exp, iat, nbf, ...claims } = unverifiedClaims(jwt) ?? {}
  const seconds = now() / 1000
  const tolerance = provider.clockToleranceMs / 1000
  if (claims.iss !== issuer) throw new Error('the iss of the signed response is not the provider')
  if (![aud].flat().includes(provider.clientId))
    throw new Error('the aud of the signed response is not this client')
  if (!isTime(exp) || exp <= seconds - tolerance)
    throw new Error('the signed response has expired, or has no exp')
  if ([iat, nbf].some((time) => time !== undefined && (!isTime(time) || time > seconds + tolerance))) {
    throw new Error('the signed response is not good yet')
  }
  const parameters = Object.entries(claims).flatMap(([name, value]) =>
    typeof value === 'string' ? [[name, value]] : [],
  )
  return withQuery(callback, new URLSearchParams(parameters))
}

/** OpenID Connect Core §3.3.2.11 and §3.3.2.12: the ID token of the response is bound to the request and to its code. */
async function withoutIdToken(
  { provider, keys, now }: AuthorizationResponseDeps,
  metadata: ProviderMetadata,
  { callback, checks }: { callback: URL; checks: AuthorizationChecks },
): Promise<VerifiedResponse> {
  const parameters = new URLSearchParams(callback.search)
  const [code, idToken, state] = ['code', 'id_token', 'state'].map((name) => parameters.get(name))
  if (!code || !idToken) throw new Error('the response has no code, or no ID token beside it')
  try {
    const algorithm = requireAlgorithm(idToken, metadata.signingAlgorithms)
    await keys.requireSigned(idToken, metadata.jwksUri)
    const claims = unverifiedClaims(idToken) ?? {}
    requireFor(claims, { provider, issuer: metadata.issuer, seconds: now() / 1000 })
    requireSoundClaims(claims as { sub: string }, { ...provider, now: now() })
    if (claims.nonce !== checks.nonce) throw wrong('nonce')
    if (claims.c_hash !== halfHash(code, algorithm)) throw wrong('c_hash')
    if (claims.s_hash !== undefined && claims.s_hash !== halfHash(state ?? '', algorithm))
      throw wrong('s_hash')
    parameters.delete('id_token')
    // The ID token names the issuer, so that such a response needs no `iss` of its own (RFC 9207 §2.4).
    if (metadata.hasIssParameter && !parameters.has('iss')) parameters.set('iss', String(claims.iss))
    return { callback: withQuery(callback, parameters), user: { iss: claims.iss, sub: claims.sub } }
  } catch (error) {
    throw error instanceof BffError ? error : idTokenError(error, idToken)
  }
}

/** OpenID Connect Core §3.1.3.7 rules 2, 3, 4, 9 and 10. Times are those of the provider's clock, give or take. */
function requireFor(
  { iss, sub, aud, azp, exp, iat, tid }: Claims,
  {
    provider: { clientId, clockToleranceMs },
    issuer,
    seconds,
  }: { provider: AuthorizationResponseDeps['provider']; issuer: string; seconds: number },
): void {
  // Entra ID's issuer for several tenants is a template.
  if (iss !== issuerFor(issuer, tid)) throw wrong('iss')
  if (typeof sub !== 'string') throw wrong('sub')
  const audiences = [aud].flat()
  if (!audiences.includes(clientId) || (audiences.length > 1 && azp !== clientId)) throw wrong('aud')
  if (!isTime(exp) || exp <= seconds - clockToleranceMs / 1000) throw wrong('exp')
  if (!isTime(iat) || iat < seconds - LONGEST_AGE_SECONDS) throw wrong('iat')
}

/** The algorithm of a JWS. Throws for one that the provider does not name, for none, and for a MAC. */
function requireAlgorithm(jws: string, named: readonly string[] | undefined): string {
  const { alg } = signatureHeaderOf(jws)
  if (named && !named.includes(alg)) throw new Error(`signed with ${alg}, which the provider does not name`)
  return alg
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

function wrong(claim: string): IdTokenError {
  return new IdTokenError(`the ID token of the response has no good ${claim}`, { claim })
}

function withQuery(callback: URL, parameters: URLSearchParams): URL {
  const url = new URL(callback)
  url.search = parameters.toString()
  return url
}
