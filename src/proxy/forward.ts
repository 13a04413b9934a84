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
import type { Over, Send } from './upstream/exchange.ts'
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
  /** The access token, where it is at hand. */
  readonly tokenInMemory: (session: BffSession, resource: string) => AccessToken | undefined
  readonly accessToken: AccessTokenSource
  /** Runs what may have to wait as work of its request, so that what is told of it has the id and the trace of that. */
  readonly runFor: <T>(req: IncomingMessage, work: () => T) => T
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

/**
 * Forwards a request to its upstream. False when no route matches, and true when it is answered here or by the upstream;
 * a promise of that where something must be waited for, and else none. `over` is told of what fails once the request is
 * sent, and of a request without a session; what else fails before is thrown, or rejects.
 */
export type Forward = (req: IncomingMessage, res: ServerResponse, over: Over) => boolean | Promise<boolean>

/** A request on its way to its upstream. */
type Exchange = RouteMatch & {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly over: Over
  readonly facts: ForwardedFacts
}

/** For whom it is sent, as far as that is known. */
type Caller = { readonly session: BffSession | undefined; readonly token: AccessToken | undefined }

/**
 * The hot path: match, same origin, session, access token, access rules, headers, send. A step whose answer is in memory
 * gives it without a promise, and the next one follows at once.
 */
export function createForward(deps: ForwardDeps): Forward {
  return function forward(req, res, over) {
    const matched = deps.match(req.method!, req.url!)
    if (!matched) return false
    const { route, target } = matched
    const facts = deps.factsOf(req)
    noteRoute(facts, route)
    if ((route.resource || route.bearer) && req.url!.includes('?')) requireNoTokenQuery(req.url!)
    const exchange: Exchange = { req, res, over, route, target, facts }
    const bearer = route.bearer && deps.runFor(req, () => deps.bearerCaller?.(req, route))
    if (bearer) return forwardBearer(exchange, bearer)
    deps.requireSameOrigin(req, route)

    const session = route.auth === 'anonymous' ? undefined : deps.findSession(req, route.resource)
    if (session instanceof Promise) return session.then((found) => forwardSession(exchange, found))
    return forwardSession(exchange, session)
  }

  function forwardSession(exchange: Exchange, session: BffSession | undefined): boolean | Promise<boolean> {
    const { req, route, facts } = exchange
    if (session) facts.session = session.hash.slice(0, 12)
    else if (route.auth === 'required') return requireSignIn(deps, exchange)

    const token = session && route.resource ? deps.tokenInMemory(session, route.resource) : undefined
    if (session && route.resource && !token) return deps.runFor(req, () => waitForToken(exchange, session))
    return forwardAllowed(exchange, { session, token })
  }

  async function waitForToken(exchange: Exchange, session: BffSession): Promise<boolean> {
    const { req, res, route } = exchange
    const coming = deps.accessToken(session, route.resource!)
    const answer = mapRefusal(coming, session, deps.tokenRefused)
    const token = await inTime(answer, { timeoutMs: route.timeout.responseMs, client: res })
    if (!token) return true
    // A refresh may have brought other claims, by which access is judged, and which the upstream is told.
    const isReadAgain = route.require || route.headers.length > 0
    const current = isReadAgain ? await deps.findSession(req) : session
    if (!current && route.auth === 'required') throw sessionRequired(route)
    // Has the session ended meanwhile, its token goes nowhere: the answer would be sent as one that caches may keep.
    return forwardAllowed(exchange, { session: current, token: current && token })
  }

  function forwardAllowed(exchange: Exchange, caller: Caller): boolean | Promise<boolean> {
    const refusal = exchange.route.require && accessRefusal(deps, exchange.route, caller)
    if (refusal) return refuseAccess(deps, exchange, { session: caller.session!, refusal })
    return sendFor(exchange, caller, deps.onRejectedToken)
  }

  /** For a client with an access token of its own. What the upstream says of that is the client's to act on. */
  async function forwardBearer(exchange: Exchange, bearer: Promise<BearerCaller>): Promise<true> {
    const { res, route, facts } = exchange
    const caller = await inTime(bearer, { timeoutMs: route.timeout.responseMs, client: res })
    if (!caller) return true
    facts.session = caller.session.hash.slice(0, 12)
    return sendFor(exchange, caller)
  }

  function sendFor(exchange: Exchange, { session, token }: Caller, onRejectedToken?: OnRejectedToken): true {
    const { req, res, over, route, target, facts } = exchange
    if (token) facts.resource = route.resource
    const headers = deps.requestHeaders(route, req.rawHeaders, {
      clientAddress: deps.clientAddress(req),
      requestId: facts.id,
      context: facts.context,
      accessToken: token?.value,
      claims: session?.claims,
    })
    deps.send(req, res, { route, target, headers, session, accessToken: token, onRejectedToken }, over)
    return true
  }
}

function noteRoute(facts: ForwardedFacts, { id, auth, bearer }: RouteConfig): void {
  facts.route = id
  if (auth !== 'anonymous') facts.variesByCookie = true
  if (bearer) facts.variesByAuthorization = true
}

/** A person who opens a page or a download is sent to sign in; a script is told to (contract section 4). */
function requireSignIn(deps: ForwardDeps, exchange: Exchange): true {
  if (isPage(deps, exchange)) return redirect(deps, exchange, deps.loginUrl(exchange.req))
  // Told and not thrown, which costs a tenth of this answer: clients that are signed out ask often.
  exchange.over(sessionRequired(exchange.route))
  return true
}

/** Why the access rules of the route are not met; undefined when they are. Throws session_required. */
function accessRefusal(deps: ForwardDeps, route: RouteConfig, { session, token }: Caller) {
  if (!session) throw new BffError('session_required', 'the session ended meanwhile')
  return deps.accessRefusal(route as RouteConfig & { require: AccessRules }, session, token)
}

/**
 * Sends the person who opens a page to the sign-in that can meet the access rules. Rejects with access_denied or
 * reauthentication_required for all other requests (contract section 4b).
 */
async function refuseAccess(
  deps: ForwardDeps,
  exchange: Exchange,
  { session, refusal }: { session: BffSession; refusal: BffError },
): Promise<true> {
  const refused = deps.tokenRefused ? await deps.tokenRefused(refusal, session) : refusal
  const { login_url: stepUpUrl } = (refused as BffError).details ?? {}
  if (stepUpUrl === undefined || !isPage(deps, exchange)) throw refused
  const loginUrl = deps.loginUrl(exchange.req)
  const [, challenge] = String(stepUpUrl).split('?')
  return redirect(deps, exchange, `${loginUrl}${loginUrl.includes('?') ? '&' : '?'}${challenge}`)
}

function isPage(deps: ForwardDeps, { req, route }: Exchange): boolean {
  return route.csrf === 'fetch-metadata' && deps.isTopLevelNavigation(req)
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
