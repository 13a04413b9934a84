import type { webcrypto } from 'node:crypto'
import * as oidc from 'openid-client'
import { singleFlight } from '../../async/single-flight.ts'
import type { ProviderConfig } from '../../config/config.ts'
import type { UserClaims } from '../../store/port.ts'
import type { CertificatesDeps } from '../client-auth/certificates.ts'
import { type ClientAuthenticator, createClientAssertion } from '../client-auth/client-assertion.ts'
import {
  aliasesOf,
  atLargestCloud,
  endpointMetadata,
  insecureEndpoints,
  isSharedAuthority,
  LARGEST_CLOUD,
  requireNamedHosts,
  TENANT,
} from './endpoints.ts'
import type { ProviderFetch } from './provider-fetch.ts'

/** Form or query parameters in the order they are sent; a name may repeat (RFC 8707 `resource`). */
export type Parameters = readonly (readonly [name: string, value: string])[]

/** What an authorization request is bound to, and what its response is checked against. */
export type AuthorizationChecks = {
  readonly state: string
  readonly nonce: string
  readonly codeVerifier: string
  /** How the response comes; absent: in the query. */
  readonly responseMode?: 'form_post' | 'jwt'
  /** What it brings; absent: a code. */
  readonly responseType?: 'code id_token'
  /** The private key that its tokens are to be bound to (RFC 9449), as JWK; absent: to none. */
  readonly dpopKey?: webcrypto.JsonWebKey
  /** Seconds since the user's authentication, if the request set a limit. */
  readonly maxAge?: number
}

/** A token answer that openid-client found sound, in the words of RFC 6749 §5.1. */
export type SoundAnswer = {
  readonly access_token: string
  readonly expires_in?: number
  readonly refresh_token?: string
  readonly id_token?: string
  claims(): UserClaims | undefined
  readonly [member: string]: unknown
}

/** What discovery and the configuration say of the provider (OpenID Connect Discovery §3, RFC 8414 §2). */
export type ProviderMetadata = {
  /** That of ID tokens; `{tenantid}` in it stands for the `tid` of each. */
  readonly issuer: string
  /** Its responses name it (RFC 9207 §3). */
  readonly hasIssParameter: boolean
  /** JARM §4. */
  readonly responseSigningAlgorithms: readonly string[] | undefined
  readonly jwksUri: string | undefined
  /** The algorithms that the provider signs ID tokens with; RS256 where it does not say (OpenID Connect Registration §2). */
  readonly signingAlgorithms: readonly string[]
  readonly authorizationEndpoint: string | undefined
  readonly endSessionEndpoint: string | undefined
  readonly revocationEndpoint: string | undefined
  /** RFC 9126 §5. */
  readonly pushedRequestEndpoint: string | undefined
  /** RFC 9449 §5.1. */
  readonly proofSigningAlgorithms: readonly string[] | undefined
  /** How clients may authenticate at the token endpoint; undefined where the metadata does not say. */
  readonly clientAuthMethods: readonly string[] | undefined
  /** All of it, as it was read. */
  readonly document: Readonly<Record<string, unknown>>
}

/** The client at one discovered provider: each method is one request, and rejects with what openid-client throws. */
export type DiscoveredClient = {
  readonly metadata: ProviderMetadata
  authorizationUrl(parameters: Parameters): URL
  /** RFC 9126. */
  pushedAuthorizationUrl(parameters: Parameters): Promise<URL>
  /** RFC 6749 §4.1.3, after the checks of the authorization response `callback`. */
  codeGrant(callback: URL, checks: AuthorizationChecks, parameters: Parameters): Promise<SoundAnswer>
  /** RFC 6749 §6. */
  refreshGrant(refreshToken: string, parameters: Parameters): Promise<SoundAnswer>
  /** RFC 6749 §4.4. */
  clientCredentialsGrant(parameters: Parameters): Promise<SoundAnswer>
  /** RFC 6749 §4.5. */
  extensionGrant(grantType: string, parameters: Parameters): Promise<SoundAnswer>
  /** RFC 7009. */
  revoke(refreshToken: string): Promise<void>
  /** OpenID Connect Core §5.3, after the check of `sub`; `signed` is the JWT of an answer that is one, unverified. */
  userInfo(
    request: UserInfoRequest,
  ): Promise<{ readonly claims: UserClaims; readonly signed: string | undefined }>
}

export type UserInfoRequest = {
  readonly accessToken: string
  readonly subject: string
  /** Of the possession of the key that the token is bound to (RFC 9449 §7.1). */
  readonly proof?: { for(url: string): string; learn(url: string, nonce: unknown): boolean } | undefined
}

