import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AccessRules, RouteConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { BffSession } from '../session/session.ts'
import type { AccessToken } from '../tokens/record/sealing.ts'
import { type AccessCheck, sessionRequired } from './access-rules.ts'
import {
  type AccessTokenSource,
  inTime,
  mapRefusal,
  requireNoTokenQuery,
  type TokenRefused,
} from './access-token.ts'
import type { BearerCaller, FindBearerCaller } from './bearer.ts'
import type { RequestHeaders } from './headers/request.ts'
import type { MatchRoute, RouteMatch } from './route-table.ts'
import type { Send } from './upstream/exchange.ts'
import type { OnRejectedToken } from './upstream/rejected-token.ts'

/** Facts about a request for its log line, and the id that its upstream is told. */
export type ForwardedFacts = {
  readonly id: string
  /** Trace context for the upstream: names and values. */
  readonly context?: readonly string[] | undefined
  route?: string
  resource?: string
  /** First characters of the session's hash. */
  session?: string
  /** For a refusal, which says so too. Noted here, because a header that is set beforehand slows every answer down. */
  variesByCookie?: boolean
  variesByAuthorization?: boolean
}

export type ForwardDeps = {
  /** Throws path_rejected, method_not_allowed. */
  readonly match: MatchRoute
  /** Throws csrf_required, origin_forbidden. */
  readonly requireSameOrigin: (req: IncomingMessage, route: RouteConfig) => void
  /** The signed-in session of a request, whose token for a resource is wanted next; rejects with store_unavailable. */
  readonly findSession: (
    req: IncomingMessage,
    resource?: string,
  ) => BffSession | undefined | Promise<BffSession | undefined>
  readonly accessToken: AccessTokenSource
  /** Who calls with an access token of her own, on routes that take one. */
  readonly bearerCaller?: FindBearerCaller
  /** What a refusal of that becomes: one that signing in again can cure gets the login URL that says how. */
  readonly tokenRefused?: TokenRefused
  /** Judges the session of a route with access rules. */
  readonly accessRefusal: AccessCheck
  readonly send: Send
  /** Called when an upstream refuses a token of ours; without it such a 401 is passed on as any other. */
  readonly onRejectedToken?: OnRejectedToken
  /** The browser's address, trusted proxies taken into account. */
  readonly clientAddress: (req: IncomingMessage) => string
  readonly factsOf: (req: IncomingMessage) => ForwardedFacts
  /** A person opening a page or a download by itself, who can be sent to sign in. */
  readonly isTopLevelNavigation: (req: IncomingMessage) => boolean
  /** Where a person is sent to sign in and come back to this request's path. */
  readonly loginUrl: (req: IncomingMessage) => string
  /** Sets the headers of Cloakroom's own answers. */
  readonly setSecurityHeaders?: (req: IncomingMessage, res: ServerResponse) => void
  readonly requestHeaders: RequestHeaders
}

/** Forwards a request to its upstream; resolves with false when no route matches, with true when it was answered. */
export type Forward = (req: IncomingMessage, res: ServerResponse) => Promise<boolean>

/**
 * The hot path: match, same origin, session, access token, access rules, headers, send. A step whose answer is in memory
 * gives it without a promise, so that nothing is awaited.
 */
export function createForward(deps: ForwardDeps): Forward {
  return async function forward(req, res) {
    const matched = deps.match(req.method!, req.url!)
    if (!matched) return false
    const { route, target } = matched
    const facts = deps.factsOf(req)
    noteRoute(facts, route)
    if ((route.resource || route.bearer) && req.url!.includes('?')) requireNoTokenQuery(req.url!)
    const bearer = route.bearer && deps.bearerCaller?.(req, route)
    if (bearer) return forwardBearer(deps, { req, res, ...matched }, bearer)
    deps.requireSameOrigin(req, route)

    let session = route.auth === 'anonymous' ? undefined : deps.findSession(req, route.resource)
    if (session instanceof Promise) session = await session
    if (session) facts.session = session.hash.slice(0, 12)
    else if (route.auth === 'required') return requireSignIn(deps, route, { req, res })

    let token = session && route.resource ? deps.accessToken(session, route.resource) : undefined
    if (token instanceof Promise) {
      const answer = mapRefusal(token, session!, deps.tokenRefused)
      token = await inTime(answer, { timeoutMs: route.timeout.responseMs, client: res })
      if (!token) return true
      // A refresh may have brought other claims, by which access is judged, and which the upstream is told.
      if (route.require || route.headers.length > 0) session = await deps.findSession(req)
      if (!session && route.auth === 'required') throw sessionRequired(route)
      // It ended meanwhile: its token must not make an answer that caches take for anybody's.
      if (!session) token = undefined
    }
    if (route.require) {
      const isServed = await requireAccess(deps, route, { req, res, session, token })
      if (!isServed) return true
    }
    if (token) facts.resource = route.resource

    const headers = deps.requestHeaders(route, req.rawHeaders, {
      clientAddress: deps.clientAddress(req),
      ...{ requestId: facts.id, context: facts.context },
      accessToken: token?.value,
      claims: session?.claims,
    })
    await deps.send(req, res, {
      route,
      target,
      headers,
      session,
      accessToken: token,
      onRejectedToken: deps.onRejectedToken,
    })
    return true
  }
}

