import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import {
  type AuthorizedGrant,
  createAuthorizationEndpoint,
  type createCodes,
} from '../../../src/demo/scripted/authorization-endpoint.ts'
import { basicCredentials, checkClient } from '../../../src/demo/scripted/client-check.ts'
import { opaque, type Signer } from '../../../src/demo/scripted/signing.ts'
import {
  field,
  type RecordedRequest,
  sendHtml,
  sendJson,
  sendText,
  startLocalServer,
} from '../local-server.ts'
import { endSession } from './end-session.ts'
import { formSignIn } from './form-sign-in.ts'
import { createProviderState, endpointsAt, type ProviderSettings } from './provider-settings.ts'

/** The switches of a running provider; change them at any time. */
export type SeedControl = {
  interactive: boolean
  user: string
  accessTokenSeconds: number
  /** A blocked user's token request gets an error screen: HTML, with `blockedStatus`. */
  blocked: boolean
  blockedStatus: number
}

/** A running identity suite: opaque rotating refresh tokens, revocation with Basic authentication. */
export type SeedProvider = {
  readonly origin: string
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  readonly endpoints: Record<'authorization' | 'token' | 'jwks' | 'revocation' | 'endSession', string>
  /** For `provider:`, discovery by issuer, resources named by `audience`. */
  readonly settings: ProviderSettings
  readonly control: SeedControl
  readonly requests: RecordedRequest[]
  tokenRequests(): RecordedRequest[]
  /** Tokens that were revoked, in order. */
  readonly revoked: string[]
  readonly issuedSecrets: string[]
  readonly violations: string[]
  readonly signer: Signer
  close(): Promise<void>
}

const PATHS = {
  authorization: '/auth/oauth/authorize',
  token: '/auth/oauth/token',
  jwks: '/auth/oauth/jwks',
  revocation: '/auth/oauth2/revoke',
  endSession: '/auth/oauth/logout',
}

type State = {
  readonly refreshTokens: Map<string, AuthorizedGrant>
  readonly accessTokens: Set<string>
  readonly revoked: string[]
}

/** Starts a provider whose token endpoint is `/auth/oauth/token` and whose revocation endpoint is `/auth/oauth2/revoke`. */
export async function startSeedProvider(
  /** `clientSecret: ''` makes a public client. */
  options: { clientId?: string; clientSecret?: string; control?: Partial<SeedControl> } = {},
): Promise<SeedProvider> {
  const clientId = options.clientId ?? 'dbd00f622a1f805f'
  const clientSecret = options.clientSecret ?? 'client_secret_here'
  const control: SeedControl = {
    ...{ interactive: false, user: 'alice', accessTokenSeconds: 3600, blocked: false, blockedStatus: 403 },
    ...options.control,
  }
  const { signer, codes, issuedSecrets, violations, issue } = await createProviderState()
  const state: State = { refreshTokens: new Map(), accessTokens: new Set(), revoked: [] }
  const server = await startLocalServer((request, res) => route(request, res))
  const issuer = `${server.origin}/auth`
  const endpoints = endpointsAt(server.origin, PATHS)
  const authorize = createAuthorizationEndpoint({
    clientId,
    signIn: formSignIn({ interactive: () => control.interactive, user: () => control.user }),
    issueCode: (grant) => codes.issue(issue(opaque('')), grant),
    violation: (text) => violations.push(text),
  })
  const tokenDeps = { clientId, clientSecret, control, signer, codes, state, issue, issuer, endpoints }

  function route(request: RecordedRequest, res: ServerResponse) {
    if (request.path === PATHS.token) return answerToken(tokenDeps, request, res)
    if (request.path === PATHS.revocation) return revoke(tokenDeps, request, res)
    if (request.path === PATHS.authorization) return authorize(request, res)
    if (request.path === PATHS.endSession) return endSession(request, res)
    if (request.path === PATHS.jwks) return sendJson(res, 200, signer.jwks())
    if (request.path === '/auth/.well-known/openid-configuration')
      return sendJson(res, 200, discoveryDocument(issuer, endpoints))
    sendText(res, 404, 'not found')
  }

  return {
    ...{ origin: server.origin, issuer, clientId, clientSecret, endpoints, control, signer },
    settings: {
      ...{ issuer, clientId, resourceDialect: 'audience' },
      clientAuth: { method: 'client_secret_post', secret: clientSecret },
      scopes: ['openid', 'offline_access'],
    },
    requests: server.requests,
    tokenRequests: () => server.requests.filter((request) => request.path === PATHS.token),
    ...{ revoked: state.revoked, issuedSecrets, violations, close: server.close },
  }
}