export type DiscoveryDeps = {
  readonly provider: ProviderConfig
  readonly client: ClientAuthenticator
  readonly providerFetch: Pick<ProviderFetch, 'fetch'>
}

/** RFC 7636 §4.2, method S256. */
export function codeChallengeOf(codeVerifier: string): Promise<string> {
  return oidc.calculatePKCECodeChallenge(codeVerifier)
}

/**
 * Discovers the provider, or takes it from the configuration where that names all endpoints. The only file that imports
 * openid-client. Throws a plain Error for endpoints that must not be used, and what openid-client throws.
 */
export async function discoverClient(deps: DiscoveryDeps): Promise<DiscoveredClient> {
  const config = await discoveredConfiguration(deps)
  const metadata = config.serverMetadata()
  return {
    metadata: {
      issuer: metadata.issuer,
      hasIssParameter: metadata.authorization_response_iss_parameter_supported === true,
      responseSigningAlgorithms: metadata.authorization_signing_alg_values_supported,
      jwksUri: metadata.jwks_uri,
      signingAlgorithms: metadata.id_token_signing_alg_values_supported ?? ['RS256'],
      authorizationEndpoint: metadata.authorization_endpoint,
      endSessionEndpoint: metadata.end_session_endpoint,
      revocationEndpoint: metadata.revocation_endpoint,
      pushedRequestEndpoint: metadata.pushed_authorization_request_endpoint,
      proofSigningAlgorithms: metadata.dpop_signing_alg_values_supported,
      clientAuthMethods: metadata.token_endpoint_auth_methods_supported,
      document: metadata,
    },
    authorizationUrl: (parameters) => oidc.buildAuthorizationUrl(config, formOf(parameters)),
    pushedAuthorizationUrl: (parameters) => oidc.buildAuthorizationUrlWithPAR(config, formOf(parameters)),
    codeGrant: (callback, { state, nonce, codeVerifier, maxAge }, parameters) =>
      oidc.authorizationCodeGrant(
        config,
        callback,
        {
          expectedState: state,
          expectedNonce: nonce,
          maxAge,
          pkceCodeVerifier: codeVerifier,
          idTokenExpected: true,
        },
        formOf(parameters),
      ),
    refreshGrant: (refreshToken, parameters) =>
      oidc.refreshTokenGrant(config, refreshToken, formOf(parameters)),
    clientCredentialsGrant: (parameters) => oidc.clientCredentialsGrant(config, formOf(parameters)),
    extensionGrant: (grantType, parameters) =>
      oidc.genericGrantRequest(config, grantType, formOf(parameters)),
    revoke: (refreshToken) => revokeToken(deps, config, refreshToken),
    userInfo: (request) => userInfoRequest(deps, config, request),
  }
}

function formOf(parameters: Parameters): URLSearchParams {
  return new URLSearchParams(parameters.map(([name, value]) => [name, value]))
}

/** Algorithms that an ID token may be signed with when no discovery document says which. */
const ACCEPTED_SIGNING_ALGORITHMS = [
  ...['RS256', 'PS256', 'ES256', 'ES384', 'PS384', 'RS384', 'EdDSA', 'Ed25519'],
]

async function discoveredConfiguration({
  provider,
  client: authenticator,
  providerFetch,
}: DiscoveryDeps): Promise<oidc.Configuration> {
  const { issuer, endpoints = {}, clientId, timeoutMs } = provider
  const auth: oidc.ClientAuth = authenticator.authenticate
  const client = { ...mtlsOf(provider), [oidc.clockTolerance]: provider.clockToleranceMs / 1000 }
  const customFetch = providerFetch.fetch as oidc.CustomFetch
  const options = {
    // The library allows plain http for all endpoints or for none; `requireNamedHosts` checks endpoint by endpoint.
    execute: issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : [],
    timeout: timeoutMs / 1000,
    [oidc.customFetch]: customFetch,
  }
  const discover = (from: URL, fetch: oidc.CustomFetch) =>
    oidc.discovery(from, clientId, client, auth, { ...options, [oidc.customFetch]: fetch })
  const { location, fetch } = isSharedAuthority(issuer)
    ? atLargestCloud(new URL(issuer), customFetch)
    : { location: new URL(issuer), fetch: customFetch }
  const isComplete = endpoints.authorization && endpoints.token && endpoints.jwks
  const discovered = isComplete
    ? { issuer, id_token_signing_alg_values_supported: ACCEPTED_SIGNING_ALGORITHMS }
    : await discover(location, fetch)
  const known = discovered instanceof oidc.Configuration ? discovered.serverMetadata() : discovered
  const configured = endpointMetadata(endpoints)
  const server = withConfigured(known as oidc.ServerMetadata, configured)
  const insecure = insecureEndpoints({
    ...server,
    ...(client.use_mtls_endpoint_aliases ? aliasesOf(server) : {}),
  })
  requireNamedHosts(insecure, { configured, provider })
  // Without enableNonRepudiationChecks, whose choice of key fails for sets that RFC 7517 allows: key-set.ts verifies.
  const config =
    discovered instanceof oidc.Configuration && Object.keys(configured).length === 0
      ? discovered
      : server.issuer.includes(TENANT)
        ? await discover(new URL(LARGEST_CLOUD), async () => Response.json(server))
        : new oidc.Configuration(server, clientId, client, auth)
  config.timeout = options.timeout
  config[oidc.customFetch] = customFetch
  if (insecure.length > 0) oidc.allowInsecureRequests(config)
  return config
}