/** The same for a client with an access token of its own. What the upstream says of that is the client's to act on. */
async function forwardBearer(
  deps: ForwardDeps,
  { req, res, route, target }: Exchange & RouteMatch,
  bearer: Promise<BearerCaller>,
): Promise<true> {
  const facts = deps.factsOf(req)
  const caller = await inTime(bearer, { timeoutMs: route.timeout.responseMs, client: res })
  if (!caller) return true
  const { session, token } = caller
  facts.session = session.hash.slice(0, 12)
  if (route.resource) facts.resource = route.resource
  const headers = deps.requestHeaders(route, req.rawHeaders, {
    clientAddress: deps.clientAddress(req),
    ...{ requestId: facts.id, context: facts.context },
    accessToken: token.value,
    claims: session.claims,
  })
  await deps.send(req, res, { route, target, headers, session, accessToken: token })
  return true
}

function noteRoute(facts: ForwardedFacts, { id, auth, bearer }: RouteConfig): void {
  facts.route = id
  if (auth !== 'anonymous') facts.variesByCookie = true
  if (bearer) facts.variesByAuthorization = true
}

type Exchange = { readonly req: IncomingMessage; readonly res: ServerResponse }

/** A person who opens a page or a download is sent to sign in; a script is told to (contract section 4). */
function requireSignIn(deps: ForwardDeps, route: RouteConfig, exchange: Exchange): true {
  if (!isPage(deps, route, exchange)) {
    throw sessionRequired(route)
  }
  return redirect(deps, exchange, deps.loginUrl(exchange.req))
}

/**
 * Resolves with true when the access rules of the route are met, and with false when the person who opens a page was sent
 * to the sign-in that can meet them. Rejects with access_denied or reauthentication_required (contract section 4b).
 */
async function requireAccess(
  deps: ForwardDeps,
  route: RouteConfig,
  {
    session,
    token,
    ...exchange
  }: Exchange & { session: BffSession | undefined; token: AccessToken | undefined },
): Promise<boolean> {
  if (!session) throw new BffError('session_required', 'the session ended meanwhile')
  const refusal = deps.accessRefusal(route as RouteConfig & { require: AccessRules }, session, token)
  if (!refusal) return true
  const refused = deps.tokenRefused ? await deps.tokenRefused(refusal, session) : refusal
  const { login_url: stepUpUrl } = (refused as BffError).details ?? {}
  if (stepUpUrl === undefined || !isPage(deps, route, exchange)) throw refused
  const loginUrl = deps.loginUrl(exchange.req)
  const [, challenge] = String(stepUpUrl).split('?')
  redirect(deps, exchange, `${loginUrl}${loginUrl.includes('?') ? '&' : '?'}${challenge}`)
  return false
}

function isPage(deps: ForwardDeps, { csrf }: RouteConfig, { req }: Exchange): boolean {
  return csrf === 'fetch-metadata' && deps.isTopLevelNavigation(req)
}

function redirect(deps: ForwardDeps, { req, res }: Exchange, location: string): true {
  deps.setSecurityHeaders?.(req, res)
  // Appended, because writeHead would replace the fields that are set already.
  res.appendHeader('vary', 'Cookie, sec-fetch-mode, sec-fetch-dest')
  res.writeHead(302, {
    location,
    'cache-control': 'no-store',
    'content-length': '0',
  })
  res.end()
  return true
}
