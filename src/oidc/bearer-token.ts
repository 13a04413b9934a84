import { createHash } from 'node:crypto'
import { createExpiringMap, heapBytes, heapShare } from '../async/expiring-map.ts'
import { createSingleFlight } from '../async/single-flight.ts'
import type { ProviderConfig } from '../config/config.ts'
import { BffError, type LoggedFacts } from '../errors.ts'
import type { UserClaims } from '../store/port.ts'
import { hasAudience, scopesOfClaims, withAndWithoutApi } from './grants/scopes.ts'
import { unverifiedJwt, unverifiedKeyId } from './token-endpoint/jwt.ts'
import { UnreadKeysError } from './token-endpoint/key-set.ts'
import type { RelyingParty } from './token-endpoint/relying-party.ts'

/** An access token that a client brought and that passed every check. */
export type BearerToken = {
  readonly value: string
  /** base64url(SHA-256) of it: names it in memory and, shortened, in the log. */
  readonly hash: string
  readonly claims: UserClaims
  /** Epoch ms. */
  readonly expiresAt: number
}

/** What a route asks of an access token. */
export type BearerRules = { readonly audience: string; readonly scopes: readonly string[] }

/**
 * Checks an access token for a route. Rejects with session_required (`invalid_token`), access_denied
 * (`insufficient_scope`), rate_limited, or provider_unavailable and provider_rejected while the keys cannot be read.
 *
 * @param client the network address that sent it, for the limit on forgeries.
 */
export type VerifyBearer = (token: string, rules: BearerRules, client: string) => Promise<BearerToken>

export type BearerTokensDeps = {
  readonly provider: Pick<ProviderConfig, 'issuer' | 'clientId' | 'allowedTenants' | 'clockToleranceMs'>
  readonly relyingParty: Pick<RelyingParty, 'issuer' | 'requireSignedAccessToken'>
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** A key that the provider has withdrawn verifies nothing after this, even for a token that is still good. */
const LONGEST_TRUST_MS = 300_000
const MAX_HELD = 20_000
/** The part of the heap that verified tokens may take, and that forged ones may. */
const VERIFIED_SHARE = 1 / 64
const FORGED_SHARE = 1 / 256
const FORGED_MS = 60_000
/** Signatures of one client that do not verify, in a minute, before no further one is tried. */
const MOST_FORGED = 60
/** No access token is good for a year: such an `exp` was not meant as one. */
const LONGEST_LIFE_SECONDS = 365 * 24 * 3_600

/**
 * Makes the check of access tokens that clients bring (RFC 9068 §4, RFC 6750 §3.1): JWTs of the provider, by its own keys.
 * What costs least is looked at first. A token that passed is known for five minutes or until its end, and one whose
 * signature did not verify for a minute; a client that brings many such is not answered by another verification.
 */
export function createVerifyBearer(deps: BearerTokensDeps): VerifyBearer {
  const { relyingParty, now, monotonicNow } = deps
  const verified = createExpiringMap<string, JudgedToken>({
    ...{ monotonicNow, max: MAX_HELD },
    bytes: { max: heapShare(VERIFIED_SHARE), of: heapBytes },
  })
  const forged = createForgeries(monotonicNow)
  const flights = createSingleFlight<void>()

  async function requireSignature(token: string, hash: string, client: string): Promise<void> {
    forged.requireNew(hash, client)
    try {
      await relyingParty.requireSignedAccessToken(token)
    } catch (error) {
      if (error instanceof BffError) throw error
      // A key that is not known may be new: nothing was verified, and when the keys are read again the token may be good.
      if (!(error instanceof UnreadKeysError) || error.isKeyKnown) forged.add(hash, client)
      throw invalidToken({ claim: 'signature', keyId: unverifiedKeyId(token) })
    }
  }

  return async function verifyBearer(token, rules, client) {
    const hash = createHash('sha256').update(token).digest('base64url')
    const known = verified.get(hash)
    const judged = known ?? judge(token, await relyingParty.issuer(), deps)
    requireTimes(judged.claims, deps)
    requireAudience(judged, rules.audience, deps.provider.clientId)
    if (!known) {
      await flights.share(hash, () => requireSignature(token, hash, client))
      // A token within the tolerance after its end is not worth remembering.
      const leftMs = Math.min(LONGEST_TRUST_MS, judged.expiresAt - now())
      if (leftMs > 0) verified.set(hash, judged, leftMs)
    }
    requireScopes(judged.claims, rules)
    return { value: token, hash, claims: judged.claims as UserClaims, expiresAt: judged.expiresAt }
  }
}

/** What a token says of itself. */
type JudgedToken = {
  readonly claims: Readonly<Record<string, unknown>> & { readonly sub: string; readonly exp: number }
  /** It says by its type that it is an access token (RFC 9068 §2.1). */
  readonly isTyped: boolean
  /** Epoch ms. */
  readonly expiresAt: number
}

function judge(token: string, issuer: string, { provider }: BearerTokensDeps): JudgedToken {
  const jwt = /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) ? unverifiedJwt(token) : undefined
  if (!jwt) throw invalidToken({ claim: 'form' })
  const { header, claims } = jwt
  const isTyped = requireKind(header.typ, claims)
  requireIssuer(claims, issuer, provider)
  if (typeof claims.sub !== 'string' || claims.sub === '') throw invalidToken({ claim: 'sub' })
  if (typeof claims.exp !== 'number') throw invalidToken({ claim: 'exp' })
  return { claims: claims as JudgedToken['claims'], isTyped, expiresAt: claims.exp * 1000 }
}

