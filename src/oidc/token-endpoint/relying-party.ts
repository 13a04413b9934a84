import * as oidc from 'openid-client'
import type { ClientAuthConfig, ProviderConfig } from '../../config/config.ts'
import { BffError, withLogged } from '../../errors.ts'
import type { Parameters } from '../grants/dialects.ts'
import { ACCEPTED_SIGNING_ALGORITHMS, endpointMetadata } from './configured-metadata.ts'
import type { AuthorizationChecks, FailedGrant, GrantedTokens } from './grant-types.ts'
import { privateKeyFromPem } from './jwt.ts'
import { createProviderKeys } from './key-set.ts'
import type { ProviderGate } from './limiter.ts'
import {
  failedCall,
  failedDiscovery,
  failedPush,
  failedSignIn,
  findingOf,
  refusalOf,
} from './provider-errors.ts'
import { createRefreshedSource } from './refreshed-source.ts'
import type { ProviderFetch, TokenAnswer } from './token-answer.ts'
import { createTokenCall } from './token-requests.ts'

/** One OpenID Provider as seen by its Relying Party: each call is one request of OpenID Connect or OAuth 2.0. */
export type RelyingParty = {
  /** Resolves when the provider's endpoints are known. */
  ready(): Promise<void>
  /** OpenID Connect Core §3.1.2.1, PKCE S256; pushed first (RFC 9126) when the provider takes that. */
  authorizationUrl(checks: AuthorizationChecks, parameters: Parameters): Promise<URL>
  /** Checks the authorization response, redeems the code, verifies the ID token with its signature. */
  codeGrant(callback: URL, checks: AuthorizationChecks, parameters: Parameters): Promise<GrantedTokens>
  /** RFC 6749 §6. `keep` gets a rotated refresh token first; a bad ID token, of which it is told, is left out. */
  refreshGrant(
    refreshToken: string,
    parameters: Parameters,
    told: { keep(refreshToken: string): Promise<void>; ignoredIdToken(error: unknown): void },
  ): Promise<GrantedTokens | FailedGrant>
  /** RFC 6749 §4.4. */
  clientCredentialsGrant(parameters: Parameters): Promise<GrantedTokens | FailedGrant>
  /** A grant by assertion or token, such as RFC 8693 or RFC 7523 §2.1. */
  tokenExchangeGrant(grantType: string, parameters: Parameters): Promise<GrantedTokens | FailedGrant>
  /** RFC 7009. Resolves false when the provider has no revocation endpoint. */
  revoke(refreshToken: string): Promise<boolean>
  /** The end-session endpoint (RP-Initiated Logout 1.0 §2.1); undefined when the provider has none. */
  endSessionEndpoint(): Promise<string | undefined>
}

export type RelyingPartyDeps = {
  readonly provider: ProviderConfig
  readonly redirectUri: string
  readonly providerFetch: ProviderFetch
  /** Every grant and pushed request goes through it; revocation and discovery do not. */
  readonly gate: Pick<ProviderGate, 'call'>
  readonly now: () => number
  readonly monotonicNow: () => number
  /** Told how each attempt at discovery ended. */
  readonly discovered?: (error?: BffError) => void
}

