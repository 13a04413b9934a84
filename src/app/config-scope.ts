// Over 400 lines, because it is one list: everything that belongs to one configuration, each part made of those above it.

import type { IncomingMessage } from 'node:http'
import type { Metrics } from '../admin/metrics.ts'
import { heapShare } from '../async/expiring-map.ts'
import { createThrottledWarning } from '../async/log-throttle.ts'
import type { Trace } from '../async/trace.ts'
import type { Config } from '../config/config.ts'
import { BffError, describeError } from '../errors.ts'
import { createEdge } from '../http/edge.ts'
import { createBffRoutes } from '../http/endpoints/bff-routes.ts'
import { POSTED_RESPONSE_LIFETIME_MS } from '../http/endpoints/callback.ts'
import { createEndPreviousSessions, createFinishSignIn } from '../http/endpoints/finish-sign-in.ts'
import { createLoginUrls, pageLoginUrl } from '../http/endpoints/login.ts'
import { createLoginCookies } from '../http/endpoints/login-cookies.ts'
import { createPreviousSessionCookie } from '../http/endpoints/previous-session-cookie.ts'
import { createCors, createSameOriginGuard, isTopLevelNavigation } from '../http/origins.ts'
import { problemAnswer, statusOf } from '../http/problem.ts'
import { createFailureLimit, createRateLimits } from '../http/rate-limit.ts'
import { createRequestLog, endSpan, pathOf } from '../http/request-log.ts'
import { createSecurityHeaders } from '../http/security-headers.ts'
import { createHostCheck } from '../http/server/host.ts'
import { endWithAnswer } from '../http/server/raw-answer.ts'
import {
  clientNetwork,
  createClientAddress,
  createRequestGuard,
  createTrustedPeers,
} from '../http/server/request-guard.ts'
import { readSmallBody } from '../http/small-body.ts'
import { invalidToken } from '../oidc/bearer-token.ts'
import { createProofs } from '../oidc/dpop.ts'
import { type ActOnce, actOnce } from '../oidc/events/event-token.ts'
import { reusesRefreshTokens } from '../oidc/grants/dialects.ts'
import { createTokenScopes, untoldScope } from '../oidc/grants/scopes.ts'
import { createProvider } from '../oidc/provider.ts'
import { createLoginAttempts, LOGIN_LIFETIME_MS } from '../oidc/sign-in/attempts.ts'
import { createBeginSignIn } from '../oidc/sign-in/authorization.ts'
import type { EndSessionRequest } from '../oidc/sign-in/end-session.ts'
import { parseReturnUrl } from '../oidc/sign-in/return-url.ts'
import { createSingleUseReferences } from '../oidc/sign-in/single-use-references.ts'
import { createStepUps, STEP_UP_LIFETIME_MS } from '../oidc/sign-in/step-up.ts'
import { isSharedAuthority } from '../oidc/token-endpoint/endpoints.ts'
import { createAccessCheck } from '../proxy/access-rules.ts'
import { mapRefusal } from '../proxy/access-token.ts'
import { createFindBearerCaller } from '../proxy/bearer.ts'
import { createForward } from '../proxy/forward.ts'
import { ownCookieNames } from '../proxy/headers/dropped.ts'
import { compileRequestHeaders } from '../proxy/headers/request.ts'
import { compileResponseHeaders } from '../proxy/headers/response.ts'
import { compileRoutes, isServed } from '../proxy/route-table.ts'
import { endWithSessions, watchSession } from '../proxy/session-end/live-connections.ts'
import { failureOf } from '../proxy/upstream/dispatcher.ts'
import type { Send } from '../proxy/upstream/exchange.ts'
import { createTokenProofs } from '../proxy/upstream/token-proofs.ts'
import { createUpstreams } from '../proxy/upstream/upstreams.ts'
import { createTunnel } from '../proxy/websocket/tunnel.ts'
import { createFollowClaims } from '../session/follow-claims.ts'
import { createMissingSessions } from '../session/missing-session.ts'
import {
  type BffSession,
  createSessions,
  hasSessionCookie,
  isOfBearer,
  sessionHash,
} from '../session/session.ts'
import { createSessionCache } from '../session/session-cache.ts'
import { createUserSessions } from '../session/session-index.ts'
import { createSessionStore } from '../store/session-store.ts'
import { createBearerExchange } from '../tokens/bearer-exchange.ts'
import { createSharedClientTokens } from '../tokens/client/shared-client-tokens.ts'
import {
  bindToGrants,
  cookieSigningSecrets,
  createIndexPseudonyms,
  createPseudonyms,
  createSealing,
  type OpenedTokens,
} from '../tokens/record/sealing.ts'
import { createTokens } from '../tokens/tokens.ts'
import type { ProcessScope } from './process-scope.ts'
import { createSignalEndpoints } from './signal-endpoints.ts'

