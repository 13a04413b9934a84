import { randomBytes, randomUUID } from 'node:crypto'
import { IncomingMessage, ServerResponse } from 'node:http'
import { createThrottledWarning } from '../async/log-throttle.ts'
import { BffError } from '../errors.ts'
import { createCors } from '../http/cors.ts'
import { createEdge } from '../http/edge.ts'
import { createBffRoutes } from '../http/endpoints/endpoints.ts'
import { createEndEarlier, createFinishSignIn } from '../http/endpoints/finish-sign-in.ts'
import { createLoginCookies } from '../http/endpoints/login-cookies.ts'
import { createLoginUrls, type LoginUrlFor } from '../http/endpoints/login-url.ts'
import { createEarlierCookie } from '../http/endpoints/previous-session-cookie.ts'
import { problemAnswer } from '../http/problem.ts'
import { createRateLimits } from '../http/rate-limit.ts'
import { createRequestLog, type RequestLog } from '../http/request-log.ts'
import { createSameOriginGuard, isTopLevelNavigation, type RequireSameOrigin } from '../http/same-origin.ts'
import { ownAnswerHeaders } from '../http/security-headers.ts'
import {
  type ClientAddress,
  clientNetwork,
  createClientAddress,
  createTrustedPeers,
} from '../http/server/client-address.ts'
import { createHostCheck } from '../http/server/host.ts'
import { createMessageCheck } from '../http/server/message-checks.ts'
import { endWithAnswer } from '../http/server/raw-answer.ts'
import { createFront } from '../http/server/request-guard.ts'
import {
  type BeginSignIn,
  createBeginSignIn,
  createLoginAttempts,
  type EarlierSession,
  LOGIN_LIFETIME_MS,
} from '../oidc/sign-in/attempts.ts'
import type { EndSessionRequest } from '../oidc/sign-in/end-session.ts'
import { parseReturnUrl } from '../oidc/sign-in/return-url.ts'
import { createSingleUseReferences } from '../oidc/sign-in/single-use-references.ts'
import { createStepUps, STEP_UP_LIFETIME_MS } from '../oidc/sign-in/step-up.ts'
import { createForward } from '../proxy/forward.ts'
import { ownCookieNames } from '../proxy/headers/cookies.ts'
import { compileRequestHeaders } from '../proxy/headers/request.ts'
import { compileResponseHeaders } from '../proxy/headers/response.ts'
import { compileRoutes, type MatchRoute } from '../proxy/route-table.ts'
import { endWithSessions, watchSession } from '../proxy/session-end/session-watch.ts'
import { createUpstreams } from '../proxy/upstream/upstream.ts'
import { createTunnel } from '../proxy/websocket/tunnel.ts'
import { type BffSession, sessionHash } from '../session/bff-session.ts'
import { createPseudonyms } from '../tokens/record/sealing.ts'
import type { Rooms } from './config-scope.ts'