/** The door to openid-client: its words and errors end here. Every method rejects with BffError only. */
export function createRelyingParty(deps: RelyingPartyDeps): RelyingParty {
  const { provider, redirectUri } = deps
  const { monotonicNow } = deps
  const configuration = createRefreshedSource(() => toldDiscovery(deps), monotonicNow)
  const keys = createProviderKeys({ read: (jwksUri) => readKeys(deps, jwksUri), monotonicNow })

  const { clientId, clientAuth, clockToleranceMs } = provider
  const grant = createTokenCall({
    ...deps,
    ...{ clientId, clockToleranceMs, configuration },
    requireSigned: (idToken, config) => keys.requireSigned(idToken, config.serverMetadata().jwks_uri),
    credential: () => credentialOf(clientAuth),
  })

  return {
    async ready() {
      await configuration()
    },

    async authorizationUrl({ state, nonce, codeVerifier }, parameters) {
      const search = formOf([
        ...parameters,
        ['redirect_uri', redirectUri],
        ['state', state],
        ['nonce', nonce],
        ['code_challenge', await oidc.calculatePKCECodeChallenge(codeVerifier)],
        ['code_challenge_method', 'S256'],
      ])
      const config = await configuration()
      try {
        return isPushed(provider, config)
          ? await push(deps, config, search)
          : oidc.buildAuthorizationUrl(config, search)
      } catch (error) {
        throw failedCall(error, undefined)
      }
    },

    async codeGrant(callback, { state, nonce, codeVerifier, maxAge }, parameters) {
      requireCode(callback)
      const checks = {
        expectedState: state,
        expectedNonce: nonce,
        maxAge,
        pkceCodeVerifier: codeVerifier,
        idTokenExpected: true,
      }
      const send = (config: oidc.Configuration) =>
        oidc.authorizationCodeGrant(config, callback, checks, formOf(parameters))
      const failed = (error: unknown, answer?: TokenAnswer): never => {
        throw withRedirectError(failedSignIn(error, answer), callback.searchParams)
      }
      // Without a code there is nothing to ask the provider, which may be left alone just now.
      if (!callback.searchParams.has('code')) await configuration().then(send).catch(failed)
      return grant('authorization_code', send, { failed })
    },

    async refreshGrant(refreshToken, parameters, { keep, ignoredIdToken }) {
      return grant(
        'refresh_token',
        (config) => oidc.refreshTokenGrant(config, refreshToken, formOf(parameters)),
        {
          async answer({ status, body }) {
            const rotated = status === 200 ? body?.refresh_token : undefined
            if (typeof rotated === 'string' && rotated !== refreshToken) await keep(rotated)
          },
          ...{ failed: failedGrant, holder: refreshToken, ignoredIdToken },
        },
      )
    },

    async clientCredentialsGrant(parameters) {
      const send = (config: oidc.Configuration) => oidc.clientCredentialsGrant(config, formOf(parameters))
      return grant('client_credentials', send, { failed: failedGrant })
    },

    async tokenExchangeGrant(grantType, parameters) {
      const send = (config: oidc.Configuration) =>
        oidc.genericGrantRequest(config, grantType, formOf(parameters))
      return grant('token_exchange', send, { failed: failedGrant })
    },

    async revoke(refreshToken) {
      try {
        const config = await configuration()
        if (!config.serverMetadata().revocation_endpoint) return false
        await revokeToken(provider, config, refreshToken)
        return true
      } catch (error) {
        throw failedCall(error, undefined)
      }
    },

    async endSessionEndpoint() {
      return (await configuration()).serverMetadata().end_session_endpoint
    },
  }
}

function failedGrant(error: unknown, answer: TokenAnswer | undefined, wasSent: boolean): FailedGrant {
  return { error: failedCall(error, answer), answer, wasSent }
}

/** A response that breaks a rule may all the same say what the provider had to say, such as an error without `iss`. */
function withRedirectError(problem: BffError, parameters: URLSearchParams): BffError {
  if (problem.logged?.step !== 'authorization' || !parameters.has('error')) return problem
  return withLogged(problem, refusalOf({ body: Object.fromEntries(parameters) }))
}

/** RFC 6749 appendix A.11: printable ASCII. Somebody made up anything else, and providers fail at it in many ways. */
function requireCode(callback: URL): void {
  const codes = callback.searchParams.getAll('code')
  if (codes.every((code) => /^[\x20-\x7e]*$/.test(code))) return
  throw new BffError('invalid_callback', 'the code of the response holds what no code may', {
    logged: { step: 'authorization' },
  })
}