/** Claims that only an ID token has (OpenID Connect Core §2, §3.1.3.6, §3.3.2.11), or a logout or other event token. */
const OF_OTHER_TOKENS = ['nonce', 'at_hash', 'c_hash', 's_hash', 'events']

/**
 * An access token that any bearer may use. Returns whether its type says so. A token that is bound to a key (`cnf`, RFC 9449
 * §7.2, RFC 8705 §3) is good only with a proof of the key. Keycloak says `typ`, Cognito `token_use` in the claims.
 */
function requireKind(typ: unknown, claims: Readonly<Record<string, unknown>>): boolean {
  const type = typ === undefined ? 'jwt' : String(typ).toLowerCase()
  const isTyped = /^(?:application\/)?at\+jwt$/.test(type)
  if (!isTyped && type !== 'jwt') throw invalidToken({ claim: 'typ' })
  const other = OF_OTHER_TOKENS.find((name) => claims[name] !== undefined)
  if (other !== undefined && !isTyped) throw invalidToken({ claim: other })
  if (claims.typ !== undefined && !/^(?:bearer|at\+jwt)$/i.test(String(claims.typ)))
    throw invalidToken({ claim: 'typ' })
  if (claims.token_use !== undefined && claims.token_use !== 'access')
    throw invalidToken({ claim: 'token_use' })
  if (claims.cnf !== undefined) throw invalidToken({ claim: 'cnf' })
  return isTyped
}

const TENANT = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** As for ID tokens: the issuer as discovery names it, with the tenant of the token in its place, and an allowed tenant. */
function requireIssuer(
  { iss, tid }: Readonly<Record<string, unknown>>,
  issuer: string,
  { allowedTenants }: BearerTokensDeps['provider'],
): void {
  const tenant = typeof tid === 'string' && TENANT.test(tid) ? tid : undefined
  if (!issuersOf(issuer, tenant).includes(iss as string)) throw invalidToken({ claim: 'iss' })
  if (allowedTenants.length > 0 && !allowedTenants.includes(tid as string))
    throw invalidToken({ claim: 'tid' })
}

/**
 * The issuers of one provider. Entra ID signs the access tokens of an API by the version that the API asked for, whatever
 * endpoint was used, with the same keys: v1 tokens are from sts.windows.net. Only for one tenant, and the token's own.
 */
function issuersOf(issuer: string, tenant: string | undefined): readonly string[] {
  if (tenant === undefined) return issuer.includes('{tenantid}') ? [] : [issuer]
  const own = issuer.replaceAll('{tenantid}', tenant)
  const ofTenant = ENTRA_CLOUDS.map(([authority, sts]) => [
    `${authority}/${tenant}/v2.0`,
    `${sts}/${tenant}/`,
  ])
  return ofTenant.find((pair) => pair.includes(own)) ?? [own]
}

