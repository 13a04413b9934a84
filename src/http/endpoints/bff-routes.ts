import { type RequestHandler, Router } from 'express'
import { BffError } from '../../errors.ts'
import { requireNavigation } from '../origins.ts'
import type { LimitedEndpoint, RateLimits } from '../rate-limit.ts'
import { clientScript, createDone } from './browser-helper.ts'
import { type CallbackDeps, createCallback } from './callback.ts'
import { createLogin, type LoginDeps } from './login.ts'
import { createSignOut, type SignOutDeps } from './logout.ts'
import { type BackchannelLogoutDeps, createBackchannelLogout } from './provider/backchannel-logout.ts'
import { createFrontchannelLogout, type FrontchannelLogoutDeps } from './provider/frontchannel-logout.ts'
import { createSessionsEndpoint, type SessionsEndpointDeps } from './sessions.ts'
import { createUser, type UserDeps } from './user.ts'

export type BffRoutesDeps = CallbackDeps &
  UserDeps &
  SessionsEndpointDeps &
  Omit<LoginDeps, 'requireReturnUrl'> &
  Omit<SignOutDeps, 'requireReturnUrl'> &
  BackchannelLogoutDeps &
  FrontchannelLogoutDeps & {
    readonly rateLimits: RateLimits
    /** What the provider posts to, by path, as far as it is switched on. */
    readonly signals?: Readonly<Record<string, RequestHandler>>
    readonly parseReturnUrl: (value: unknown) => string | undefined
  }

/** The endpoints with their methods, as `Allow` lists them. */
const METHODS = {
  ...{ '/login': 'GET, HEAD', '/callback': 'GET, POST', '/callback/finish': 'GET' },
  ...{ '/landing': 'GET', '/user': 'GET, HEAD', '/sessions': 'GET, HEAD, DELETE' },
  ...{ '/logout': 'GET, POST', '/end-session': 'GET', '/logged-out': 'GET' },
  ...{ '/done': 'GET, HEAD', '/client.js': 'GET, HEAD' },
  ...{ '/backchannel-logout': 'POST', '/frontchannel-logout': 'GET' },
}

const LIMITED_PATHS: Readonly<Record<LimitedEndpoint, string>> = {
  ...{
    login: '/login',
    callback: '/callback',
    logout: '/logout',
    frontchannelLogout: '/frontchannel-logout',
  },
}

/** No parameter of Express, which would decode it, and fail at what cannot be. */
const ONE_SESSION = /^\/sessions\/([\w-]{22})$/

/** The methods of an endpoint that every configuration has, by its path below the base path; undefined where there is none. */
export function endpointMethods(path: string): string | undefined {
  if (ONE_SESSION.test(path)) return 'DELETE'
  return Object.hasOwn(METHODS, path) ? METHODS[path as keyof typeof METHODS] : undefined
}

/** Makes Cloakroom's own endpoints below the base path (contract section 4). */
export function createBffRoutes(deps: BffRoutesDeps): Router {
  const router = Router({ caseSensitive: true, strict: true })
  const requireReturnUrl = createReturnUrlCheck(deps)
  const { callback, posted, finish, landing } = createCallback(deps)
  const signOut = createSignOut({ ...deps, requireReturnUrl })
  const sessions = createSessionsEndpoint(deps)

  // A GET that changes something allows no HEAD, which must neither use up a code nor end a session.
  for (const [path, allow] of Object.entries(METHODS)) {
    if (!allow.includes('HEAD')) router.head(path, refuseMethod(allow))
  }
  router.head(ONE_SESSION, refuseMethod('DELETE'))
  // Before the rate limits: a page of another site must not use up what a client address may do.
  router.get(['/login', '/logout'], (req, _res, next) => {
    requireNavigation(req)
    next()
  })
  for (const [endpoint, path] of Object.entries(LIMITED_PATHS)) {
    const limitRate = deps.rateLimits[endpoint as LimitedEndpoint]
    if (limitRate) router.all(path, limitRate)
  }

  router.get('/login', createLogin({ ...deps, requireReturnUrl }))
  router.get('/callback', callback)
  router.post('/callback', posted)
  router.get('/callback/finish', finish)
  router.get('/landing', landing)
  router.get('/done', createDone(deps.basePath))
  router.get('/client.js', clientScript)
  router.get('/user', createUser(deps))
  router.get('/sessions', sessions.list)
  router.delete('/sessions', sessions.endOthers)
  router.delete(ONE_SESSION, sessions.endOne)
  router.get('/logout', signOut.byLink)
  router.post('/logout', signOut.byScript)
  router.get('/end-session', signOut.endSession)
  router.get('/logged-out', signOut.loggedOut)
  router.post('/backchannel-logout', createBackchannelLogout(deps))
  router.get('/frontchannel-logout', createFrontchannelLogout(deps))

  for (const [path, handler] of Object.entries(deps.signals ?? {})) {
    router.post(path, handler)
    router.all(path, refuseMethod('POST'))
  }

  for (const [path, allow] of Object.entries(METHODS)) router.all(path, refuseMethod(allow))
  router.all(ONE_SESSION, refuseMethod('DELETE'))
  return router
}

function refuseMethod(allow: string): RequestHandler {
  return function methodNotAllowed() {
    throw new BffError('method_not_allowed', `use one of ${allow}`, { headers: { allow } })
  }
}

function createReturnUrlCheck({ parseReturnUrl }: BffRoutesDeps): (value: unknown) => string {
  return function requireReturnUrl(value) {
    const returnUrl = parseReturnUrl(value)
    if (returnUrl !== undefined) return returnUrl
    throw new BffError(
      'invalid_return_url',
      'returnUrl must be a path on this origin, such as /orders?page=2',
    )
  }
}
