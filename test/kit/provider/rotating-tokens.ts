import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import type { createCodes } from '../../../src/demo/scripted/authorization-endpoint.ts'
import type { KnownClient } from '../../../src/demo/scripted/client-check.ts'
import { opaque, type Signer } from '../../../src/demo/scripted/signing.ts'
import {
  type Answer,
  createTokens,
  type Grant,
  type Leg,
  resourceTarget,
  type TokenPolicy,
} from '../../../src/demo/scripted/tokens.ts'
import { dropConnection, field, type RecordedRequest, sendJson } from '../local-server.ts'
import type { RotatingControl } from './rotating-provider.ts'

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

/** The token and revocation endpoints, with counters and with faults on demand. */
export function createRotatingTokens(deps: Deps) {
  const { control, violations, revoked } = deps
  const counters: RotatingCounters = {
    ...{ refreshCalls: 0, reuseDetected: 0, refreshesByResource: {}, mostConcurrentRefreshes: 0 },
    callsByGrant: {},
  }
  const tokens = createTokens({
    ...deps,
    violation: (text) => violations.push(text),
    policy: policyOf(deps, counters),
  })
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

  async function answerToken(request: RecordedRequest, res: ServerResponse, leg: Leg) {
    const fault = takeFault(control, leg)
    if (fault?.kind === 'drop-before') return dropConnection(res)
    const reused = () => {
      counters.reuseDetected += 1
    }
    const answer =
      fault?.kind === 'status'
        ? { status: fault.status ?? 503, json: { error: 'temporarily_unavailable' } }
        : edited(await tokens.answer(request, reused), control, leg)
    const latencyMs = control.latencyFor?.(request.form) ?? control.latencyMs
    if (latencyMs > 0) await delay(latencyMs)
    if (fault?.kind === 'drop-after') return dropConnection(res)
    sendJson(res, answer.status, answer.json, fault?.retryAfter ? { 'retry-after': fault.retryAfter } : {})
  }

  async function revoke(request: RecordedRequest, res: ServerResponse): Promise<void> {
    const { status, json } = await tokens.revoke(request, (token) => revoked.push(token))
    sendJson(res, status, status === 401 ? { error: 'invalid_client' } : json)
  }

  function refreshTokenFor(user: string): string {
    const refreshToken = deps.issue(opaque('rt_'))
    const grant: Grant = {
      ...{ id: randomUUID(), clientId: deps.client.clientId, redirectUri: '', user, sid: '', alive: true },
      ...{ scopes: ['openid', 'profile', 'offline_access'], resources: [], audience: undefined },
      ...{ nonce: undefined, codeChallenge: undefined, claims: undefined, prompt: undefined },
    }
    const held = { token: refreshToken, grant: grant.id, spent: false }
    tokens.load({ grants: [grant], refreshTokens: [held], accessTokens: [] })
    return refreshToken
  }

  const { isLive, ownerOf } = tokens
  return { token, revoke, isLive, ownerOf, refreshTokenFor, counters }
}

function policyOf({ control, signer }: Deps, counters: RotatingCounters): TokenPolicy {
  const refusal = (error: string, description: string, status = 400): Answer => ({
    status,
    json: { error, error_description: description },
  })
  return {
    refusal,
    target(ask) {
      const isRefresh = ask.leg === 'refresh'
      const isRefused = isRefresh && control.refusedResources.includes(field(ask.form, 'resource') ?? '')
      if (isRefused) return refusal('invalid_target', 'not this one')
      const target = resourceTarget(ask)
      if (target === 'several')
        return refusal('invalid_target', 'only a single resource indicator value must be requested')
      if (target === 'unknown') return refusal('invalid_target', 'resource indicator is missing, or unknown')
      const resource = String(target.audience)
      if (isRefresh)
        counters.refreshesByResource[resource] = (counters.refreshesByResource[resource] ?? 0) + 1
      return target
    },
    rotation: () => (control.rotate ? 'once' : 'never'),
    usesUpRefused: () => control.burnOnInvalidTarget,
    accessTokenSeconds: () => control.accessTokenSeconds,
    hasRefreshToken: ({ scopes }) => scopes.includes('offline_access'),
    hasIdToken: ({ grant, leg }) =>
      grant.scopes.includes('openid') && (leg === 'code' || control.idTokenOnRefresh),
    async idToken(base, { grant, leg }) {
      const claims = { ...base, name: grant.user, ...control.idTokenClaims }
      return control.forgeIdToken ? control.forgeIdToken(claims, leg) : signer.sign(claims)
    },
  }
}

function takeFault(control: RotatingControl, leg: Leg) {
  const { fault } = control
  if (!fault || fault.times === 0 || (fault.leg && fault.leg !== leg)) return undefined
  if (fault.times !== undefined) fault.times -= 1
  return fault
}

function edited(answer: Answer, { editAnswer }: RotatingControl, leg: Leg): Answer {
  if (!editAnswer || answer.status !== 200) return answer
  const json = { ...answer.json }
  editAnswer(json, leg)
  return { ...answer, json }
}
