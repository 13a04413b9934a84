import { randomUUID } from 'node:crypto'
import { ServerResponse } from 'node:http'
import type { Metrics } from './admin/metrics.ts'
import type { Config } from './config/config.ts'
import { createBffRoutes, loginUrlFor } from './http/bff-routes.ts'
import { createClientAddress } from './http/client-address.ts'
import { createCors } from './http/cors.ts'
import { createEdge } from './http/edge.ts'
import { createFinishSignIn } from './http/finish-sign-in.ts'
import { createLoginCookies } from './http/login-cookies.ts'
import { problemAnswer } from './http/problem.ts'
import { createRequestLog } from './http/request-log.ts'
import { createSameOriginGuard, isTopLevelNavigation } from './http/same-origin.ts'
import type { Logger } from './log.ts'
import { createLoginAttempts, LOGIN_LIFETIME_MS } from './oidc/login.ts'
import type { createProvider } from './oidc/provider.ts'
import { parseReturnUrl } from './oidc/return-url.ts'
import { ownCookieNames } from './proxy/cookies.ts'
import { createForward } from './proxy/forward.ts'
import { compileRoutes } from './proxy/route-table.ts'
import { createTunnel } from './proxy/tunnel.ts'
import { createUpstreams } from './proxy/upstream.ts'
import type { createSessions } from './session/session.ts'
import type { SessionHash, Store } from './store/port.ts'
import type { Sealing } from './tokens/sealed.ts'
import type { createTokens } from './tokens/tokens.ts'

/** What the rooms behind the public listener have to offer. */
export type Rooms = {
  readonly config: Config
  readonly log: Logger
  readonly now: () => number
  readonly metrics: Metrics
  readonly store: Store
  readonly sealing: Sealing
  readonly provider: ReturnType<typeof createProvider>
  readonly sessions: ReturnType<typeof createSessions>
  readonly tokens: ReturnType<typeof createTokens>
}

/** Everything on the public listener: Cloakroom's own endpoints, the proxy, and the tunnels. */
export function composePublic(rooms: Rooms) {
  const { config, log, metrics, sessions, store, tokens } = rooms
  const { publicUrl, basePath, allowedOrigins } = config
  const clientAddress = createClientAddress(config.trustProxy)
  const requestLog = createRequestLog({
    log,
    observe: metrics.request,
    nowMs: () => performance.now(),
    clientIp: clientAddress,
  })
  const upstreams = createUpstreams(config.routes)
  const requireSameOrigin = createSameOriginGuard({ publicUrl, allowedOrigins })
  const passage = {
    match: compileRoutes(config.routes),
    accessToken: tokens.tokenFor,
    clientAddress,
    site: { publicUrl, isOwnCookie: ownCookieNames(config.session.cookie.name) },
  }
  const forward = createForward({
    ...passage,
    findSession: sessions.find,
    factsOf: requestLog.factsOf,
    requireSameOrigin,
    isTopLevelNavigation,
    send: upstreams.send,
    loginUrl: (req) => loginUrlFor(basePath, req),
  })
  const tunnel = createTunnel({
    ...passage,
    // express-session takes an answer to put its cookie on; an upgrade has none, and needs none.
    findSession: (req) => sessions.find(req, new ServerResponse(req)),
    peekSession: (req) => sessions.peek(req, new ServerResponse(req)),
    now: rooms.now,
    requestId: () => randomUUID(),
    allowedOrigins,
    problemFor: (error) => problemAnswer(error, { loginUrl: loginUrlFor(basePath) }),
    observe: (route, status) => metrics.request(route, 'UPGRADE', status, 0),
  })
  const unsubscribe = store.invalidations.onInvalidate((hash) => {
    if (hash !== undefined) endStreamsOfEnded(store, hash, [tunnel, upstreams])
  })
  const edge = createEdge({
    publicUrl,
    basePath,
    requestLog,
    bffRoutes: composeBffRoutes(rooms, requireSameOrigin),
    cors: createCors(allowedOrigins),
    forward,
    log,
  })
  return { edge, tunnel, upstreams, unsubscribe }
}

type Streams = { hasSession(hash: SessionHash): boolean; endSession(hash: SessionHash): void }

/** The channel also tells of sessions that only changed: the store knows which it was. */
function endStreamsOfEnded(store: Store, hash: SessionHash, streams: readonly Streams[]): void {
  const concerned = streams.filter((kind) => kind.hasSession(hash))
  if (concerned.length === 0) return
  store.sessions.read(hash, { slide: false }).then(
    (found) => {
      if (!found) for (const kind of concerned) kind.endSession(hash)
    },
    // Without the store nobody can say that the session ended; its streams end when it is known.
    () => undefined,
  )
}

function composeBffRoutes(rooms: Rooms, requireSameOrigin: ReturnType<typeof createSameOriginGuard>) {
  const { config, metrics, now, provider, sealing, sessions, store, tokens } = rooms
  const { cookie } = config.session
  const loginAttempts = createLoginAttempts({
    records: store.logins,
    seal: (id, text) => sealing.seal({ id, kind: 'login' }, text),
    open: (id, sealed) => sealing.open({ id, kind: 'login' }, sealed),
  })
  const finishSignIn = createFinishSignIn({
    redirectUri: provider.redirectUri,
    allowedTenants: config.provider.allowedTenants,
    sessions,
    codeGrant: provider.codeGrant,
    keepTokens: (session, granted) => tokens.keepFirst(session, granted, provider.resourceOf(granted)),
    discard: (session) => tokens.end(session, 'discarded'),
    async endReplaced(hash) {
      await store.sessions.end(hash)
    },
    observe: (event) =>
      event === 'started' ? metrics.session('started', 'login') : metrics.session('ended', 'replaced'),
  })
  return createBffRoutes({
    basePath: config.basePath,
    sameSite: cookie.sameSite,
    sessions,
    loginAttempts,
    loginCookies: createLoginCookies(cookie, LOGIN_LIFETIME_MS),
    authorizationUrl: provider.authorizationUrl,
    finishSignIn,
    async endSession(session, returnUrl) {
      await tokens.end(session, 'logout')
      return provider.endSessionUrl(session.idToken, returnUrl)
    },
    clearSessionCookie: (res) => {
      res.clearCookie(cookie.name, {
        httpOnly: true,
        secure: cookie.secure,
        sameSite: cookie.sameSite,
        path: '/',
      })
    },
    parseReturnUrl: (value) => parseReturnUrl(value, config.publicUrl, config.basePath),
    requireSameOrigin,
    now,
  })
}