/** RFC 9126, through a gate of its own: anybody can make us push. */
async function push(
  { gate, providerFetch }: RelyingPartyDeps,
  config: oidc.Configuration,
  search: URLSearchParams,
): Promise<URL> {
  let answer: TokenAnswer | undefined
  const watch = {
    answer(seen: TokenAnswer) {
      answer = seen
    },
  }
  const send = () => providerFetch.watching(watch, () => oidc.buildAuthorizationUrlWithPAR(config, search))
  try {
    return await gate.call('pushed_authorization', send, (error) => findingOf(error, answer))
  } catch (error) {
    throw failedPush(error, answer)
  }
}

/** RFC 7517 §8.5. */
function readKeys({ provider, providerFetch }: RelyingPartyDeps, jwksUri: string): Promise<Response> {
  return providerFetch.fetch(jwksUri, {
    method: 'GET',
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'manual',
    signal: AbortSignal.timeout(provider.timeoutMs),
  })
}

/** Discovery; rejects with BffError, and tells how it ended. */
async function toldDiscovery(deps: RelyingPartyDeps): Promise<oidc.Configuration> {
  try {
    const config = await discover(deps)
    deps.discovered?.()
    return config
  } catch (error) {
    const problem = failedDiscovery(error, deps.now())
    deps.discovered?.(problem)
    throw problem
  }
}

function formOf(parameters: Parameters): URLSearchParams {
  return new URLSearchParams(parameters.map(([name, value]) => [name, value]))
}

function isPushed({ par }: ProviderConfig, config: oidc.Configuration): boolean {
  const offered = config.serverMetadata().pushed_authorization_request_endpoint !== undefined
  if (par === 'required' && !offered) {
    throw new BffError('provider_rejected', 'the authorization server takes no pushed authorization requests')
  }
  return offered && par !== 'off'
}

async function discover({ provider, providerFetch }: RelyingPartyDeps): Promise<oidc.Configuration> {
  const { issuer, endpoints = {}, clientId, timeoutMs } = provider
  const auth = clientAuthentication(provider.clientAuth)
  const client = { [oidc.clockTolerance]: provider.clockToleranceMs / 1000 }
  const customFetch = providerFetch.fetch as oidc.CustomFetch
  const options = {
    // What of it may be plain http is checked endpoint by endpoint below; the library knows all or none.
    execute: issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : [],
    timeout: timeoutMs / 1000,
    [oidc.customFetch]: customFetch,
  }
  const isComplete = endpoints.authorization && endpoints.token && endpoints.jwks
  const discovered = isComplete
    ? { issuer, id_token_signing_alg_values_supported: ACCEPTED_SIGNING_ALGORITHMS }
    : await oidc.discovery(new URL(issuer), clientId, client, auth, options)
  const known = discovered instanceof oidc.Configuration ? discovered.serverMetadata() : discovered
  const configured = endpointMetadata(endpoints)
  const insecure = insecureEndpoints({ ...known, ...configured })
  requireNamedHosts(insecure, { configured, provider })
  // No enableNonRepudiationChecks: its choice of key fails for sets that RFC 7517 allows. `requireSigned` checks instead.
  const config =
    discovered instanceof oidc.Configuration && Object.keys(configured).length === 0
      ? discovered
      : new oidc.Configuration({ ...known, ...configured }, clientId, client, auth)
  config.timeout = options.timeout
  config[oidc.customFetch] = customFetch
  if (insecure.length > 0) oidc.allowInsecureRequests(config)
  return config
}

/** Endpoints that we, or the browser on our behalf, send secrets or codes to. */
const ENDPOINTS = [
  ...['authorization_endpoint', 'token_endpoint', 'jwks_uri', 'revocation_endpoint', 'end_session_endpoint'],
  ...['userinfo_endpoint', 'pushed_authorization_request_endpoint'],
]

/** Those of them that are not https. */
function insecureEndpoints(metadata: Readonly<Record<string, unknown>>): { name: string; url: URL }[] {
  return ENDPOINTS.flatMap((name) => {
    const value = metadata[name]
    if (value === undefined) return []
    const url = typeof value === 'string' && URL.canParse(value) ? new URL(value) : undefined
    if (!url) throw new Error(`the discovery document has no URL for ${name}`)
    return url.protocol === 'https:' ? [] : [{ name, url }]
  })
}

