import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { dropConnection, field, fields, type RecordedRequest, sendJson } from '../local-server.ts'
import type { AuthorizedGrant, createCodes } from './authorization-endpoint.ts'
import { checkClient, type KnownClient } from './client-check.ts'
import type { RotatingControl } from './rotating-provider.ts'
import { opaque, type Signer } from './signing.ts'

/** What happened at the token endpoint so far. */
export type RotatingCounters = {
  /** Refresh requests that arrived, whatever became of them. */
  refreshCalls: number
  /** Spent refresh tokens that were used again; each ended its grant. */
  reuseDetected: number
  /** Token requests that arrived, by their grant_type. */
  callsByGrant: Record<string, number>
  /** Successful refreshes by the resource answered. */
  refreshesByResource: Record<string, number>
  /** The most refresh requests ever in progress at one time. */
  mostConcurrentRefreshes: number
}

type Grant = AuthorizedGrant & { alive: boolean }
type RefreshToken = { readonly grant: Grant; spent: boolean }
type Answer = { readonly status: number; readonly json: object }

type Deps = {
  readonly client: KnownClient
  readonly control: RotatingControl
  readonly signer: Signer
  readonly codes: ReturnType<typeof createCodes>
  readonly issue: (secret: string) => string
  readonly issuer: string
  readonly tokenEndpoint: string
  readonly violations: string[]
  readonly revoked: string[]
  readonly now: () => number
}

/** The token and revocation endpoints, and the refresh tokens behind them. */
export function createRotatingTokens(deps: Deps) {
  const refreshTokens = new Map<string, RefreshToken>()
  const accessTokens = new Map<string, { readonly grant: Grant; readonly expiresAt: number }>()
  const counters: RotatingCounters = {
    ...{ refreshCalls: 0, reuseDetected: 0, refreshesByResource: {}, mostConcurrentRefreshes: 0 },
    callsByGrant: {},
  }
  let refreshing = 0

  async function token(request: RecordedRequest, res: ServerResponse): Promise<void> {
    const grantType = field(request.form, 'grant_type') ?? ''
    counters.callsByGrant[grantType] = (counters.callsByGrant[grantType] ?? 0) + 1
    const isRefresh = grantType === 'refresh_token'
    if (isRefresh) {
      counters.refreshCalls += 1
      refreshing += 1
      counters.mostConcurrentRefreshes = Math.max(counters.mostConcurrentRefreshes, refreshing)
    }
    try {
      await answerToken(request, res, isRefresh ? 'refresh' : 'code')
    } finally {
      if (isRefresh) refreshing -= 1
    }
  }

  async function answerToken(request: RecordedRequest, res: ServerResponse, leg: 'code' | 'refresh') {
    const fault = takeFault(deps.control, leg)
    if (fault?.kind === 'drop-before') return dropConnection(res)
    const answer =
      fault?.kind === 'status'
        ? { status: fault.status ?? 503, json: { error: 'temporarily_unavailable' } }
        : edited(await answerFor(request), deps.control, leg)
    const latencyMs = deps.control.latencyFor?.(request.form) ?? deps.control.latencyMs
    if (latencyMs > 0) await delay(latencyMs)
    if (fault?.kind === 'drop-after') return dropConnection(res)
    sendJson(res, answer.status, answer.json, fault?.retryAfter ? { 'retry-after': fault.retryAfter } : {})
  }

  async function answerFor(request: RecordedRequest): Promise<Answer> {
    const { form } = request
    const check = await checkClient(request, deps.client, [deps.tokenEndpoint, deps.issuer])
    if (check === 'several') deps.violations.push('token request: several client credentials')
    if (check !== 'ok') return refused('invalid_client', check, 401)
    const grantType = field(form, 'grant_type')
    if (grantType === 'refresh_token') return refresh(form)
    if (grantType === 'authorization_code') {
      const redeemed = deps.codes.redeem(form)
      if (typeof redeemed === 'string') return refused('invalid_grant', `code: ${redeemed}`)
      return answerWithTokens(form, { ...redeemed, alive: true }, 'code')
    }
    if (grantType === 'client_credentials')
      return answerWithTokens(form, tokenlessGrant(deps.client.clientId), 'code')
    if (grantType === 'urn:ietf:params:oauth:grant-type:token-exchange') return exchange(form)
    return refused('unsupported_grant_type', String(grantType))
  }

  /** RFC 8693 §2.1: an access token of ours for another one, of the same user. */
  async function exchange(form: [string, string][]): Promise<Answer> {
    const subject = accessTokens.get(field(form, 'subject_token') ?? '')
    const isWhole = ['subject_token_type', 'requested_token_type'].every(
      (name) => field(form, name) === ACCESS_TOKEN_TYPE,
    )
    if (!isWhole) return refused('invalid_request', 'token types')
    if (!subject?.grant.alive || deps.now() >= subject.expiresAt)
      return refused('invalid_grant', 'subject token')
    const { status, json } = await answerWithTokens(form, tokenlessGrant(subject.grant.user), 'code')
    return { status, json: { ...json, issued_token_type: ACCESS_TOKEN_TYPE } }
  }

  function refresh(form: [string, string][]): Answer | Promise<Answer> {
    const presented = refreshTokens.get(field(form, 'refresh_token') ?? '')
    if (!presented) return refused('invalid_grant', 'refresh token not found')
    if (!presented.grant.alive) return refused('invalid_grant', 'grant is revoked')
    if (presented.spent) {
      counters.reuseDetected += 1
      presented.grant.alive = false
      return refused('invalid_grant', 'refresh token already used')
    }
    // Decided in the same turn of the event loop: two requests with one token can never both pass.
    if (deps.control.rotate && deps.control.burnOnInvalidTarget) presented.spent = true
    const isRefused = deps.control.refusedResources.includes(field(form, 'resource') ?? '')
    const fault = isRefused ? refused('invalid_target', 'not this one') : targetFault(form, presented.grant)
    if (fault) return fault
    if (deps.control.rotate) presented.spent = true
    return answerWithTokens(form, presented.grant, 'refresh')
  }

  async function answerWithTokens(
    form: [string, string][],
    grant: Grant,
    leg: 'code' | 'refresh',
  ): Promise<Answer> {
    const fault = targetFault(form, grant)
    if (fault) return fault
    const named = field(form, 'resource') ?? field(form, 'audience') ?? grant.resources[0] ?? grant.audience
    const resource = named ?? 'urn:default-audience'
    if (leg === 'refresh')
      counters.refreshesByResource[resource] = (counters.refreshesByResource[resource] ?? 0) + 1
    const scope = field(form, 'scope') ?? grant.scopes.join(' ')
    const wantsRefresh = grant.scopes.includes('offline_access') && (leg === 'code' || deps.control.rotate)
    const refreshToken = wantsRefresh ? deps.issue(opaque('rt_')) : undefined
    if (refreshToken) refreshTokens.set(refreshToken, { grant, spent: false })
    const wantsId = grant.scopes.includes('openid') && (leg === 'code' || deps.control.idTokenOnRefresh)
    const idToken = wantsId ? await signIdToken(deps, grant, leg) : undefined
    const accessToken = deps.issue(await signAccessToken(deps, grant, resource, scope))
    accessTokens.set(accessToken, { grant, expiresAt: deps.now() + deps.control.accessTokenSeconds * 1000 })
    return {
      status: 200,
      json: {
        access_token: accessToken,
        token_type: 'Bearer',
        expires_in: deps.control.accessTokenSeconds,
        scope,
        ...(refreshToken ? { refresh_token: refreshToken } : {}),
        ...(idToken ? { id_token: deps.issue(idToken) } : {}),
      },
    }
  }

  async function revoke(request: RecordedRequest, res: ServerResponse): Promise<void> {
    const check = await checkClient(request, deps.client, [deps.tokenEndpoint, deps.issuer])
    if (check !== 'ok') return sendJson(res, 401, { error: 'invalid_client' })
    const token = field(request.form, 'token') ?? ''
    deps.revoked.push(token)
    const known = refreshTokens.get(token)
    if (known) known.grant.alive = false
    sendJson(res, 200, {})
  }

  const isLive = (refreshToken: string): boolean => {
    const known = refreshTokens.get(refreshToken)
    return Boolean(known?.grant.alive && !known.spent)
  }
  const ownerOf = (refreshToken = '') => refreshTokens.get(refreshToken)?.grant.user
  return { token, revoke, isLive, ownerOf, counters }
}

