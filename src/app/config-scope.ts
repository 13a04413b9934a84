import type { IncomingMessage } from 'node:http'
import { heapShare } from '../async/expiring-map.ts'
import { createThrottledWarning } from '../async/log-throttle.ts'
import type { Config } from '../config/config.ts'
import { describeError } from '../errors.ts'
import { createEdge } from '../http/edge.ts'
import { createBffRoutes } from '../http/endpoints/bff-routes.ts'
import { MOST_POSTED_BYTES, POSTED_RESPONSE_LIFETIME_MS } from '../http/endpoints/callback.ts'
import { createEndPreviousSessions, createFinishSignIn } from '../http/endpoints/finish-sign-in.ts'
import { createLoginUrls, pageLoginUrl } from '../http/endpoints/login.ts'
import { createLoginCookies } from '../http/endpoints/login-cookies.ts'
import { createPreviousSessionCookie } from '../http/endpoints/previous-session-cookie.ts'
import { createCors, createSameOriginGuard, isTopLevelNavigation } from '../http/origins.ts'
import { createFailureLimit, createRateLimits } from '../http/rate-limit.ts'
import { createRequestLog, runFor, servedRequestId } from '../http/request-log.ts'
import { createSecurityHeaders } from '../http/security-headers.ts'
import { createHostCheck } from '../http/server/host.ts'
import {
  clientNetwork,
  createClientAddress,
  createRequestGuard,
  createTrustedPeers,
} from '../http/server/request-guard.ts'
import { readSmallBody } from '../http/small-body.ts'
import { createUpgradeAnswers } from '../http/upgrade-answers.ts'
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
import { createAccessCheck, createLeftOutWarning } from '../proxy/access-rules.ts'
import { mapRefusal } from '../proxy/access-token.ts'
import { createFindBearerCaller } from '../proxy/bearer.ts'
import { createForward } from '../proxy/forward.ts'
import { ownCookieNames } from '../proxy/headers/dropped.ts'
import { compileRequestHeaders } from '../proxy/headers/request.ts'
import { compileResponseHeaders } from '../proxy/headers/response.ts'
import { compileRoutes, isServed } from '../proxy/route-table.ts'
import { endWithSessions, watchSession } from '../proxy/session-end/live-connections.ts'
import { failureOf } from '../proxy/upstream/dispatcher.ts'
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
} from '../tokens/record/sealing.ts'
import { type CopiedToken, createTokens } from '../tokens/tokens.ts'
import { createAudit, sessionName } from './audit.ts'
import type { ProcessScope } from './process-scope.ts'
import { createSignalEndpoints } from './signal-endpoints.ts'

/** Everything that belongs to one configuration. */
export type ConfigScope = ReturnType<typeof createConfigScope>

/** Longest time that a copy of a session or token is used without a look at the store. */
const COPIES_TRUSTED_MS = 5_000
const COPIES_HELD = 20_000
/** Part of the heap for the copies of one kind. Both kinds, under an old and a new configuration, take a third at most. */
const COPIES_SHARE = 1 / 12