/** Authority of the v2.0 issuer, and that of the v1.0 one. */
const ENTRA_CLOUDS = [
  ['https://login.microsoftonline.com', 'https://sts.windows.net'],
  ['https://login.microsoftonline.us', 'https://sts.windows.net'],
  ['https://login.partner.microsoftonline.cn', 'https://sts.chinacloudapi.cn'],
] as const

/** RFC 7519 §4.1.4 to §4.1.6, within the tolerance. */
function requireTimes(
  { exp, nbf, iat }: JudgedToken['claims'],
  { now, provider: { clockToleranceMs } }: BearerTokensDeps,
): void {
  const seconds = now() / 1000
  const tolerance = clockToleranceMs / 1000
  const isBad = (claim: string, value: number): never => {
    throw invalidToken({ claim, offsetSeconds: Math.round(value - seconds) })
  }
  if (!(exp > seconds - tolerance)) isBad('exp', exp)
  if (exp > seconds + tolerance + LONGEST_LIFE_SECONDS) throw invalidToken({ claim: 'exp' })
  for (const [claim, value] of Object.entries({ nbf, iat })) {
    if (value === undefined) continue
    if (typeof value !== 'number') throw invalidToken({ claim })
    if (!(value <= seconds + tolerance)) isBad(claim, value)
  }
}

/** What an access token has and an ID token has not: RFC 9068 §2.2, Entra ID, Okta and others. */
const OF_ACCESS_TOKENS = ['scope', 'scp', 'client_id', 'cid', 'appid', 'appidacr', 'azpacr', 'token_use']

/** RFC 9068 §4. Where the audience is this very client's id, as it may be at Entra ID, ID tokens have it too. */
function requireAudience({ claims, isTyped }: JudgedToken, audience: string, clientId: string): void {
  const aud = [claims.aud].flat().filter((one) => typeof one === 'string')
  if (!hasAudience(aud, audience)) throw invalidToken({ claim: 'aud' })
  const isSure = isTyped || claims.typ !== undefined || !hasAudience([clientId], audience)
  if (!isSure && OF_ACCESS_TOKENS.every((name) => claims[name] === undefined))
    throw invalidToken({ claim: 'scope' })
}

/** RFC 6750 §3.1. */
function requireScopes(claims: JudgedToken['claims'], { scopes, audience }: BearerRules): void {
  if (scopes.length === 0) return
  const granted = withAndWithoutApi(scopesOfClaims(claims) ?? [], [audience.replace(/\/+$/, '')])
  if (scopes.every((scope) => granted.includes(scope))) return
  throw new BffError('access_denied', 'the access token lacks a scope that this route needs', {
    details: { reason: 'insufficient_scope' },
    headers: { 'www-authenticate': `Bearer error="insufficient_scope", scope="${scopes.join(' ')}"` },
  })
}

/**
 * A token that is not taken (RFC 6750 §3.1), whose answer does not tell the client why.
 *
 * @param logged what is wrong with it: the name of a claim, and how far a time is from our clock.
 */
export function invalidToken(logged: LoggedFacts): BffError {
  return new BffError('session_required', 'the access token is not acceptable here', {
    details: { reason: 'invalid_token' },
    headers: { 'www-authenticate': 'Bearer error="invalid_token"' },
    offersLogin: false,
    logged,
  })
}

/** Tokens whose signature did not verify, and how many each client brought. */
function createForgeries(monotonicNow: () => number) {
  const map = () =>
    createExpiringMap<string, number>({
      ...{ monotonicNow, max: MAX_HELD },
      bytes: { max: heapShare(FORGED_SHARE), of: (_, key) => heapBytes(key) },
    })
  const tokens = map()
  const clients = map()
  return {
    /** Throws for a token that is known, and for a client that has brought too many. */
    requireNew(hash: string, client: string): void {
      if (tokens.get(hash) !== undefined) throw invalidToken({ claim: 'signature' })
      if ((clients.get(client) ?? 0) < MOST_FORGED) return
      throw new BffError('rate_limited', 'too many access tokens of this address were not good', {
        retryAfterSeconds: Math.ceil(clients.expiresInMs(client) / 1000),
      })
    },
    add(hash: string, client: string): void {
      tokens.set(hash, 1, FORGED_MS)
      const count = clients.get(client)
      if (count === undefined) clients.set(client, 1, FORGED_MS)
      else clients.update(client, count + 1)
    },
  }
}
