import type { IncomingMessage } from 'node:http'
import { type Request, type RequestHandler, type Response, Router } from 'express'
import { BffError } from '../errors.ts'
import type { BeginSignIn, LoginAttempts } from '../oidc/login.ts'
import type { AskedStepUp } from '../oidc/step-up.ts'
import type { BffSession } from '../session/bff-session.ts'
import type { Sessions } from '../session/session.ts'
import { createCallback, type FinishSignIn } from './callback.ts'
import type { LoginCookies } from './login-cookies.ts'
import type { RateLimits } from './rate-limit.ts'
import type { RequireSameOrigin } from './same-origin.ts'
import { createSignOut, type EndSession } from './sign-out.ts'

/** What a login URL may choose; everything else in its query is ignored. */
export type LoginWishes = {
  readonly prompt?: string
  readonly loginHint?: string
}

export type BffRoutesDeps = {
  readonly basePath: string
  readonly rateLimits: RateLimits
  readonly sameSite: 'strict' | 'lax'
  readonly sessions: Sessions
  readonly loginAttempts: LoginAttempts
  readonly loginCookies: LoginCookies
  readonly beginSignIn: BeginSignIn
  readonly finishSignIn: FinishSignIn
  /** What the `challenge` of a login URL stands for, if it is known. */
  readonly takeStepUp: (handle: unknown) => Promise<AskedStepUp | undefined>
  readonly endSession: EndSession
  readonly clearSessionCookie: (res: Response) => void
  readonly parseReturnUrl: (value: unknown) => string | undefined
  readonly requireSameOrigin: RequireSameOrigin
  readonly now: () => number
}

const PROMPTS = new Set(['none', 'login', 'consent', 'select_account', 'create'])
const SCRIPT_ONLY = { auth: 'required', csrf: 'header' } as const
/** Members of an ID token that serve the protocol and tell an application nothing. */
const PROTOCOL_CLAIMS = new Set(['nonce', 'at_hash', 'c_hash', 's_hash'])

const METHODS = { '/login': 'GET, HEAD', '/callback': 'GET', '/user': 'GET, HEAD', '/logout': 'GET, POST' }

/** Cloakroom's own endpoints below the base path (contract section 4). */
export function createBffRoutes(deps: BffRoutesDeps): Router {
  const router = Router({ caseSensitive: true, strict: true })
  const signOut = createSignOut(deps)

  for (const [endpoint, limitRate] of Object.entries(deps.rateLimits)) router.all(`/${endpoint}`, limitRate)

  router.get('/login', async function login(req, res) {
    const returnUrl = requireReturnUrl(deps, req.query.returnUrl)
    const current = await deps.sessions.find(req, res)
    const asked = await deps.takeStepUp(req.query.challenge)
    const goal = { returnUrl, replaces: current?.hash, asked, ...loginWishes(req) }
    const { url, ticket } = await deps.beginSignIn(goal)
    deps.loginCookies.set(req, res, ticket)
    res.redirect(302, url.href)
  })
  // A GET that does something takes no HEAD: looking must not use up a code or end a session.
  router.head('/callback', onlyBy(METHODS['/callback']))
  router.head('/logout', onlyBy(METHODS['/logout']))
  router.get('/callback', createCallback(deps))

  router.get('/user', async function user(req, res) {
    deps.requireSameOrigin(req, SCRIPT_ONLY)
    const slides = req.query.slide !== 'false'
    const session = await (slides ? deps.sessions.find(req, res) : deps.sessions.peek(req, res))
    if (!session) throw new BffError('session_required', 'nobody is signed in')
    res.json(userAnswer(session, deps))
  })

  router.get('/logout', async function logoutByLink(req, res) {
    const returnUrl = requireReturnUrl(deps, req.query.returnUrl)
    const { sid } = req.query
    if (typeof sid !== 'string' || sid === '')
      throw new BffError('bad_request', 'the parameter sid is missing')
    // No body: Express would repeat the URL in one, and it may carry an ID token.
    res
      .status(302)
      .location(await signOut(req, res, { returnUrl, handle: sid }))
      .end()
  })
  router.post('/logout', async function logoutByScript(req, res) {
    deps.requireSameOrigin(req, SCRIPT_ONLY)
    const returnUrl = requireReturnUrl(deps, req.query.returnUrl)
    res.json({ redirect: await signOut(req, res, { returnUrl }) })
  })

  for (const [path, allow] of Object.entries(METHODS)) router.all(path, onlyBy(allow))
  return router
}

function onlyBy(allow: string): RequestHandler {
  return function otherMethod() {
    throw new BffError('method_not_allowed', `use one of ${allow}`, { headers: { allow } })
  }
}

function requireReturnUrl({ parseReturnUrl }: BffRoutesDeps, value: unknown): string {
  const returnUrl = parseReturnUrl(value)
  if (returnUrl === undefined) {
    throw new BffError(
      'invalid_return_url',
      'returnUrl must be a path on this origin, such as /orders?page=2',
    )
  }
  return returnUrl
}

function loginWishes({ query }: Request): LoginWishes {
  const { prompt, login_hint: loginHint } = query
  return {
    ...(typeof prompt === 'string' && PROMPTS.has(prompt) ? { prompt } : {}),
    ...(typeof loginHint === 'string' && loginHint !== '' && loginHint.length <= 256 ? { loginHint } : {}),
  }
}

function userAnswer(session: BffSession, { basePath, now }: BffRoutesDeps): Record<string, unknown> {
  const claims = Object.entries(session.claims).filter(([name]) => !PROTOCOL_CLAIMS.has(name))
  return {
    ...Object.fromEntries(claims),
    'bff:session_expires_in': Math.max(0, Math.floor((session.expiresAt - now()) / 1000)),
    'bff:logout_url': `${basePath}/logout?sid=${session.logoutHandle}`,
  }
}

/** The path to sign in at, coming back to where a navigation was going. */
export function loginUrlFor(basePath: string, req?: IncomingMessage): string {
  return req?.url ? `${basePath}/login?returnUrl=${encodeURIComponent(req.url)}` : `${basePath}/login`
}
