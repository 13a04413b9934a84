import type { ServerResponse } from 'node:http'
import {
  type AuthorizationError,
  createAuthorizationEndpoint,
  type ResponseParameters,
} from '../../../src/demo/scripted/authorization-endpoint.ts'
import { opaque, type Signer } from '../../../src/demo/scripted/signing.ts'
import { type RecordedRequest, sendJson, sendText, startLocalServer } from '../local-server.ts'
import { endSession } from './end-session.ts'
import { formSignIn } from './form-sign-in.ts'
import { createProviderState, endpointsAt, type ProviderSettings } from './provider-settings.ts'
import { createRotatingTokens, type RotatingCounters } from './rotating-tokens.ts'

/** The switches of a running provider; change them at any time. */
export type RotatingControl = {
  /** Show a sign-in form. */
  interactive: boolean
  /** Who is signed in when no form is shown. */
  user: string
  /** Life of new access tokens in seconds. */
  accessTokenSeconds: number
  /** The token endpoint decides at once and answers after this long. */
  latencyMs: number
  /** In place of `latencyMs` for one request, given its form. */
  latencyFor?: (form: RecordedRequest['form']) => number | undefined
  /** Changes what a successful token request is answered; the tokens in it stay good. */
  editAnswer?: (answer: Record<string, unknown>, leg: 'code' | 'refresh') => void
  /** False: refresh tokens are used again and again, and no new one is sent. */
  rotate: boolean
  /** Spends the refresh token before it looks at the resource, as oidc-provider does. */
  burnOnInvalidTarget: boolean
  /** Resources that refreshes are refused with invalid_target, whatever the sign-in asked for. */
  refusedResources: readonly string[]
  /** Sends an ID token with each refresh when `openid` was granted. */
  idTokenOnRefresh: boolean
  /**
   * What goes wrong at the token endpoint: cut before or after the work is done, or a status instead of an answer
   * (nothing is done then). `times` counts down; always, unless given.
   */
  fault?: {
    kind: 'drop-before' | 'drop-after' | 'status'
    status?: number
    retryAfter?: string
    leg?: 'code' | 'refresh'
    times?: number
  }
  /** Changes the parameters of authorization responses. */
  editResponse?: (answer: ResponseParameters) => ResponseParameters | Promise<ResponseParameters>
  /** Answers authorization requests with this error. */
  authorizationError?: AuthorizationError
  /** Claims added to ID tokens. */
  idTokenClaims: Record<string, unknown>
  /** Makes the ID token in place of the provider: given the claims that it would have had. */
  forgeIdToken?: (
    claims: Record<string, unknown>,
    leg: 'code' | 'refresh',
  ) => string | undefined | Promise<string | undefined>
  /** Answers in place of an endpoint; false leaves it to the provider. */
  intercept?: (request: RecordedRequest, res: ServerResponse) => boolean | Promise<boolean>
  /** Members of the discovery document that differ. */
  metadata: Record<string, unknown>
}

/** How a rotating provider is set up; everything has a default. */
export type RotatingOptions = {
  readonly clientId?: string
  readonly clientSecret?: string
  readonly publicKeyPem?: string
  readonly control?: Partial<RotatingControl>
  readonly port?: number
  /** The address that it listens on; 127.0.0.1 unless given. */
  readonly host?: string
  /** What clients and browsers call it; its address unless given. */
  readonly issuer?: string
  /** Epoch ms. */
  readonly now?: () => number
}

/** A running OpenID Provider with rotation, reuse detection and RFC 8707 audiences. */
export type RotatingProvider = {
  readonly origin: string
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  readonly endpoints: Record<'authorization' | 'token' | 'jwks' | 'revocation' | 'endSession', string>
  /** For `provider:`, discovery by issuer. */
  readonly settings: ProviderSettings
  readonly control: RotatingControl
  readonly counters: RotatingCounters
  readonly requests: RecordedRequest[]
  tokenRequests(): RecordedRequest[]
  /** Tokens handed to the revocation endpoint, in order. */
  readonly revoked: string[]
  readonly endSessions: RecordedRequest[]
  readonly issuedSecrets: string[]
  readonly violations: string[]
  readonly signer: Signer
  /** Whether this refresh token would be accepted now. */
  isRefreshTokenLive(refreshToken: string): boolean
  /** The refresh token that a sign-in of this user would have got. */
  refreshTokenFor(user: string): string
  /** Whose grant a refresh token, also a spent one, belongs to. */
  ownerOf(refreshToken: string | undefined): string | undefined
  /** A logout token for `POST B/backchannel-logout` (OpenID Connect Back-Channel Logout 1.0 §2.4); `claims` override. */
  logoutToken(claims: Record<string, unknown>, header?: Record<string, string>): Promise<string>
  close(): Promise<void>
}

const PATHS = {
  authorization: '/authorize',
  token: '/token',
  jwks: '/jwks',
  revocation: '/revoke',
  endSession: '/end-session',
}

