import type { IncomingMessage } from 'node:http'
import type { LookupFunction, Socket } from 'node:net'
import type { AccessRules, RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/session.ts'
import type { AccessToken } from '../../tokens/record/sealing.ts'
import { type AccessCheck, sessionRequired } from '../access-rules.ts'
import { type AccessTokenSource, inTime, mapRefusal, type TokenRefused } from '../access-token.ts'
import type { FindBearerCaller } from '../bearer.ts'
import type { ForwardedFacts } from '../forward.ts'
import type { RequestHeaders } from '../headers/request.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import type { MatchRoute, RouteMatch } from '../route-table.ts'
import {
  createLiveConnections,
  type EndReason,
  type LiveConnections,
  watchSession,
} from '../session-end/live-connections.ts'
import type { TokenProofs } from '../upstream/token-proofs.ts'
import type { Dial, Handshake, UpgradingClient } from './dial.ts'
import { requireHandshake, withoutLookalikes } from './handshake.ts'

export type TunnelDeps = {
  /** Throws path_rejected, method_not_allowed. */
  readonly match: MatchRoute
  readonly findSession: (
    req: IncomingMessage,
    resource?: string,
  ) => BffSession | undefined | Promise<BffSession | undefined>
  /** Ms until a session ends if nothing more happens, without counting as activity; undefined when it has ended. */
  readonly timeLeft?: (session: Pick<BffSession, 'id' | 'hash' | 'expiresAt'>) => Promise<number | undefined>
  readonly accessToken: AccessTokenSource
  /** Who calls with an access token of her own, on routes that take one. */
  readonly bearerCaller?: FindBearerCaller
  /** What a refusal of that becomes. */
  readonly tokenRefused?: TokenRefused
  /** Judges the session of a route with access rules. */
  readonly accessRefusal: AccessCheck
  readonly clientAddress: (req: IncomingMessage) => string
  /** Facts about an upgrade for its log line, and the id that its upstream and its client are told. */
  readonly factsOf: (req: IncomingMessage) => ForwardedFacts
  /** Runs work of a request as such, so that what is told of it has the id and the trace of that. */
  readonly runFor: <T>(req: IncomingMessage, work: () => T) => T
  /** Answers with the problem, and ends the connection: no second request is ever read from it. Returns the status. */
  readonly refuse: (
    socket: Socket,
    error: unknown,
    more: { readonly headers: Readonly<Record<string, string>>; readonly requestId: string },
  ) => number
  readonly requestHeaders: RequestHeaders
  readonly responseHeaders: ResponseHeaders
  /** Absent: every access token is sent as a bearer token. */
  readonly tokenProofs?: TokenProofs | undefined
  readonly publicUrl: string
  /** Resolves the names of upstreams; the system's look-up unless given. */
  readonly lookup?: LookupFunction
  /** Origins, beside the public one, whose scripts may open a WebSocket. */
  readonly allowedOrigins: readonly string[]
  /** How many tunnels may be open at a time; unlimited unless given. */
  readonly limits?: { readonly webSocketsPerSession: number; readonly webSocketsPerClient: number }
  /** Names the client that a tunnel without a session is counted for; all count as one client unless given. */
  readonly clientOf?: (req: IncomingMessage) => string
  /** The register of open tunnels; a new one unless given. */
  readonly live?: LiveConnections
  /** Called for each upgrade that we refuse, before `observe`. */
  readonly refused?: (req: IncomingMessage, error: unknown) => void
  /** Called once for each upgrade, with 101 or the status of the refusal, the upstream's or ours, and the error of ours. */
  readonly observe?: (req: IncomingMessage, status: number, error?: unknown) => void
}

type Upgrading = { readonly req: IncomingMessage; readonly socket: Socket; readonly head: Buffer }

/** WebSocket upgrades. */
export type Tunnel = {
  /** Listener for a server's `upgrade` event; never rejects. */
  upgrade(req: IncomingMessage, socket: Socket, head: Buffer): Promise<void>
  /** Whether any tunnel of the session is open. */
  hasSession(session: BffSession['hash']): boolean
  /** Every session that has a tunnel. */
  sessions(): BffSession['hash'][]
  /** Closes the tunnels of a session that ended, with 1008. */
  endSession(session: BffSession['hash']): void
  /** Closes every tunnel with 1001 and refuses new ones. */
  closeAll(): void
  /** How many are open or being opened. */
  count(): number
}

/** Makes the upgrade listener: the same checks as for a request, with `Origin` in place of the CSRF header. */
export function createTunnel(deps: TunnelDeps): Tunnel {
  const trustedOrigins = new Set([deps.publicUrl, ...deps.allowedOrigins])
  const { live = createLiveConnections() } = deps
  let dialing: Promise<Dial> | undefined
  let isClosing = false

  /** Loads what dials at the first handshake that passed its checks: a start, and a replica without tunnels, do without. */
  function loadDial(): Promise<Dial> {
    dialing ??= import('./dial.ts').then(({ createDial }) => createDial(deps))
    return dialing
  }

  /** Runs every check, and gives what the upstream is to be sent; undefined when the client has left meanwhile. */
  async function checkHandshake(
    { route, target }: RouteMatch,
    req: IncomingMessage,
    client: Socket,
  ): Promise<Handshake | undefined> {
    const offer = requireHandshake(req, { sendsToken: route.resource !== undefined })
    if (!route.websocket) throw new BffError('bad_request', 'this route serves no WebSocket')
    const bearer = route.bearer && deps.bearerCaller?.(req, route)
    if (bearer) {
      const caller = await inTime(bearer, { timeoutMs: route.timeout.responseMs, client })
      if (!caller) return undefined
      const { session, token } = caller
      return { route, target, offer, session, token, headers: fieldsFor(req, route, caller) }
    }
    if (!trustedOrigins.has(req.headers.origin ?? ''))
      throw new BffError('origin_forbidden', 'Origin is not allowed')
    let session = await requireSession(deps, route, req)
    // Before the access rules: their refusal, too, is told with the session.
    if (session) deps.factsOf(req).session = session.hash.slice(0, 12)
    let token = session && route.resource ? deps.accessToken(session, route.resource) : undefined
    if (token instanceof Promise) {
      const answer = mapRefusal(token, session!, deps.tokenRefused)
      token = await inTime(answer, { timeoutMs: route.timeout.responseMs, client })
      if (client.destroyed) return undefined
      // A refresh may have brought other claims, by which access is judged, and which the upstream is told.
      if (route.require || route.headers.length > 0) session = await requireSession(deps, route, req)
      if (!session) token = undefined
    }
    if (client.destroyed) return undefined
    if (route.require) await requireAccess(deps, { ...route, require: route.require }, { session, token })
    return { route, target, headers: fieldsFor(req, route, { session, token }), session, offer, token }
  }

  function fieldsFor(
    req: IncomingMessage,
    route: RouteConfig,
    { session, token }: { session: BffSession | undefined; token: AccessToken | undefined },
  ): string[] {
    const facts = deps.factsOf(req)
    const fields = deps.requestHeaders(route, req.rawHeaders, {
      clientAddress: deps.clientAddress(req),
      ...{ requestId: facts.id, context: facts.context },
      accessToken: token?.value,
      claims: session?.claims,
    })
    return withoutLookalikes(fields)
  }

  /** Registers the tunnel before it looks at the session again, so that an end of the session in between is not missed. */
  function open(dial: Dial, handshake: Handshake, client: UpgradingClient): void {
    const { session } = handshake
    if (isClosing) throw new BffError('upstream_unreachable', 'shutting down')
    const anonymousClient = session ? undefined : (deps.clientOf?.(client.req) ?? '')
    requirePermit(session, anonymousClient)
    const end = dial(handshake, client)
    const forget = live.add(session?.hash, end, anonymousClient)
    const unwatch = session && watch(deps, session, end)
    onceClosed(client.socket, forget, unwatch)
  }

  function requirePermit(session: BffSession | undefined, anonymousClient = ''): void {
    if (!deps.limits) return
    const { webSocketsPerSession, webSocketsPerClient } = deps.limits
    if (session && live.countOf(session.hash) >= webSocketsPerSession)
      throw new BffError('rate_limited', 'this session has too many WebSockets open')
    if (!session && live.countOfClient(anonymousClient) >= webSocketsPerClient)
      throw new BffError('rate_limited', 'too many WebSockets without a session are open from this address')
  }

  function upgrade(req: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    // This comes first, because a reset during the look-ups below would otherwise end the process.
    socket.on('error', destroyThis)
    const facts = deps.factsOf(req)
    return deps.runFor(req, () => checkAndOpen({ req, socket, head }, facts))
  }

  async function checkAndOpen({ req, socket, head }: Upgrading, facts: ForwardedFacts): Promise<void> {
    let matched: RouteMatch | undefined
    const observe = (status: number, error?: unknown) => deps.observe?.(req, status, error)
    function refuse(error: unknown): void {
      deps.refused?.(req, error)
      observe(deps.refuse(socket, error, { headers: varyOf(matched?.route), requestId: facts.id }), error)
    }
    try {
      matched = deps.match(req.method!, req.url!)
      if (!matched) throw new BffError('route_not_found', 'no route matches this path')
      facts.route = matched.route.id
      const handshake = await checkHandshake(matched, req, socket)
      if (!handshake) return
      const dial = await loadDial()
      if (socket.destroyed) return
      if (handshake.session) facts.session = handshake.session.hash.slice(0, 12)
      if (handshake.token) facts.resource = handshake.route.resource
      open(dial, handshake, { req, socket, head, refuse, observe, requestId: facts.id })
    } catch (error) {
      refuse(error)
    }
  }

  function closeAll(): void {
    isClosing = true
    live.endAll()
  }
  const { hasSession, sessions, endSession, count } = live
  return { upgrade, hasSession, sessions, endSession, closeAll, count }
}

function varyOf(route: RouteConfig | undefined): Readonly<Record<string, string>> {
  if (!route || route.auth === 'anonymous') return {}
  return { vary: route.bearer ? 'Cookie, Authorization' : 'Cookie' }
}

async function requireSession(
  { findSession }: TunnelDeps,
  route: RouteConfig,
  req: IncomingMessage,
): Promise<BffSession | undefined> {
  if (route.auth === 'anonymous') return undefined
  const session = await findSession(req, route.resource)
  if (!session && route.auth === 'required') throw sessionRequired(route)
  return session
}

/** Rejects with access_denied or reauthentication_required (contract section 4b). */
async function requireAccess(
  { accessRefusal, tokenRefused }: TunnelDeps,
  route: RouteConfig & { readonly require: AccessRules },
  { session, token }: { session: BffSession | undefined; token: AccessToken | undefined },
): Promise<void> {
  if (!session) throw new BffError('session_required', 'this route needs a signed-in session')
  const refusal = accessRefusal(route, session, token)
  if (refusal) throw tokenRefused ? await tokenRefused(refusal, session) : refusal
}

// Listeners of an open socket keep what is in their scope, so these are made apart from the upgrade, its request and its head.

function watch(
  { timeLeft }: TunnelDeps,
  { id, hash, expiresAt }: BffSession,
  end: (reason: EndReason) => void,
): (() => void) | undefined {
  return (
    timeLeft &&
    watchSession({ timeLeft: () => timeLeft({ id, hash, expiresAt }), end: () => end('session_over') })
  )
}

function onceClosed(socket: Socket, forget: () => void, unwatch?: () => void): void {
  socket.on('close', () => {
    forget()
    unwatch?.()
  })
}

function destroyThis(this: Socket): void {
  this.destroy()
}