/**
 * RFC 8705 §5: a client that proves itself by its TLS certificate calls the endpoints that ask for one. An alias yields to
 * what the operator has configured.
 */
function mtlsOf({ clientAuth }: Pick<ProviderConfig, 'clientAuth'>): { use_mtls_endpoint_aliases?: true } {
  return clientAuth.method === 'tls_client_auth' ? { use_mtls_endpoint_aliases: true } : {}
}

function withConfigured(
  known: oidc.ServerMetadata,
  configured: Readonly<Record<string, string>>,
): oidc.ServerMetadata {
  const aliases = Object.entries(known.mtls_endpoint_aliases ?? {})
  const left = aliases.filter(([name]) => !Object.hasOwn(configured, name))
  return { ...known, ...configured, mtls_endpoint_aliases: Object.fromEntries(left) }
}

/** Makes the client's way to authenticate. Secrets are revealed at each use, so that a rotated file takes effect. */
export function createClientAuthenticator(
  { clientAuth: auth }: Pick<ProviderConfig, 'clientAuth'>,
  deps: CertificatesDeps,
): ClientAuthenticator {
  const { method } = auth
  const facts = () => ({ clientAuth: method })
  switch (auth.method) {
    case 'client_secret_basic':
    case 'client_secret_post': {
      const current = () => auth.secret.reveal()
      const by = auth.method === 'client_secret_basic' ? basic : oidc.ClientSecretPost
      return { method, facts, current, authenticate: (...request) => by(current())(...request) }
    }
    case 'tls_client_auth':
      return { method, facts, current: () => undefined, authenticate: oidc.TlsClientAuth() }
    case 'none':
      return { method, facts, current: () => undefined, authenticate: oidc.None() }
    default:
      return createClientAssertion(auth, deps)
  }
}

/**
 * RFC 6749 §2.3.1: id and secret are encoded as application/x-www-form-urlencoded does (appendix B). openid-client encodes
 * `-`, `.` and `_` too, which some providers do not decode.
 */
function basic(secret: string): oidc.ClientAuth {
  return (_server, { client_id: clientId }, _body, headers) => {
    const credentials = `${formEncoded(clientId)}:${formEncoded(secret)}`
    headers.set('authorization', `Basic ${Buffer.from(credentials).toString('base64')}`)
  }
}

function formEncoded(text: string): string {
  return new URLSearchParams([['', text]]).toString().slice(1)
}

/** OpenID Connect Core §5.3.1 and §5.3.2: the token in the header, and the answer in JSON or as a signed JWT. */
async function userInfoRequest(
  { provider, client, providerFetch }: DiscoveryDeps,
  config: oidc.Configuration,
  { accessToken, subject, proof }: UserInfoRequest,
) {
  const metadata: oidc.ServerMetadata = config.serverMetadata()
  const { userinfo_signing_alg_values_supported: algorithms = ACCEPTED_SIGNING_ALGORITHMS } = metadata
  const by = new oidc.Configuration(
    { ...metadata, userinfo_signing_alg_values_supported: algorithms },
    provider.clientId,
    { ...mtlsOf(provider), [oidc.clockTolerance]: provider.clockToleranceMs / 1000 },
    client.authenticate,
  )
  let signed: string | undefined
  by.timeout = config.timeout
  by[oidc.customFetch] = async (url, options) => {
    const headers = (): Record<string, string> => ({
      ...options.headers,
      ...(proof ? { authorization: `DPoP ${accessToken}`, dpop: proof.for(url) } : {}),
    })
    let answer = await providerFetch.fetch(url, { ...options, headers: headers() })
    const hasNonce = proof?.learn(url, answer.headers.get('dpop-nonce'))
    // RFC 9449 §9: once more, with the nonce that the refusal brought.
    if (hasNonce && answer.status === 401) {
      answer = await providerFetch.fetch(url, { ...options, headers: headers() })
    }
    const isJwt = /^application\/jwt\b/i.test(answer.headers.get('content-type') ?? '')
    if (isJwt) signed = await answer.clone().text()
    return answer
  }
  if (metadata.userinfo_endpoint?.startsWith('http:')) oidc.allowInsecureRequests(by)
  return { claims: (await oidc.fetchUserInfo(by, accessToken, subject)) as UserClaims, signed }
}

