import { type Request, type RequestHandler, Router } from 'express'
import { BffError } from '../../errors.ts'
import type { BeginSignIn } from '../../oidc/sign-in/attempts.ts'
import type { SingleUseReferences } from '../../oidc/sign-in/single-use-references.ts'
import type { AskedStepUp } from '../../oidc/sign-in/step-up.ts'
import type { RateLimits } from '../rate-limit.ts'
import { requireNavigation } from '../same-origin.ts'
import { type CallbackDeps, createCallback, earlierSession } from './callback.ts'
import type { LoginUrlFor } from './login-url.ts'
import { createSignOut, type SignOutDeps } from './logout.ts'
import { createMayLackCookie } from './strict-cookie.ts'
import { userAnswer } from './user.ts'

/** What a login URL may choose; everything else in its query is ignored. */
export type LoginWishes = {
  readonly prompt?: string
  readonly loginHint?: string
}

export type BffRoutesDeps = Omit<CallbackDeps, 'hasSessionCookie' | 'mayLackCookie'> &
  Omit<SignOutDeps, 'requireReturnUrl'> & {
    readonly rateLimits: RateLimits
    readonly beginSignIn: BeginSignIn
    /** What the `challenge` of a login URL stands for, if it is known. */
    readonly stepUps: Pick<SingleUseReferences<AskedStepUp>, 'look' | 'take'>
    readonly parseReturnUrl: (value: unknown) => string | undefined
    readonly loginUrlFor: LoginUrlFor
    readonly now: () => number
  }

const PROMPTS = new Set(['none', 'login', 'consent', 'select_account', 'create'])
const SCRIPT_ONLY = { auth: 'required', csrf: 'header' } as const

const METHODS = {
  ...{ '/login': 'GET, HEAD', '/callback': 'GET', '/landing': 'GET', '/user': 'GET, HEAD' },
  ...{ '/logout': 'GET, POST', '/end-session': 'GET', '/logged-out': 'GET' },
}

/** Cloakroom's own endpoints below the base path (contract section 4). */
export function createBffRoutes(deps: BffRoutesDeps): Router {
  const router = Router({ caseSensitive: true, strict: true })
  const requireReturnUrl = returnUrlCheck(deps)
  const hasSessionCookie = (req: Request) => deps.sessions.named(req) !== undefined
  const mayLackCookie = createMayLackCookie(deps.sameSite, hasSessionCookie)
  const { callback, landing } = createCallback({ ...deps, hasSessionCookie, mayLackCookie })
  const signOut = createSignOut({ ...deps, requireReturnUrl })

  // A GET that does something takes no HEAD: looking must not use up a code or end a session.
  for (const [path, allow] of Object.entries(METHODS)) {
    if (!allow.includes('HEAD')) router.head(path, onlyBy(allow))
  }
  // Before the count of requests: a page elsewhere must not use up what a client address may.
  router.get(['/login', '/logout'], (req, _res, next) => {
    requireNavigation(req)
    next()
  })
  for (const [endpoint, limitRate] of Object.entries(deps.rateLimits)) router.all(`/${endpoint}`, limitRate)

  router.get('/login', createLogin(deps, requireReturnUrl))
  router.get('/callback', callback)
  router.get('/landing', landing)

  router.get('/user', async function user(req, res) {
    deps.requireSameOrigin(req, SCRIPT_ONLY)
    const slides = req.query.slide !== 'false'
    const session = await (slides ? deps.sessions.find(req) : deps.sessions.peek(req))
    if (session) res.json(userAnswer(session, deps.basePath, deps.now()))
    else if (req.query.anonymous === '204') res.status(204).end()
    else throw new BffError('session_required', 'nobody is signed in')
  })

  router.get('/logout', signOut.byLink)
  router.post('/logout', signOut.byScript)
  router.get('/end-session', signOut.endSession)
  router.get('/logged-out', signOut.loggedOut)

  for (const [path, allow] of Object.entries(METHODS)) router.all(path, onlyBy(allow))
  return router
}

/** Begins a sign-in: 302 to the authorization endpoint, with a cookie for this attempt. */
function createLogin(deps: BffRoutesDeps, requireReturnUrl: (value: unknown) => string): RequestHandler {
  return async function login(req, res) {
    const returnUrl = requireReturnUrl(req.query.returnUrl)
    deps.noteReturnUrl(req, returnUrl)
    const { challenge } = req.query
    const asked = challenge === undefined ? undefined : await deps.stepUps.look(challenge)
    if (challenge !== undefined && !asked) throw stepUpExpired(deps.loginUrlFor(returnUrl))
    if (req.method === 'HEAD') {
      // Looking begins nothing, as with a link that is checked or shown in advance.
      res.status(302).end()
      return
    }
    const current = await deps.sessions.find(req)
    const { url, ticket } = await deps.beginSignIn({
      ...{ returnUrl, asked, ...loginWishes(req) },
      ...(current ? { earlier: earlierSession(current) } : {}),
      ...(deps.sessions.named(req) === undefined ? {} : { hadCookie: true }),
      ...(req.query.landing === 'page' ? { beganAtRoute: true } : {}),
    })
    // Only now: a provider that is away must not use it up.
    if (asked && !(await deps.stepUps.take(challenge))) throw stepUpExpired(deps.loginUrlFor(returnUrl))
    deps.loginCookies.set(req, res, ticket)
    res.redirect(302, url.href)
  }
}

/** The application is the way back: what it asks for then brings a new challenge. */
function stepUpExpired(loginUrl: string): BffError {
  return new BffError('bad_request', 'this link to sign in again was used already, or is too old', {
    details: { reason: 'step_up_expired', login_url: loginUrl },
  })
}

function onlyBy(allow: string): RequestHandler {
  return function otherMethod() {
    throw new BffError('method_not_allowed', `use one of ${allow}`, { headers: { allow } })
  }
}

function returnUrlCheck({ parseReturnUrl }: BffRoutesDeps): (value: unknown) => string {
  return function requireReturnUrl(value) {
    const returnUrl = parseReturnUrl(value)
    if (returnUrl !== undefined) return returnUrl
    throw new BffError(
      'invalid_return_url',
      'returnUrl must be a path on this origin, such as /orders?page=2',
    )
  }
}

function loginWishes({ query }: Request): LoginWishes {
  const { prompt, login_hint: loginHint } = query
  return {
    ...(typeof prompt === 'string' && PROMPTS.has(prompt) ? { prompt } : {}),
    ...(typeof loginHint === 'string' && loginHint !== '' && loginHint.length <= 256 ? { loginHint } : {}),
  }
}