const GONE_KEY = 'a session is sealed with a key that is not in session.keys: its user is signed out'
const GONE_KEY_CURE = 'put the key back as the last of session.keys, until session.absoluteTimeout is over'

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
  const warnOfGoneKey = createThrottledWarning(log, GONE_KEY, scope.clock)
  const sealing = bindToGrants(
    createSealing(keys, (kind, reason) => {
      metrics.decryptFailed(kind, reason)
      if (reason === 'key_gone') warnOfGoneKey({ reason, cure: GONE_KEY_CURE })
    }),
    config,
  )
  const signingSecrets = cookieSigningSecrets(keys)
  const sealSession = (id: string, text: string) => sealing.seal({ id, kind: 'session' }, text)
  const openSession = (id: string, sealed: string) => sealing.open({ id, kind: 'session' }, sealed)
  const sealLogin = (id: string, text: string) => sealing.seal({ id, kind: 'login' }, text)
  const openLogin = (id: string, sealed: string) => sealing.open({ id, kind: 'login' }, sealed)
  const logins = { records: store.logins, seal: sealLogin, open: openLogin }

  // The authorization server.
  const provider = createProvider({
    ...{ config, log, trace, now, monotonicNow, observe: metrics.provider, clocks: scope.clocks },
    ...{ limiters: scope.limiters, offlineConsent: scope.offlineConsent, certificates: scope.certificates },
    requestId: servedRequestId,
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
  const audit = createAudit({ log, metrics, keys, requestId: servedRequestId })
  const missingSessions = createMissingSessions({
    ...{ cookieName: cookie.name, signingSecrets, records: store.sessions, open: openSession, monotonicNow },
    observe: metrics.sessionMissing,
    observeExpired: (hash) => audit.sessionEnded(hash, 'absolute_timeout'),
  })
  const userSessions = createUserSessions({
    ...{ store, pseudonyms: createIndexPseudonyms(keys), signInLifetimeMs: LOGIN_LIFETIME_MS },
    ended(hash, reason) {
      audit.sessionEnded(hash, reason)
      log.info({ session: sessionName(hash), reason }, 'a session was ended from elsewhere')
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
    ...{ expired: missingSessions.noteExpired, runFor, log, now, monotonicNow },
    readAhead: (owner, resource) => tokens.readAhead(owner, resource),
    noteUse: (session, req) =>
      userSessions.noteUse(session, { ip: clientAddress(req), userAgent: req.headers['user-agent'] }),
  })
  const findSession: typeof sessions.find = trace
    ? (req, resource) => runFor(req, () => trace.part('session', {}, () => sessions.find(req, resource)))
    : sessions.find
  const followClaims = createFollowClaims({
    ...{ records: store.sessions, seal: sealSession, open: openSession },
    absoluteTimeoutMs: config.session.absoluteTimeoutMs,
  })

  // Tokens.
  const tokenCopies = createSessionCache<CopiedToken>(copies)
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
    trace,
    // A proof that lacks the server's nonce is sent once more.
    providerTimeoutMs: config.provider.timeoutMs * (config.provider.dpop === 'off' ? 1 : 2),
    observe: {
      unseenRefresh: (resource, outcome) =>
        outcome === 'no_refresh_token'
          ? provider.noRefreshToken(resource)
          : metrics.refresh(resource, outcome),
      ...{ refreshLock: metrics.refreshLock, sessionEnded: audit.sessionEnded, revoked: audit.tokenRevoked },
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
  const site = { publicUrl, isOwnCookie: ownCookieNames(cookie.name) }
  const responseHeaders = compileResponseHeaders(config.routes, site)
  const accessRefusal = createAccessCheck({
    ...{ now, clockToleranceMs: config.provider.clockToleranceMs },
    scopesOf: createTokenScopes(config.resources),
    ...{ leftOut: createLeftOutWarning(log), subjectOf: audit.subjectOf },
  })
  const clientOf = (req: IncomingMessage) => clientNetwork(clientAddress(req))
  const bearerCaller = createFindBearerCaller({
    hasSessionCookie: (req) => hasSessionCookie(req.headers.cookie, cookie.name),
    requireOrigin: (req) => requireSameOrigin(req, { auth: 'required', csrf: 'origin' }),
    ...{ verify: provider.verifyBearer, invalidToken, accessRefusal, clientOf, now },
    exchange: createBearerExchange({ exchangeGrant: provider.tokenExchangeGrant, clock: scope.clock }),
  })
  const common = {
    ...{ match, clientAddress, findSession, bearerCaller, accessRefusal, runFor },
    requestHeaders: compileRequestHeaders(config.routes, site),
    ...{ tokenInMemory: tokens.inMemory, accessToken: tokens.tokenFor, tokenRefused: stepUps.withLoginUrl },
  }
  const tokenProofs =
    config.provider.dpop === 'end-to-end'
      ? createTokenProofs(createProofs({ now, monotonicNow }), publicUrl)
      : undefined
  const upstreams = createUpstreams(config.routes, {
    ...{ responseHeaders, tokenProofs, trace, runFor },
    ...{ clock: scope.socketClock, observe: metrics, observeStreams: metrics.eventStreams },
    ...{ observeBreaker: metrics.upstreamBreaker, log },
    // A body has the time of a head before its pace is looked at.
    bodyPace: { bytesPerSecond: limits.bodyRate, graceMs: limits.headerTimeoutMs },
    watch: (session, end) =>
      watchSession({ timeLeft: () => sessions.timeLeft(session), end, clock: scope.socketClock }),
  })
  const forward = createForward({
    ...common,
    ...{ send: upstreams.send, requireSameOrigin, isTopLevelNavigation },
    onRejectedToken: (session, resource, rejection) =>
      mapRefusal(tokens.onRejected(session, resource, rejection), session, stepUps.withLoginUrl),
    factsOf: requestLog.factsOf,
    setSecurityHeaders: securityHeaders.set,
    loginUrl: (req) => pageLoginUrl(loginUrlFor(req.url), cookie.sameSite),
  })
  const upgradeAnswers = createUpgradeAnswers({
    ...{ requestLog, log, clientAddress, securityHeaders, loginUrlFor },
    ...{ whyNoSession: missingSessions.reasonOf, observe: metrics.rawAnswer },
  })
  const tunnel = createTunnel({
    ...{ ...common, publicUrl, allowedOrigins, responseHeaders, tokenProofs, limits },
    ...{ live: scope.tunnels, factsOf: requestLog.beginUpgrade },
    ...{ timeLeft: sessions.timeLeft, clientOf },
    ...{ refuse: upgradeAnswers.refuse, refused: upgradeAnswers.refused },
    observe(req, status, error) {
      upgradeAnswers.answered(req, status, error)
      const failure = error instanceof Error ? failureOf(error) : undefined
      if (failure) metrics.upstreamFailed(requestLog.factsOf(req).route ?? 'none', failure)
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
    if (session) requestLog.factsOf(req).session = sessionName(session.hash)
    return session
  }
  const bffRoutes = createBffRoutes({
    ...{ basePath, sameSite: cookie.sameSite, requireSameOrigin, stepUps, now },
    sessions: { ...sessions, find: findOwn },
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
      observe(req, session, asked) {
        requestLog.factsOf(req).session = sessionName(session.hash)
        audit.signedIn(session, { isStepUp: asked !== undefined, clientIp: clientAddress(req) })
      },
    }),
    endPreviousSessions: createEndPreviousSessions({
      end: async ({ hash }) => (await store.sessions.end(hash)) !== undefined,
      endAndRevoke: ({ id, hash }) => tokens.endReplaced({ id, hash }),
      endOldest: (claims) => userSessions.endOldest(claims, config.session.maxPerUser),
      log,
      observe: ({ hash }) => audit.sessionEnded(hash, 'replaced'),
    }),
    readForm: (req, res) =>
      readSmallBody(req, res, {
        types: ['application/x-www-form-urlencoded'],
        maxBytes: MOST_POSTED_BYTES[config.provider.responseMode === 'form_post' ? 'asked' : 'unasked'],
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
  return { config, provider, guard, isTrustedPeer, edge, tunnel, upstreams, release }
}

function cookieAttributes({ session: { cookie } }: Config) {
  return { httpOnly: true, secure: cookie.secure, sameSite: cookie.sameSite }
}