/**
 * RFC 7009 §2.1. A revocation endpoint need not take what the token endpoint takes:
 * `revocation_endpoint_auth_methods_supported` says what it does. After a refusal of the client the next way is tried.
 */
async function revokeToken(
  { provider, client }: DiscoveryDeps,
  config: oidc.Configuration,
  refreshToken: string,
): Promise<void> {
  const metadata = config.serverMetadata()
  const ways = revocationWays(provider, client, metadata.revocation_endpoint_auth_methods_supported)
  for (const [index, { authenticate }] of ways.entries()) {
    const by = new oidc.Configuration(metadata, provider.clientId, mtlsOf(provider), authenticate)
    by.timeout = config.timeout
    by[oidc.customFetch] = config[oidc.customFetch] as oidc.CustomFetch
    if (metadata.revocation_endpoint?.startsWith('http:')) oidc.allowInsecureRequests(by)
    try {
      return await oidc.tokenRevocation(by, refreshToken, { token_type_hint: 'refresh_token' })
    } catch (error) {
      const { status, error: oauthError } = error as { status?: unknown; error?: unknown }
      const isOfClient = status === 401 || oauthError === 'invalid_client'
      if (!isOfClient || index === ways.length - 1) throw error
    }
  }
}

type AuthenticationWay = Pick<ClientAuthenticator, 'method' | 'authenticate'>

/**
 * How the client may authenticate at the revocation endpoint, best first. RFC 8414 §2: it takes Basic if its metadata
 * does not say; where there is no metadata, what the token endpoint takes is the better guess.
 */
function revocationWays(
  { clientAuth, endpoints = {} }: ProviderConfig,
  own: AuthenticationWay,
  named: readonly string[] | undefined,
): AuthenticationWay[] {
  // A client that signs with its secret does so in order not to send it.
  const isSent = clientAuth.method === 'client_secret_basic' || clientAuth.method === 'client_secret_post'
  const secret = isSent ? clientAuth.secret : undefined
  // Some servers insist on Basic from a client without a secret too, and take any text for it.
  const reveal = () => secret?.reveal() ?? 'none'
  const withSecret: AuthenticationWay[] = [
    { method: 'client_secret_basic', authenticate: (...request) => basic(reveal())(...request) },
    {
      method: 'client_secret_post',
      authenticate: (...request) => oidc.ClientSecretPost(reveal())(...request),
    },
    { method: 'client_secret_jwt', authenticate: (...request) => oidc.ClientSecretJwt(reveal())(...request) },
  ]
  const others = secret ? withSecret : withSecret.slice(0, clientAuth.method === 'none' ? 1 : 0)
  const ways = [own, ...others.filter(({ method }) => method !== own.method)]
  const byDefault = secret && !endpoints.revocation ? 'client_secret_basic' : own.method
  const supported = named ?? [byDefault]
  const isNamed = ({ method }: AuthenticationWay) => supported.includes(method)
  const known = ways.filter(isNamed)
  if (named) return known.length > 0 ? known : [own]
  return [...known, ...ways.filter((way) => !isNamed(way) && way.method !== 'client_secret_jwt')]
}

const LIFE_MS = 3_600_000
const RETRY_MIN_MS = 500
const RETRY_MAX_MS = 30_000

/**
 * Discovers on first use and again every hour. A client that was discovered once stays: a later failure leaves the last
 * good one in use. Failures are repeated to callers for 0.5 s, doubling to 30 s, before the next attempt.
 */
export function createRefreshedClient<Client = DiscoveredClient>(
  discover: () => Promise<Client>,
  monotonicNow: () => number,
): () => Promise<Client> {
  let current: { client: Client; until: number } | undefined
  let failed: { error: unknown; until: number; waitMs: number } | undefined

  const discoverOnce = singleFlight(async () => {
    try {
      const client = await discover()
      current = { client, until: monotonicNow() + LIFE_MS }
      failed = undefined
      return client
    } catch (error) {
      const waitMs = failed ? Math.min(failed.waitMs * 2, RETRY_MAX_MS) : RETRY_MIN_MS
      failed = { error, until: monotonicNow() + waitMs, waitMs }
      throw error
    }
  })

  return async function refreshedClient() {
    const isBackingOff = failed !== undefined && monotonicNow() < failed.until
    if (current) {
      if (monotonicNow() >= current.until && !isBackingOff) discoverOnce().catch(() => undefined)
      return current.client
    }
    if (isBackingOff) throw failed?.error
    return discoverOnce()
  }
}
