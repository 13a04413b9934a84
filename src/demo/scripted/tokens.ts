import { randomUUID } from 'node:crypto'
import type { AuthorizedGrant, createCodes } from './authorization-endpoint.ts'
import { checkClient, type KnownClient } from './client-check.ts'
import { field, type RecordedRequest } from './http-messages.ts'
import { opaque, type Signer } from './signing.ts'

/** What one sign-in granted, and whether its refresh tokens are still good. */
export type Grant = AuthorizedGrant & { alive: boolean }

/** An answer of the token endpoint. */
export type Answer = { readonly status: number; readonly json: object }

/** Which grant of RFC 6749 a token is issued for; client credentials and token exchange count as `code`. */
export type Leg = 'code' | 'refresh'

/** What an access token is for. */
export type Target = { readonly audience: string | readonly string[]; readonly scope: string }

/** What a token request asks for. */
export type TokenAsk = {
  readonly form: [string, string][]
  readonly grant: Grant
  readonly leg: Leg
}

/** Where authorization servers differ. Functions are asked at each request. */
export type TokenPolicy = {
  /** What the access token will be for, or the refusal. */
  target(ask: TokenAsk): Target | Answer
  /**
   * `once`: each refresh brings a new refresh token, and one that is used twice ends its grant (RFC 9700 §4.14.2); `each`:
   * each brings a new one, and the old ones stay good; `never`: the first stays.
   */
  rotation(): 'once' | 'each' | 'never'
  /** Whether a refresh that is refused for its target has used up its refresh token. */
  usesUpRefused(): boolean
  accessTokenSeconds(): number
  hasRefreshToken(grant: Grant): boolean
  hasIdToken(ask: TokenAsk): boolean
  /** Signs the ID token with these claims, and more. */
  idToken(claims: Record<string, unknown>, ask: TokenAsk): Promise<string | undefined>
  /** Claims of access tokens beyond those of RFC 9068 §2.2, or in their place; one that is undefined is left out. */
  accessClaims?(grant: Grant, target: Target): Record<string, unknown>
  /** The `typ` of access tokens in their header; `at+jwt` unless given. */
  readonly accessTokenType?: string
  /** Changes what a successful request is answered. */
  answer?(json: Record<string, unknown>, ask: TokenAsk): Record<string, unknown>
  /** How the server words a refusal. */
  refusal(error: string, description: string, status?: number): Answer
  /** Looks at a request before anything else. */
  check?(form: [string, string][]): Answer | undefined
}

type Deps = {
  readonly client: KnownClient
  readonly policy: TokenPolicy
  readonly signer: Signer
  readonly codes: ReturnType<typeof createCodes>
  /** Notes a secret that is given out. */
  readonly issue: (secret: string) => string
  readonly issuer: string
  readonly tokenEndpoint: string
  /** Told about what no conforming client sends. */
  readonly violation: (text: string) => void
  /** Epoch ms. */
  readonly now: () => number
}

type RefreshToken = { readonly grant: Grant; spent: boolean }
type AccessToken = { readonly grant: Grant; readonly target: Target; readonly expiresAt: number }

/** Everything in plain data, for a file. Holds live tokens. */
export type SavedTokens = {
  readonly grants: readonly Grant[]
  readonly refreshTokens: readonly {
    readonly token: string
    readonly grant: string
    readonly spent: boolean
  }[]
  readonly accessTokens: readonly {
    readonly token: string
    readonly grant: string
    readonly target: Target
    readonly expiresAt: number
  }[]
}

/** What the tokens of a scripted authorization server can do. */
export type Tokens = ReturnType<typeof createTokens>