/** Everything that belongs to one configuration. */
export type ConfigScope = ReturnType<typeof createConfigScope>

/** Longest time that a copy of a session or token is used without a look at the store. */
const COPIES_TRUSTED_MS = 5_000
const COPIES_HELD = 20_000
/** Part of the heap for the copies of one kind. Both kinds, under an old and a new configuration, take a third at most. */
const COPIES_SHARE = 1 / 12
/** An authorization response with an ID token in it, and room to spare. */
const MAX_FORM_BYTES = 65_536
/** Where no response is asked to be posted: one without an ID token, of a sign-in that began before a reload. */
const MAX_UNASKED_FORM_BYTES = 4096

/**
 * Wires everything of one configuration, from the keys up to the public listener: each part is made of those above it.
 * What lives as long as the process comes from `scope`.
 */
export function createConfigScope(config: Config, scope: ProcessScope) {
  const { log, metrics, trace, now, monotonicNow, store } = scope
  const { publicUrl, basePath, allowedOrigins, limits, trustProxy } = config
  const { cookie, keys, idleTimeoutMs } = config.session

  const clientAddress = createClientAddress(trustProxy)

  // Sealing: what goes into the store opens with the session keys and the secret that the browser holds.
  const sealing = bindToGrants(createSealing(keys, metrics.decryptFailed), config)
  const signingSecrets = cookieSigningSecrets(keys)
  const sealSession = (id: string, text: string) => sealing.seal({ id, kind: 'session' }, text)
  const openSession = (id: string, sealed: string) => sealing.open({ id, kind: 'session' }, sealed)
  const sealLogin = (id: string, text: string) => sealing.seal({ id, kind: 'login' }, text)
  const openLogin = (id: string, sealed: string) => sealing.open({ id, kind: 'login' }, sealed)
  const logins = { records: store.logins, seal: sealLogin, open: openLogin }

  // The authorization server.
  const provider = createProvider({
    ...{ config, log, trace, now, monotonicNow, observe: metrics.provider },
    ...{ limiters: scope.limiters, offlineConsent: scope.offlineConsent, certificates: scope.certificates },
  })

  // Sessions. A short idle timeout must still be extended often enough, so copies are trusted for a part of it.
  const copies = {
    ...{ invalidations: store.invalidations, monotonicNow, max: COPIES_HELD },
    ...{ trustedMs: Math.min(COPIES_TRUSTED_MS, idleTimeoutMs / 10), maxBytes: heapShare(COPIES_SHARE) },
  }
  const sessionCopies = createSessionCache<BffSession>({
    ...copies,
    lifeMs: ({ expiresAt }) => expiresAt - now(),
  })
  // The audit stream names a user by a pseudonym, because a log is read by more people than the directory.
  const pseudonymOf = createPseudonyms(keys)
  const subjectOf = ({ iss, sub }: BffSession['claims']) => pseudonymOf(JSON.stringify(['audit', iss, sub]))
  function sessionEnded(hash: BffSession['hash'], reason: string): void {
    metrics.session('ended', reason)
    log.audit?.('session_ended', { session: hash.slice(0, 12), reason, by: endedBy(reason) })
  }
  const missingSessions = createMissingSessions({
    ...{ cookieName: cookie.name, signingSecrets, records: store.sessions, open: openSession, monotonicNow },
    observe: metrics.sessionMissing,
    observeExpired: (hash) => sessionEnded(hash, 'absolute_timeout'),
  })
  const userSessions = createUserSessions({
    ...{ store, pseudonyms: createIndexPseudonyms(keys), signInLifetimeMs: LOGIN_LIFETIME_MS },
    ended(hash, reason) {
      sessionEnded(hash, reason)
      log.info({ session: hash.slice(0, 12), reason }, 'a session was ended from elsewhere')
    },
    sealAbout: (hash, text) => sealing.seal({ id: hash, kind: 'about' }, text),
    openAbout: (hash, sealed) => sealing.open({ id: hash, kind: 'about' }, sealed),
    byEmail: config.provider.sharedSignals?.subjects.includes('email') ?? false,
    sharedIssuer: isSharedAuthority(config.provider.issuer) ? config.provider.issuer : undefined,
    now,
  })
  const sessions = createSessions({
    store: createSessionStore({
      ...{ records: store.sessions, seal: sealSession, open: openSession, hash: sessionHash },
      indexesOf: userSessions.indexesOf,
      cookie: { ...cookieAttributes(config), path: '/' },
    }),
    ...{ records: store.sessions, config: config.session, signingSecrets, copy: sessionCopies },
    ...{ expired: missingSessions.noteExpired, log, now, monotonicNow },
    noteUse: (session, req) =>
      userSessions.noteUse(session, { ip: clientAddress(req), userAgent: req.headers['user-agent'] }),
  })
  const findSession: typeof sessions.find = trace
    ? (...args) => trace.part('session', {}, () => sessions.find(...args))
    : sessions.find
  const followClaims = createFollowClaims({
    ...{ records: store.sessions, seal: sealSession, open: openSession },
    absoluteTimeoutMs: config.session.absoluteTimeoutMs,
  })

  // Tokens.
  const tokenCopies = createSessionCache<OpenedTokens>(copies)
  const tokens = createTokens({
    ...{ store, sealing, provider, clock: scope.clock },
    copy: tokenCopies,
    resources: config.resources,
    retiredResources: scope.retiredResources,
    sharedClientTokens: createSharedClientTokens({ records: store.clientTokens, sealing, config, now }),
    reusesRefreshTokens: reusesRefreshTokens(config.provider),
    inFlight: scope.refreshes,
    followClaims: (holder, claimsAfter, refreshTokenExpiresAt) =>
      // The token is good all the same; the next refresh brings them again.
      followClaims(holder, claimsAfter, refreshTokenExpiresAt).catch((error) =>
        log.warn({ err: describeError(error) }, 'the claims of a refreshed ID token could not be stored'),
      ),
    // A proof that lacks the server's nonce is sent once more.
    trace,
    providerTimeoutMs: config.provider.timeoutMs * (config.provider.dpop === 'off' ? 1 : 2),
    observe: {
      unseenRefresh: (resource, outcome) =>
        outcome === 'no_refresh_token'
          ? provider.noRefreshToken(resource)
          : metrics.refresh(resource, outcome),
      refreshLock: trace ? tracedLock(metrics.refreshLock, trace) : metrics.refreshLock,
      sessionEnded,
      revoked: (hash) => log.audit?.('token_revocation', { session: hash.slice(0, 12) }),
    },
  })

  // Who asks, and from where: what every request is looked at for.
  const securityHeaders = createSecurityHeaders(publicUrl)
  const isTrustedPeer = createTrustedPeers(trustProxy)
  const requireSameOrigin = createSameOriginGuard({ publicUrl, allowedOrigins })
  const requestLog = createRequestLog({
    ...{ log, observe: metrics, nowMs: scope.socketClock.monotonicNow, clientIp: clientAddress },
    ...{ isTrustedPeer, trace },
    whyNoSession: missingSessions.reasonOf,
  })
  const guard = createRequestGuard({
    ...{ hosts: createHostCheck(config), isTrustedPeer, limits, requestLog, securityHeaders },
    observe: (method, status, code) => metrics.rawAnswer({ route: 'none', method, status, code }),
  })

  // Routes, and where people may be sent back to: whatever path the proxy lets through.
  const match = compileRoutes(config.routes, basePath)
  const parseReturn = (value: unknown) =>
    parseReturnUrl(value, { publicUrl, basePath, isServed: (target) => isServed(match, target) })
  const loginUrlFor = createLoginUrls({
    ...{ basePath, urlLength: limits.urlLength, parseReturnUrl: parseReturn },
  })
  const stepUps = createStepUps({
    references: createSingleUseReferences(logins, { kind: 'step-up', lifetimeMs: STEP_UP_LIFETIME_MS }),
    ...{ loginPath: `${basePath}/login`, now, monotonicNow },
  })

  // The proxy.
  const warnOfLeftOutClaims = createThrottledWarning(
    log,
    'access refused because the provider left a claim out of its token (groups overage): have it send the groups that are assigned to the application, or roles',
  )
  const site = { publicUrl, isOwnCookie: ownCookieNames(cookie.name) }
  const responseHeaders = compileResponseHeaders(config.routes, site)
  const accessRefusal = createAccessCheck({
    ...{ now, clockToleranceMs: config.provider.clockToleranceMs },
    scopesOf: createTokenScopes(config.resources),
    leftOut: (route, claim) => warnOfLeftOutClaims({ route, claim, reason: 'groups_overage' }),
  })
  const clientOf = (req: IncomingMessage) => clientNetwork(clientAddress(req))
  const bearerCaller = createFindBearerCaller({
    hasSessionCookie: (req) => hasSessionCookie(req.headers.cookie, cookie.name),
    requireOrigin: (req) => requireSameOrigin(req, { auth: 'required', csrf: 'origin' }),
    ...{ verify: provider.verifyBearer, invalidToken, accessRefusal, clientOf, now },
    exchange: createBearerExchange({ exchangeGrant: provider.tokenExchangeGrant, clock: scope.clock }),
  })
  const common = {
    ...{ accessRefusal, bearerCaller },
    ...{ match, clientAddress, requestHeaders: compileRequestHeaders(config.routes, site) },
    ...{ accessToken: tokens.tokenFor, tokenRefused: stepUps.withLoginUrl },
  }
  const tokenProofs =
    config.provider.dpop === 'end-to-end'
      ? createTokenProofs(createProofs({ now, monotonicNow }), publicUrl)
      : undefined
  const upstreams = createUpstreams(config.routes, {
    ...{ responseHeaders, tokenProofs },
    ...{ clock: scope.socketClock, observe: metrics, observeStreams: metrics.eventStreams },
    observeBreaker(upstream, isOpen) {
      metrics.upstreamBreaker(upstream, isOpen)
      if (isOpen) log.warn({ upstream }, 'the upstream does not answer: its circuit is open, but for a probe')
      else log.info({ upstream }, 'the upstream answers again')
    },
    // A body has the time of a head before its pace is looked at.
    bodyPace: { bytesPerSecond: limits.bodyRate, graceMs: limits.headerTimeoutMs },
    watch: (session, end) =>
      watchSession({ timeLeft: () => sessions.timeLeft(session), end, clock: scope.socketClock }),
  })
  const forward = createForward({
    ...common,
    ...{
      findSession,
      send: trace ? tracedSend(upstreams.send, trace) : upstreams.send,
      requireSameOrigin,
      isTopLevelNavigation,
    },
    onRejectedToken: (session, resource, rejection) =>
      mapRefusal(tokens.onRejected(session, resource, rejection), session, stepUps.withLoginUrl),
    factsOf: requestLog.factsOf,
    setSecurityHeaders: securityHeaders.set,
    loginUrl: (req) => pageLoginUrl(loginUrlFor(req.url), cookie.sameSite),
  })
  const warnOfWebSockets = createThrottledWarning(
    log,
    'WebSockets refused: as many are open as limits.webSocketsPerSession or limits.webSocketsPerClient say',
  )
  const tunnel = createTunnel({
    ...{ ...common, publicUrl, allowedOrigins, responseHeaders, tokenProofs, limits },
    ...{ live: scope.tunnels, factsOf: requestLog.beginUpgrade },
    findSession,
    ...{ timeLeft: sessions.timeLeft, clientOf },
    refuse(socket, error, { headers, requestId }) {
      if (error instanceof BffError && error.code === 'rate_limited') warnOfWebSockets()
      const answer = problemAnswer(error, { requestId, loginUrl: loginUrlFor() })
      const all = { ...securityHeaders.fields, ...headers, ...answer.headers, 'x-request-id': requestId }
      endWithAnswer(socket, { ...answer, headers: all })
      return answer.status
    },
    refused(req, error) {
      const path = pathOf(req)
      const { id: requestId, traceparent, route } = requestLog.factsOf(req)
      if (!(error instanceof BffError)) {
        log.error({ requestId, path, err: describeError(error) }, 'unexpected error')
        return
      }
      const { code, details, logged, cause } = error
      const err = cause === undefined ? undefined : describeError(cause)
      const known = { requestId, traceparent, route, path, clientIp: clientAddress(req) }
      const fields = { ...known, code, status: statusOf(code), err }
      const told = (reason: string | undefined) =>
        log.info({ ...fields, reason, ...logged }, 'a WebSocket was refused')
      const reason = details?.reason === undefined ? undefined : String(details.reason)
      if (code === 'session_required' && reason !== 'invalid_token') missingSessions.reasonOf(req).then(told)
      else told(reason)
    },
    observe(req, status, error) {
      const { route = 'none' } = requestLog.factsOf(req)
      const known = requestLog.factsOf(req)
      if (error === undefined) requestLog.upgraded(req, status)
      else
        endSpan(
          Object.assign(known, { code: error instanceof BffError ? error.code : 'internal_error' }),
          req,
          status,
        )
      const ofError = error instanceof BffError ? error.code : 'internal_error'
      const code = error === undefined ? undefined : ofError
      metrics.rawAnswer({ route, method: 'UPGRADE', status, code })
      const failure = error instanceof BffError ? failureOf(error) : undefined
      if (failure) metrics.upstreamFailed(route, failure)
    },
  })
  const stopWatching = endWithSessions({
    ...store.invalidations,
    connections: [tunnel, upstreams],
    // The store knows nothing of the holders of access tokens, whose connections end with these.
    exists: async (hash) => isOfBearer({ hash }) || (await store.sessions.timeLeft(hash)) !== undefined,
  })

  // Our own endpoints.
  const loginAttempts = createLoginAttempts({ ...logins, endings: store.endings })
  const beginSignIn = createBeginSignIn({
    ...{ attempts: loginAttempts, provider, now, begun: () => metrics.signIn('begun') },
  })
  const loggedOutReturns = createSingleUseReferences<string>(logins, {
    ...{ kind: 'logged-out', lifetimeMs: LOGIN_LIFETIME_MS },
  })
  const limited = {
    ...{ limits: config.rateLimits, countRequests: store.countRequests, clientAddress, monotonicNow },
    ...{ nameOf: createPseudonyms(keys), refused: metrics.rateLimited },
  }
  const onlyOnce: ActOnce = (message, act) => actOnce(store, message, act)
  /** So that the line of a sign-out has the session that it ended. */
  const findOwn = async (req: IncomingMessage) => {
    const session = await sessions.find(req)
    if (session) requestLog.factsOf(req).session = session.hash.slice(0, 12)
    return session
  }
  const bffRoutes = createBffRoutes({
    ...{
      basePath,
      sameSite: cookie.sameSite,
      sessions: { ...sessions, find: findOwn },
      requireSameOrigin,
      stepUps,
      now,
    },
    ...{ parseReturnUrl: parseReturn, loginUrlFor, loginAttempts, beginSignIn, loggedOutReturns },
    loginParams: config.provider.loginParams,
    loginCookies: createLoginCookies(cookie, LOGIN_LIFETIME_MS),
    previousSessionCookie: createPreviousSessionCookie({
      ...{ cookie, basePath, seal: sealLogin, open: openLogin },
    }),
    rateLimits: createRateLimits(limited),
    refusedLogouts: createFailureLimit('backchannelLogout', limited),
    ...{ issuer: config.provider.issuer, isIssuer: provider.isIssuer, frameOrigins: provider.frameOrigins },
    ...{ verifyLogoutToken: provider.verifyLogoutToken, log },
    actOnce: onlyOnce,
    ...{ endSessions: userSessions.end, bodyTimeMs: limits.headerTimeoutMs },
    requestIdOf: (req) => requestLog.factsOf(req).id,
    signals: createSignalEndpoints(config, {
      ...{ provider, userSessions, requestLog, log, now, actOnce: onlyOnce },
      ...{ forceRenewal: tokens.forceRenewal, refusedPushes: createFailureLimit('events', limited) },
    }),
    finishSignIn: createFinishSignIn({
      ...{ sessions, redirectUri: provider.redirectUri, allowedTenants: config.provider.allowedTenants },
      ...{ codeGrant: provider.codeGrant, noteFailed: provider.noteFailed },
      ...{ isToBeRepeated: provider.isToBeRepeated, beginSignIn, spendChallenge: stepUps.take },
      requireNotEnded: userSessions.requireNotEnded,
      keepTokens: (session, granted, stepUp) =>
        tokens.keepFirst(
          session,
          { ...granted, ...untoldScope(granted, session.scopes?.join(' ')) },
          provider.resourceOf(granted, session, stepUp),
        ),
      discard: (session) => tokens.end(session, 'discarded'),
      observe(req, { hash, claims }, asked) {
        metrics.session('started', 'login')
        metrics.signIn('succeeded')
        const facts = requestLog.factsOf(req)
        facts.session = hash.slice(0, 12)
        log.audit?.(asked ? 'step_up' : 'sign_in', {
          ...{ requestId: facts.id, session: facts.session, subject: subjectOf(claims) },
          clientIp: clientAddress(req),
        })
      },
    }),
    endPreviousSessions: createEndPreviousSessions({
      end: async ({ hash }) => (await store.sessions.end(hash)) !== undefined,
      endAndRevoke: ({ id, hash }) => tokens.endReplaced({ id, hash }),
      endOldest: (claims) => userSessions.endOldest(claims, config.session.maxPerUser),
      log,
      observe: ({ hash }) => sessionEnded(hash, 'replaced'),
    }),
    readForm: (req, res) =>
      readSmallBody(req, res, {
        types: ['application/x-www-form-urlencoded'],
        // Whoever posts it, it is kept for a minute: strangers are to fill no store with it.
        maxBytes: config.provider.responseMode === 'form_post' ? MAX_FORM_BYTES : MAX_UNASKED_FORM_BYTES,
        ...{ withinMs: limits.headerTimeoutMs, clock: scope.socketClock },
      }),
    postedResponses: createSingleUseReferences<string>(logins, {
      ...{ kind: 'posted-response', lifetimeMs: POSTED_RESPONSE_LIFETIME_MS },
    }),
    observeNeedsUser: () => metrics.signIn('needs_user'),
    noteReturnUrl(req, returnUrl) {
      requestLog.factsOf(req).returnUrl = returnUrl
    },
    endSessionForms: createSingleUseReferences<EndSessionRequest['form']>(logins, {
      ...{ kind: 'end-session', lifetimeMs: LOGIN_LIFETIME_MS },
    }),
    userSessions,
    endOwn: (session) => tokens.end(session, 'logout'),
    async endSession(session, returnUrl) {
      await tokens.end(session, 'logout')
      return provider.endSession(session.idToken, () =>
        loggedOutReturns.keep(returnUrl).catch(() => undefined),
      )
    },
    clearSessionCookie: (res) =>
      void res.clearCookie(cookie.name, { ...cookieAttributes(config), path: '/' }),
  })

  // The public listener's requests.
  const edge = createEdge({
    ...{ publicUrl, basePath, requestLog, bffRoutes, loginUrlFor, forward, log, monotonicNow },
    securityHeaders,
    cors: createCors(allowedOrigins, securityHeaders),
    observeSignInFailure: metrics.signInFailed,
  })

  async function release(): Promise<void> {
    stopWatching()
    sessionCopies.close()
    tokenCopies.close()
    await upstreams.close().catch((error) => log.warn({ err: describeError(error) }, 'not closed cleanly'))
  }
  const upgrade: typeof tunnel.upgrade = (req, socket, head) =>
    requestLog.beginUpgrade(req).span!.run(() => tunnel.upgrade(req, socket, head))
  const ofTunnel = trace ? { ...tunnel, upgrade } : tunnel
  return { config, provider, guard, isTrustedPeer, edge, tunnel: ofTunnel, upstreams, release }
}

