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
import { ownAnswerHeaders } from './http/own-headers.ts'
import { problemAnswer } from './http/problem.ts'
import { createRequestLog } from './http/request-log.ts'
import { createSameOriginGuard, isTopLevelNavigation, type RequireSameOrigin } from './http/same-origin.ts'
import type { Logger } from './log.ts'
import { createLoginAttempts, LOGIN_LIFETIME_MS } from './oidc/login.ts'
import type { createProvider } from './oidc/provider.ts'
import { parseReturnUrl } from './oidc/return-url.ts'
import { createStepUps } from './oidc/step-up.ts'
import { ownCookieNames } from './proxy/cookies.ts'
import { createForward } from './proxy/forward.ts'
import { compileRoutes } from './proxy/route-table.ts'
import { createTunnel } from './proxy/tunnel.ts'
import { createUpstreams } from './proxy/upstream.ts'
import type { BffSession } from './session/bff-session.ts'
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
  const ownHeaders = ownAnswerHeaders(publicUrl)
  const clientAddress = createClientAddress(config.trustProxy)
  const requestLog = createRequestLog({
    log,
    observe: metrics.request,
    nowMs: () => performance.now(),
    clientIp: clientAddress,
  })
  const upstreams = createUpstreams(config.routes)
  const stepUps = createStepUps({ ...sealedLogins(rooms), loginPath: `${basePath}/login`, now: rooms.now })
  const requireSameOrigin = createSameOriginGuard({ publicUrl, allowedOrigins })
  const passage = {
    match: compileRoutes(config.routes),
    accessToken: withStepUps(stepUps, tokens.tokenFor),
    clientAddress,
    site: { publicUrl, isOwnCookie: ownCookieNames(config.session.cookie.name) },
  }
  const forward = createForward({
    ...passage,
    findSession: sessions.find,
    onRejectedToken: withStepUps(stepUps, tokens.onRejected),
    factsOf: requestLog.factsOf,
    requireSameOrigin,
    isTopLevelNavigation,
    ownHeaders,
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
    bffRoutes: composeBffRoutes(rooms, { requireSameOrigin, stepUps }),
    cors: createCors(allowedOrigins),
    forward,
    ownHeaders,
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

/** A refusal that the user can cure by signing in again gets the login URL that says how. */
function withStepUps<Rest extends unknown[], Answer>(
  stepUps: StepUps,
  ask: (session: BffSession, ...rest: Rest) => Answer,
): (session: BffSession, ...rest: Rest) => Answer {
  return (session, ...rest) => {
    const answer = ask(session, ...rest)
    if (!(answer instanceof Promise)) return answer
    return answer.catch(async (error) => {
      throw await stepUps.withLoginUrl(error, session)
    }) as Answer
  }
}

/** Short-lived records that only what the browser holds can open. */
function sealedLogins({ sealing, store }: Rooms) {
  return {
    records: store.logins,
    seal: (id: string, text: string) => sealing.seal({ id, kind: 'login' }, text),
    open: (id: string, sealed: string) => sealing.open({ id, kind: 'login' }, sealed),
  }
}

type StepUps = ReturnType<typeof createStepUps>

function composeBffRoutes(
  rooms: Rooms,
  { requireSameOrigin, stepUps }: { requireSameOrigin: RequireSameOrigin; stepUps: StepUps },
) {
  const { config, metrics, now, provider, sessions, store, tokens } = rooms
  const { cookie } = config.session
  const loginAttempts = createLoginAttempts(sealedLogins(rooms))
  const finishSignIn = createFinishSignIn({
    redirectUri: provider.redirectUri,
    allowedTenants: config.provider.allowedTenants,
    sessions,
    codeGrant: provider.codeGrant,
    keepTokens: (session, granted, stepUp) =>
      tokens.keepFirst(session, granted, provider.resourceOf(granted, stepUp)),
    discard: (session) => tokens.end(session, 'discarded'),
    endReplaced: async (hash) => (await store.sessions.end(hash)) !== undefined,
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
    takeStepUp: stepUps.take,
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