/** Everything on the public listener: Cloakroom's own endpoints, the proxy, and the tunnels. */
export function composePublic(rooms: Rooms) {
  const { config, log, metrics, sessions, store, tokens } = rooms
  const { publicUrl, basePath, allowedOrigins } = config
  const ownHeaders = ownAnswerHeaders(publicUrl)
  const clientAddress = createClientAddress(config.trustProxy)
  const isTrustedPeer = createTrustedPeers(config.trustProxy)
  const whyNoSession = countingMissing(rooms)
  const requestLog = createRequestLog({
    log,
    observe: metrics.request,
    nowMs: () => performance.now(),
    clientIp: clientAddress,
    whyNoSession,
  })
  const front = createFront({
    check: createMessageCheck({
      hosts: createHostCheck(config),
      isTrustedPeer,
      limits: config.limits,
    }),
    requestLog,
    ownHeaders,
    observe: (method, status) => metrics.request('none', method, status, 0),
  })
  const site = { publicUrl, isOwnCookie: ownCookieNames(config.session.cookie.name) }
  const responseHeaders = compileResponseHeaders(config.routes, site)
  const upstreams = createUpstreams(config.routes, {
    responseHeaders,
    now: () => performance.now(),
    observeBreaker: tellOfBreakers(rooms),
    // A body has the time of a head before its pace is looked at.
    bodyPace: { bytesPerSecond: config.limits.bodyRate, graceMs: config.limits.headerTimeoutMs },
    watch: (req, end) => watchSession({ peek: () => sessions.peek(...lookAside(req)), now: rooms.now, end }),
  })
  const { monotonicNow } = rooms
  const stepUps = createStepUps({
    references: createSingleUseReferences(sealedLogins(rooms), {
      kind: 'step-up',
      lifetimeMs: STEP_UP_LIFETIME_MS,
    }),
    loginPath: `${basePath}/login`,
    monotonicNow,
  })
  const match = compileRoutes(config.routes, basePath)
  const returning = composeReturning(rooms, match)
  const { loginUrlFor } = returning
  const requireSameOrigin = createSameOriginGuard({ publicUrl, allowedOrigins })
  const passage = {
    match,
    accessToken: withStepUps(stepUps, tokens.tokenFor),
    clientAddress,
    requestHeaders: compileRequestHeaders(config.routes, site),
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
    loginUrl: (req) => pageLoginUrl(loginUrlFor(req.url), config),
  })
  const warnOfWebSockets = createThrottledWarning(
    log,
    'WebSockets refused: as many are open as limits.webSocketsPerSession or limits.webSocketsPerClient say',
  )
  const tunnel = createTunnel({
    ...passage,
    // express-session takes an answer to put its cookie on; an upgrade has none, and needs none.
    findSession: (req) => sessions.find(req, new ServerResponse(req)),
    peekSession: (req) => sessions.peek(req, new ServerResponse(req)),
    now: rooms.now,
    requestId: () => randomUUID(),
    ...{ publicUrl, allowedOrigins, responseHeaders },
    limits: config.limits,
    clientOf: (req) => clientNetwork(clientAddress(req)),
    live: rooms.tunnels,
    refuse(socket, error, headers) {
      if (error instanceof BffError && error.code === 'rate_limited') warnOfWebSockets()
      const answer = problemAnswer(error, { loginUrl: loginUrlFor() })
      endWithAnswer(socket, { ...answer, headers: { ...ownHeaders, ...headers, ...answer.headers } })
      return answer.status
    },
    refused(req, error) {
      if (!(error instanceof BffError) || error.code !== 'session_required') return
      const fields = { code: error.code, status: 401, clientIp: clientAddress(req) }
      whyNoSession(req).then((reason) => log.info({ ...fields, reason }, 'a WebSocket was refused'))
    },
    observe: (route, status) => metrics.request(route, 'UPGRADE', status, 0),
  })
  const unsubscribe = endWithSessions({
    ...store.invalidations,
    connections: [tunnel, upstreams],
    exists: async (hash) => (await store.sessions.read(hash, { slide: false })) !== undefined,
  })
  const edge = createEdge({
    publicUrl,
    basePath,
    requestLog,
    bffRoutes: composeBffRoutes(rooms, {
      ...returning,
      ...{ requireSameOrigin, stepUps, clientAddress, factsOf: requestLog.factsOf },
    }),
    loginUrlFor,
    cors: createCors(allowedOrigins, ownHeaders),
    forward,
    ownHeaders,
    log,
    observeSignInFailure: metrics.signInFailed,
    monotonicNow,
  })
  return { front, isTrustedPeer, edge, tunnel, upstreams, unsubscribe }
}

/** Why a request that was refused has no session, counted. */
function countingMissing({ metrics, missing }: Rooms): (req: IncomingMessage) => Promise<string | undefined> {
  return async (req) => {
    const reason = await missing.reasonOf(req)
    if (reason) metrics.sessionMissing(reason)
    return reason
  }
}

/** express-session notes on a request what it finds, and saves what is there when the answer ends: it gets another pair. */
function lookAside({ socket, headers }: IncomingMessage): [IncomingMessage, ServerResponse] {
  const req = new IncomingMessage(socket)
  req.url = '/'
  if (headers.cookie !== undefined) req.headers.cookie = headers.cookie
  return [req, new ServerResponse(req)]
}