/** The token and revocation endpoints of a scripted authorization server, and the tokens behind them. */
export function createTokens(deps: Deps) {
  const { policy } = deps
  const refreshTokens = new Map<string, RefreshToken>()
  const accessTokens = new Map<string, AccessToken>()

  /** Answers a token request; `reused` is told of a refresh token that comes again. */
  async function answer(request: RecordedRequest, reused?: () => void): Promise<Answer> {
    const { form } = request
    const fault = policy.check?.(form)
    if (fault) return fault
    const check = await checkClient(request, deps.client, [deps.tokenEndpoint, deps.issuer])
    if (check === 'several') deps.violation('token request: several client credentials')
    if (check !== 'ok') return policy.refusal('invalid_client', check, 401)
    const grantType = field(form, 'grant_type')
    if (grantType === 'refresh_token') return refresh(form, reused)
    if (grantType === 'authorization_code') {
      const redeemed = deps.codes.redeem(form)
      if (typeof redeemed === 'string') return policy.refusal('invalid_grant', `code: ${redeemed}`)
      return answerWithTokens({ form, grant: { ...redeemed, alive: true }, leg: 'code' })
    }
    if (grantType === 'client_credentials')
      return answerWithTokens({ form, grant: tokenlessGrant(deps.client.clientId), leg: 'code' })
    if (grantType === 'urn:ietf:params:oauth:grant-type:token-exchange') return exchange(form)
    return policy.refusal('unsupported_grant_type', String(grantType))
  }

  /** RFC 8693 §2.1: an access token of ours for another one, of the same user. */
  async function exchange(form: [string, string][]): Promise<Answer> {
    const subject = accessTokens.get(field(form, 'subject_token') ?? '')
    const isWhole = ['subject_token_type', 'requested_token_type'].every(
      (name) => field(form, name) === ACCESS_TOKEN_TYPE,
    )
    if (!isWhole) return policy.refusal('invalid_request', 'token types')
    if (!subject?.grant.alive || deps.now() >= subject.expiresAt)
      return policy.refusal('invalid_grant', 'subject token')
    const grant = tokenlessGrant(subject.grant.user)
    const { status, json } = await answerWithTokens({ form, grant, leg: 'code' })
    return { status, json: { ...json, issued_token_type: ACCESS_TOKEN_TYPE } }
  }

  function refresh(form: [string, string][], reused?: () => void): Answer | Promise<Answer> {
    const presented = refreshTokens.get(field(form, 'refresh_token') ?? '')
    if (!presented) return policy.refusal('invalid_grant', 'refresh token not found')
    if (!presented.grant.alive) return policy.refusal('invalid_grant', 'grant is revoked')
    const isForOnce = policy.rotation() === 'once'
    if (presented.spent) {
      reused?.()
      presented.grant.alive = false
      return policy.refusal('invalid_grant', 'refresh token already used')
    }
    // Decided in the same turn of the event loop: two requests with one token can never both pass.
    if (isForOnce && policy.usesUpRefused()) presented.spent = true
    const ask: TokenAsk = { form, grant: presented.grant, leg: 'refresh' }
    const target = policy.target(ask)
    if ('status' in target) return target
    if (isForOnce) presented.spent = true
    return answerWithTokens(ask, target)
  }

  async function answerWithTokens(ask: TokenAsk, decided?: Target): Promise<Answer> {
    const target = decided ?? policy.target(ask)
    if ('status' in target) return target
    const { grant, leg } = ask
    const wantsRefresh = policy.hasRefreshToken(grant) && (leg === 'code' || policy.rotation() !== 'never')
    const refreshToken = wantsRefresh ? deps.issue(opaque('rt_')) : undefined
    if (refreshToken) refreshTokens.set(refreshToken, { grant, spent: false })
    const idToken = policy.hasIdToken(ask) ? await policy.idToken(idClaims(deps, grant), ask) : undefined
    const accessToken = deps.issue(await signAccessToken(deps, grant, target))
    const expires_in = policy.accessTokenSeconds()
    accessTokens.set(accessToken, { grant, target, expiresAt: deps.now() + expires_in * 1000 })
    const json = {
      access_token: accessToken,
      ...{ token_type: 'Bearer', expires_in, scope: target.scope },
      ...(refreshToken ? { refresh_token: refreshToken } : {}),
      ...(idToken ? { id_token: deps.issue(idToken) } : {}),
    }
    return { status: 200, json: policy.answer?.(json, ask) ?? json }
  }

  return {
    answer,
    /** Answers a revocation request (RFC 7009), and ends the grant of a refresh token. */
    async revoke(request: RecordedRequest, revoked: (token: string) => void = () => {}): Promise<Answer> {
      const check = await checkClient(request, deps.client, [deps.tokenEndpoint, deps.issuer])
      if (check !== 'ok') return policy.refusal('invalid_client', check, 401)
      const token = field(request.form, 'token') ?? ''
      revoked(token)
      const known = refreshTokens.get(token)
      if (known) known.grant.alive = false
      return { status: 200, json: {} }
    },
    /** Whose code or refresh token a request brings; undefined when that is not known. */
    userOf({ form }: RecordedRequest): string | undefined {
      const refreshToken = refreshTokens.get(field(form, 'refresh_token') ?? '')
      return refreshToken?.grant.user ?? deps.codes.userOf(field(form, 'code') ?? '')
    },
    /** Whether this refresh token would be accepted now. */
    isLive(refreshToken: string): boolean {
      const known = refreshTokens.get(refreshToken)
      return Boolean(known?.grant.alive && !known.spent)
    },
    /** Whose grant a refresh token, also a spent one, belongs to. */
    ownerOf: (refreshToken = '') => refreshTokens.get(refreshToken)?.grant.user,
    /** The grant of a living access token, and what the token is for. */
    grantOf(accessToken: string): { readonly grant: Grant; readonly target: Target } | undefined {
      const known = accessTokens.get(accessToken)
      return known && deps.now() < known.expiresAt ? known : undefined
    },
    /** Ends the grants of a user, or all. */
    endGrants(user?: string): void {
      for (const { grant } of refreshTokens.values())
        if (user === undefined || grant.user === user) grant.alive = false
    },
    /** Forgets what no request can be answered with any more, and returns the rest. */
    save(): SavedTokens {
      const now = deps.now()
      for (const [token, { expiresAt }] of accessTokens) if (expiresAt <= now) accessTokens.delete(token)
      for (const [token, { grant }] of refreshTokens) if (!grant.alive) refreshTokens.delete(token)
      const held = [...refreshTokens.values(), ...accessTokens.values()].map(({ grant }) => grant)
      return {
        grants: [...new Set(held)],
        refreshTokens: [...refreshTokens].map(([token, { grant, spent }]) => ({
          token,
          grant: grant.id,
          spent,
        })),
        accessTokens: [...accessTokens].map(([token, { grant, ...more }]) => ({
          token,
          grant: grant.id,
          ...more,
        })),
      }
    },
    /** Takes over what `save` returned. */
    load(saved: SavedTokens): void {
      const grants = new Map(saved.grants.map((grant) => [grant.id, { ...grant }]))
      for (const { token, grant: id, spent } of saved.refreshTokens) {
        const grant = grants.get(id)
        if (grant) refreshTokens.set(token, { grant, spent })
      }
      for (const { token, grant: id, ...more } of saved.accessTokens) {
        const grant = grants.get(id)
        if (grant) accessTokens.set(token, { grant, ...more })
      }
    },
  }
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

function idClaims(deps: Deps, grant: Grant): Record<string, unknown> {
  const now = Math.floor(deps.now() / 1000)
  return {
    ...{ iss: deps.issuer, aud: deps.client.clientId, sub: grant.user, sid: grant.sid, jti: randomUUID() },
    ...{ iat: now, exp: now + 300 },
    ...authentication(grant),
    ...(grant.nonce === undefined ? {} : { nonce: grant.nonce }),
  }
}

function signAccessToken(deps: Deps, grant: Grant, target: Target): Promise<string> {
  const now = Math.floor(deps.now() / 1000)
  return deps.signer.sign(
    {
      ...{ iss: deps.issuer, aud: target.audience, sub: grant.user, client_id: deps.client.clientId },
      ...{ scope: target.scope, iat: now, exp: now + deps.policy.accessTokenSeconds(), jti: randomUUID() },
      ...authentication(grant),
      ...deps.policy.accessClaims?.(grant, target),
    },
    { typ: deps.policy.accessTokenType ?? 'at+jwt' },
  )
}

/** RFC 9068 §2.2.1: the same in access and ID tokens. */
function authentication({ acr, authTime }: Grant): Record<string, unknown> {
  return {
    ...(acr === undefined ? {} : { acr }),
    ...(authTime === undefined ? {} : { auth_time: authTime }),
  }
}

/** RFC 8707 §2.2: one resource, and only one that the authorization request named; by `audience` where that is the name. */
export function resourceTarget({ form, grant }: TokenAsk): Target | 'several' | 'unknown' {
  const asked = form.filter(([name]) => name === 'resource').map(([, value]) => value)
  if (asked.length > 1) return 'several'
  const [resource] = asked
  if (resource !== undefined && grant.resources.length > 0 && !grant.resources.includes(resource))
    return 'unknown'
  const named = resource ?? field(form, 'audience') ?? grant.resources[0] ?? grant.audience
  return {
    audience: named ?? 'urn:default-audience',
    scope: field(form, 'scope') ?? grant.scopes.join(' '),
  }
}