/** Starts a fast provider for race tests: one refresh token used twice ends the whole grant (RFC 9700 §4.14.2). */
export async function startRotatingProvider(options: RotatingOptions = {}): Promise<RotatingProvider> {
  const client = {
    clientId: options.clientId ?? 'shop',
    clientSecret: options.clientSecret ?? 'rotating-client-secret',
    ...(options.publicKeyPem ? { publicKeyPem: options.publicKeyPem } : {}),
  }
  const control = defaultControl(options.control)
  const { signer, codes, issuedSecrets, violations, issue } = await createProviderState()
  const revoked: string[] = []
  const endSessions: RecordedRequest[] = []
  const server = await startLocalServer((request, res) => route(request, res), options.port, options.host)
  const issuer = options.issuer ?? server.origin
  const endpoints = endpointsAt(issuer, PATHS)
  const authorize = createAuthorizationEndpoint({
    clientId: client.clientId,
    signIn: formSignIn({ interactive: () => control.interactive, user: () => control.user }),
    issueCode: (grant) => codes.issue(issue(opaque('code_')), grant),
    // RFC 9207 §2: error responses name the issuer too.
    refuse: () => control.authorizationError && { ...control.authorizationError, iss: issuer },
    extra: () => ({ iss: issuer }),
    violation: (text) => violations.push(text),
    edit: (answer) => control.editResponse?.(answer) ?? answer,
  })
  const now = options.now ?? Date.now
  const tokens = createRotatingTokens({
    ...{ client, control, signer, codes, issue, issuer, violations, revoked, now },
    tokenEndpoint: endpoints.token,
  })

  async function route(request: RecordedRequest, res: ServerResponse) {
    // RFC 9110 §6.6.1: the time by its own clock.
    if (options.now) res.setHeader('date', new Date(now()).toUTCString())
    if (await control.intercept?.(request, res)) return
    if (request.path === PATHS.token) return tokens.token(request, res)
    if (request.path === PATHS.authorization) return authorize(request, res)
    if (request.path === PATHS.revocation) return tokens.revoke(request, res)
    if (request.path === PATHS.jwks) return sendJson(res, 200, signer.jwks())
    if (request.path === PATHS.endSession) {
      endSessions.push(request)
      return endSession(request, res)
    }
    if (request.path === '/.well-known/openid-configuration')
      return sendJson(res, 200, { ...discoveryDocument(issuer, endpoints), ...control.metadata })
    sendText(res, 404, 'not found')
  }

  return {
    ...{ origin: server.origin, issuer, ...client, endpoints, control, counters: tokens.counters },
    ...{ requests: server.requests, revoked, endSessions, issuedSecrets, violations, signer },
    settings: {
      ...{ issuer, clientId: client.clientId, resourceDialect: 'resource-indicator' },
      clientAuth: { method: 'client_secret_post', secret: client.clientSecret },
      scopes: ['openid', 'profile', 'offline_access'],
    },
    tokenRequests: () => server.requests.filter((request) => request.path === PATHS.token),
    isRefreshTokenLive: tokens.isLive,
    ownerOf: tokens.ownerOf,
    refreshTokenFor: tokens.refreshTokenFor,
    logoutToken: (claims, header) => signLogoutToken(signer, issuer, client.clientId, now(), claims, header),
    close: server.close,
  }
}

function defaultControl(given: Partial<RotatingControl> = {}): RotatingControl {
  return {
    interactive: false,
    user: 'alice',
    accessTokenSeconds: 300,
    latencyMs: 0,
    rotate: true,
    burnOnInvalidTarget: true,
    refusedResources: [],
    idTokenOnRefresh: false,
    idTokenClaims: {},
    metadata: {},
    ...given,
  }
}

function discoveryDocument(issuer: string, endpoints: RotatingProvider['endpoints']): object {
  return {
    issuer,
    authorization_endpoint: endpoints.authorization,
    token_endpoint: endpoints.token,
    jwks_uri: endpoints.jwks,
    revocation_endpoint: endpoints.revocation,
    end_session_endpoint: endpoints.endSession,
    response_types_supported: ['code'],
    response_modes_supported: ['query', 'form_post'],
    grant_types_supported: ['authorization_code', 'refresh_token', 'client_credentials'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
    token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    code_challenge_methods_supported: ['S256'],
    authorization_response_iss_parameter_supported: true,
    backchannel_logout_supported: true,
    backchannel_logout_session_supported: true,
    frontchannel_logout_supported: true,
    frontchannel_logout_session_supported: true,
    scopes_supported: ['openid', 'profile', 'offline_access'],
  }
}

function signLogoutToken(
  signer: Signer,
  issuer: string,
  clientId: string,
  nowMs: number,
  claims: Record<string, unknown>,
  header: Record<string, string> = { typ: 'logout+jwt' },
): Promise<string> {
  const now = Math.floor(nowMs / 1000)
  const events = { 'http://schemas.openid.net/event/backchannel-logout': {} }
  const standard = { iss: issuer, aud: clientId, iat: now, exp: now + 120, jti: opaque('jti_', 12), events }
  return signer.sign({ ...standard, ...claims }, header)
}