function tellOfBreakers({ log, metrics }: Rooms) {
  return (upstream: string, isOpen: boolean) => {
    metrics.upstreamBreaker(upstream, isOpen)
    if (isOpen) log.warn({ upstream }, 'the upstream does not answer and is left alone')
    else log.info({ upstream }, 'the upstream answers again')
  }
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

type Returning = {
  readonly parseReturnUrl: (value: unknown) => string | undefined
  readonly loginUrlFor: LoginUrlFor
}

/** Where people may be sent back to: whatever path the proxy lets through. */
function composeReturning({ config }: Rooms, match: MatchRoute): Returning {
  const { publicUrl, basePath, limits } = config
  function isServed(target: string): boolean {
    try {
      match('GET', target)
      return true
    } catch (error) {
      return !(error instanceof BffError && error.code === 'path_rejected')
    }
  }
  const parseReturn = (value: unknown) => parseReturnUrl(value, { publicUrl, basePath, isServed })
  const loginUrlFor = createLoginUrls({
    basePath,
    urlLength: limits.urlLength,
    parseReturnUrl: parseReturn,
  })
  return { parseReturnUrl: parseReturn, loginUrlFor }
}

/** A redirect leads a download away from the page that the tab shows, wherever that is; under Strict a page does anyway. */
function pageLoginUrl(loginUrl: string, { session }: Rooms['config']): string {
  return session.cookie.sameSite === 'lax' && loginUrl.includes('?') ? `${loginUrl}&landing=page` : loginUrl
}

/** Values that the browser carries as a reference, for as long as a sign-in may take. */
function referencesFor<T>(rooms: Rooms, kind: string) {
  return createSingleUseReferences<T>(sealedLogins(rooms), { kind, lifetimeMs: LOGIN_LIFETIME_MS })
}

function composeBffRoutes(
  rooms: Rooms,
  {
    clientAddress,
    factsOf,
    ...given
  }: Returning & {
    requireSameOrigin: RequireSameOrigin
    stepUps: StepUps
    clientAddress: ClientAddress
    factsOf: RequestLog['factsOf']
  },
) {
  const { config, metrics, now, provider, sessions, store, tokens } = rooms
  const { cookie } = config.session
  const loginAttempts = createLoginAttempts(sealedLogins(rooms))
  const beginSignIn = createBeginSignIn({ attempts: loginAttempts, provider })
  const loggedOutReturns = referencesFor<string>(rooms, 'logged-out')
  return createBffRoutes({
    ...given,
    basePath: config.basePath,
    rateLimits: composeRateLimits(rooms, clientAddress),
    sameSite: cookie.sameSite,
    sessions,
    loginAttempts,
    loginCookies: createLoginCookies(cookie, LOGIN_LIFETIME_MS),
    earlierCookie: composeEarlierCookie(rooms),
    beginSignIn,
    finishSignIn: composeFinishSignIn(rooms, beginSignIn),
    endEarlier: createEndEarlier({
      end: async ({ hash }) => (await store.sessions.end(hash)) !== undefined,
      endAndRevoke: ({ id, hash }) => tokens.endReplaced({ id, hash }),
      observe: () => metrics.session('ended', 'replaced'),
    }),
    sessionOf: (req) => sessions.peek(...lookAside(req)),
    noteReturnUrl(req, returnUrl) {
      factsOf(req).returnUrl = returnUrl
    },
    loggedOutReturns,
    endSessionForms: referencesFor<EndSessionRequest['form']>(rooms, 'end-session'),
    async endSession(session, returnUrl) {
      await tokens.end(session, 'logout')
      return provider.endSession(session.idToken, () =>
        loggedOutReturns.keep(returnUrl).catch(() => undefined),
      )
    },
    clearSessionCookie: (res) => {
      res.clearCookie(cookie.name, {
        httpOnly: true,
        secure: cookie.secure,
        sameSite: cookie.sameSite,
        path: '/',
      })
    },
    now,
  })
}

/** Sealed under a secret of its own, as what goes into the store is: the value alone opens nothing. */
function composeEarlierCookie({ config, sealing }: Rooms) {
  return createEarlierCookie({
    cookie: config.session.cookie,
    basePath: config.basePath,
    seal({ id, sub, sid }) {
      const secret = randomBytes(16).toString('base64url')
      return `${secret}.${sealing.seal({ id: `before ${secret}`, kind: 'login' }, JSON.stringify({ id, sub, sid }))}`
    },
    open(value) {
      const [secret = ''] = value.split('.', 1)
      const text = sealing.open({ id: `before ${secret}`, kind: 'login' }, value.slice(secret.length + 1))
      if (text === undefined) return undefined
      const session = JSON.parse(text) as Omit<EarlierSession, 'hash'>
      return { ...session, hash: sessionHash(session.id) }
    },
  })
}

function composeFinishSignIn(
  { config, metrics, provider, sessions, tokens }: Rooms,
  beginSignIn: BeginSignIn,
) {
  return createFinishSignIn({
    redirectUri: provider.redirectUri,
    allowedTenants: config.provider.allowedTenants,
    sessions,
    codeGrant: provider.codeGrant,
    noteFailed: provider.noteFailed,
    keepTokens: (session, granted, stepUp) =>
      tokens.keepFirst(session, granted, provider.resourceOf(granted, session, stepUp)),
    async repeatForRefreshToken(attempt, granted) {
      if (!provider.isToBeRepeated(attempt, granted)) return undefined
      const { returnUrl, earlier, hadCookie, beganAtRoute, asked, loginHint } = attempt
      return beginSignIn({ returnUrl, earlier, hadCookie, beganAtRoute, asked, loginHint, isRepeated: true })
    },
    discard: (session) => tokens.end(session, 'discarded'),
    observe: () => metrics.session('started', 'login'),
  })
}

function composeRateLimits({ config, metrics, store }: Rooms, clientAddress: ClientAddress) {
  const counts = Object.entries(config.rateLimits).map(([endpoint, limit]) => [
    endpoint,
    store.countRequests(endpoint, limit),
  ])
  return createRateLimits({
    counts: Object.fromEntries(counts),
    clientAddress,
    nameOf: createPseudonyms(config.session.keys),
    refused: metrics.rateLimited,
  })
}