/**
 * A provider that is itself spoken to in https names no endpoint in plain http, unless the host is in
 * `provider.insecureHosts`; one on this machine may name others on it. What is configured was checked there.
 */
function requireNamedHosts(
  insecure: readonly { name: string; url: URL }[],
  {
    configured,
    provider: { issuer, insecureHosts },
  }: { configured: Readonly<Record<string, string>>; provider: ProviderConfig },
): void {
  for (const { name, url } of insecure) {
    if (Object.hasOwn(configured, name)) continue
    const isPlain = url.protocol === 'http:'
    const { hostname, host, port } = url
    if (isPlain && [hostname, `${hostname}:${port || '80'}`].some((one) => insecureHosts.includes(one)))
      continue
    if (isPlain && issuer.startsWith('http:') && isThisMachine(hostname)) continue
    throw new Error(
      `the discovery document names ${name} at ${url.origin}, which is not https: ` +
        `correct it at the provider, or allow the host: provider.insecureHosts: [${host}]`,
    )
  }
}

/** RFC 6761 §6.3. */
function isThisMachine(hostname: string): boolean {
  return /^(?:(?:.+\.)?localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(hostname)
}

type Authenticated = { readonly method: string; readonly authenticate: oidc.ClientAuth }

/**
 * RFC 7009 §2.1. A revocation endpoint need not take what the token endpoint takes: `revocation_endpoint_auth_methods_supported`
 * says what it does. What is refused is tried in the next way.
 */
async function revokeToken(
  provider: ProviderConfig,
  config: oidc.Configuration,
  refreshToken: string,
): Promise<void> {
  const metadata = config.serverMetadata()
  const ways = revocationWays(provider, metadata.revocation_endpoint_auth_methods_supported)
  for (const [index, { authenticate }] of ways.entries()) {
    const by = new oidc.Configuration(metadata, provider.clientId, undefined, authenticate)
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

/**
 * How the client may authenticate at the revocation endpoint, best first. RFC 8414 §2: it takes Basic if its metadata
 * does not say; where there is no metadata, what the token endpoint takes is the better guess.
 */
function revocationWays(
  { clientAuth, endpoints = {} }: ProviderConfig,
  named: readonly string[] | undefined,
): Authenticated[] {
  const own = { method: clientAuth.method, authenticate: clientAuthentication(clientAuth) }
  const secret = 'secret' in clientAuth ? clientAuth.secret : undefined
  // Some servers insist on Basic from a client without a secret too, and take any text for it.
  const reveal = () => secret?.reveal() ?? 'none'
  const withSecret: Authenticated[] = [
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
  const isNamed = ({ method }: Authenticated) => supported.includes(method)
  const known = ways.filter(isNamed)
  if (named) return known.length > 0 ? known : [own]
  return [...known, ...ways.filter((way) => !isNamed(way) && way.method !== 'client_secret_jwt')]
}

function credentialOf(auth: ClientAuthConfig): string | undefined {
  if (auth.method === 'none') return undefined
  return auth.method === 'private_key_jwt' ? auth.key.reveal() : auth.secret.reveal()
}

/** Secrets are revealed at each use, so that a rotated file takes effect without a restart. */
function clientAuthentication(auth: ClientAuthConfig): oidc.ClientAuth {
  switch (auth.method) {
    case 'client_secret_basic':
      return (...request) => basic(auth.secret.reveal())(...request)
    case 'client_secret_post':
      return (...request) => oidc.ClientSecretPost(auth.secret.reveal())(...request)
    case 'private_key_jwt':
      return async (...request) => {
        const key = await privateKeyFromPem(auth.key.reveal(), auth.algorithm)
        return oidc.PrivateKeyJwt({ key, kid: auth.keyId })(...request)
      }
    case 'none':
      return oidc.None()
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