type TokenDeps = {
  readonly clientId: string
  readonly clientSecret: string
  readonly control: SeedControl
  readonly signer: Signer
  readonly codes: ReturnType<typeof createCodes>
  readonly state: State
  readonly issue: (secret: string) => string
  readonly issuer: string
  readonly endpoints: SeedProvider['endpoints']
}

async function answerToken(deps: TokenDeps, request: RecordedRequest, res: ServerResponse) {
  const { form } = request
  const check = await checkClient(request, deps, [deps.endpoints.token])
  if (check !== 'ok') return sendJson(res, 401, { error: 'invalid_client' })
  if (deps.control.blocked)
    return sendHtml(res, deps.control.blockedStatus, '<h1>Your account is blocked</h1>')
  if (field(form, 'grant_type') === 'refresh_token') {
    const presented = field(form, 'refresh_token') ?? ''
    const grant = deps.state.refreshTokens.get(presented)
    if (!grant) return sendJson(res, 400, { error: 'invalid_grant' })
    deps.state.refreshTokens.delete(presented)
    return sendJson(res, 200, await issueTokens(deps, form, grant, false))
  }
  const redeemed = deps.codes.redeem(form)
  if (typeof redeemed === 'string') return sendJson(res, 400, { error: 'invalid_grant' })
  sendJson(res, 200, await issueTokens(deps, form, redeemed, true))
}

async function issueTokens(
  deps: TokenDeps,
  form: [string, string][],
  grant: AuthorizedGrant,
  withNonce: boolean,
): Promise<object> {
  const now = Math.floor(Date.now() / 1000)
  const common = { iss: deps.issuer, sub: grant.user, iat: now, jti: randomUUID() }
  const exp = now + deps.control.accessTokenSeconds
  const aud = field(form, 'audience') ?? field(form, 'resource') ?? grant.audience ?? 'urn:suite:api'
  const accessToken = deps.issue(await deps.signer.sign({ ...common, aud, exp }))
  deps.state.accessTokens.add(accessToken)
  const refreshToken = grant.scopes.includes('offline_access') ? deps.issue(opaque('Z1FiWXJZV2')) : undefined
  if (refreshToken) deps.state.refreshTokens.set(refreshToken, grant)
  const nonce = withNonce && grant.nonce !== undefined ? { nonce: grant.nonce } : {}
  const idClaims = { ...common, aud: deps.clientId, exp: now + 300, ...nonce }
  return {
    access_token: accessToken,
    ...(refreshToken ? { refresh_token: refreshToken } : {}),
    ...(grant.scopes.includes('openid') ? { id_token: deps.issue(await deps.signer.sign(idClaims)) } : {}),
    token_type: 'Bearer',
    expires_in: deps.control.accessTokenSeconds,
  }
}

/** Only Basic authentication is accepted here, with any secret of a client that has none, and only this client's tokens are known. */
function revoke(deps: TokenDeps, request: RecordedRequest, res: ServerResponse) {
  const given = basicCredentials(request)
  const isRightSecret = deps.clientSecret === '' || given?.secret === deps.clientSecret
  if (given?.id !== deps.clientId || !isRightSecret)
    return sendJson(res, 401, { error: 'invalid_client' }, { 'www-authenticate': 'Basic realm="suite"' })
  const token = field(request.form, 'token') ?? ''
  const known = deps.state.refreshTokens.delete(token) || deps.state.accessTokens.delete(token)
  if (!known) return sendJson(res, 400, { error: 'invalid_request' })
  deps.state.revoked.push(token)
  res.writeHead(200).end()
}

function discoveryDocument(issuer: string, endpoints: SeedProvider['endpoints']): object {
  return {
    issuer,
    authorization_endpoint: endpoints.authorization,
    token_endpoint: endpoints.token,
    jwks_uri: endpoints.jwks,
    revocation_endpoint: endpoints.revocation,
    revocation_endpoint_auth_methods_supported: ['client_secret_basic'],
    end_session_endpoint: endpoints.endSession,
    response_types_supported: ['code'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
    token_endpoint_auth_methods_supported: ['client_secret_post', 'client_secret_basic'],
  }
}