function cookieAttributes({ session: { cookie } }: Config) {
  return { httpOnly: true, secure: cookie.secure, sameSite: cookie.sameSite }
}

/** The upstream's part of a trace, which it is told as its parent. */
function tracedSend(send: Send, trace: Trace): Send {
  return function sendTraced(req, res, outbound) {
    const { route, headers } = outbound
    return trace.part('upstream', { 'server.address': route.upstream, 'http.route': route.id }, (span) => {
      const at = headers.indexOf('traceparent')
      if (at === -1) headers.push('traceparent', span.traceparent)
      else headers[at + 1] = span.traceparent
      return send(req, res, outbound)
    })
  }
}

/** Notes in the span of a refresh who did the work, and how long it waited for the lock. */
function tracedLock(observe: Metrics['refreshLock'], trace: Trace): Metrics['refreshLock'] {
  return function tracedRefreshLock(outcome, resource, waitedMs) {
    observe(outcome, resource, waitedMs)
    trace.note({ 'cloakroom.refresh.outcome': outcome, 'cloakroom.refresh.lock_wait_ms': waitedMs })
  }
}

const BY_USER: ReadonlySet<string> = new Set(['logout', 'by_user', 'replaced'])
const BY_US: ReadonlySet<string> = new Set(['discarded', 'subject_changed'])

/** Whose doing the end of a session was. What is left is the provider's: a logout, an event, a grant that it ended. */
function endedBy(reason: string): string {
  if (BY_USER.has(reason)) return 'user'
  if (reason === 'max_per_user') return 'limit'
  if (reason === 'absolute_timeout') return 'timeout'
  return BY_US.has(reason) ? 'cloakroom' : 'provider'
}