const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token'

/** The client acting for itself, or for a user without a login: no scopes, so neither refresh token nor ID token. */
function tokenlessGrant(user: string): Grant {
  return {
    ...{ id: randomUUID(), clientId: '', user, sid: '', redirectUri: '', alive: true },
    ...{ scopes: [], resources: [], audience: undefined, nonce: undefined },
    ...{ codeChallenge: undefined, claims: undefined, prompt: undefined },
  }
}

function takeFault(control: RotatingControl, leg: 'code' | 'refresh') {
  const { fault } = control
  if (!fault || fault.times === 0 || (fault.leg && fault.leg !== leg)) return undefined
  if (fault.times !== undefined) fault.times -= 1
  return fault
}

function edited(answer: Answer, { editAnswer }: RotatingControl, leg: 'code' | 'refresh'): Answer {
  if (!editAnswer || answer.status !== 200) return answer
  const json = { ...answer.json }
  editAnswer(json, leg)
  return { ...answer, json }
}

function refused(error: string, description: string, status = 400): Answer {
  return { status, json: { error, error_description: description } }
}

/** RFC 8707 §2.2: one resource, and only one that the authorization request named. */
function targetFault(form: [string, string][], grant: Grant): Answer | undefined {
  const asked = fields(form, 'resource')
  if (asked.length > 1)
    return refused('invalid_target', 'only a single resource indicator value must be requested')
  const [resource] = asked
  if (resource !== undefined && grant.resources.length > 0 && !grant.resources.includes(resource))
    return refused('invalid_target', 'resource indicator is missing, or unknown')
  return undefined
}

function signAccessToken(deps: Deps, grant: Grant, resource: string, scope: string): Promise<string> {
  const now = Math.floor(deps.now() / 1000)
  return deps.signer.sign(
    {
      ...{ iss: deps.issuer, aud: resource, sub: grant.user, client_id: deps.client.clientId, scope },
      ...{ iat: now, exp: now + deps.control.accessTokenSeconds, jti: randomUUID() },
    },
    { typ: 'at+jwt' },
  )
}

function signIdToken(deps: Deps, grant: Grant, leg: 'code' | 'refresh') {
  const now = Math.floor(deps.now() / 1000)
  const claims = {
    ...{ iss: deps.issuer, aud: deps.client.clientId, sub: grant.user, sid: grant.sid, jti: randomUUID() },
    ...{ iat: now, exp: now + 300, name: grant.user },
    ...(grant.nonce === undefined ? {} : { nonce: grant.nonce }),
    ...deps.control.idTokenClaims,
  }
  return deps.control.forgeIdToken ? deps.control.forgeIdToken(claims, leg) : deps.signer.sign(claims)
}
