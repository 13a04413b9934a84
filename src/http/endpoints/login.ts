import type { Request, RequestHandler } from 'express'
import { BffError } from '../../errors.ts'
import type { BeginSignIn } from '../../oidc/sign-in/authorization.ts'
import type { SingleUseReferences } from '../../oidc/sign-in/single-use-references.ts'
import type { AskedStepUp } from '../../oidc/sign-in/step-up.ts'
import type { Sessions } from '../../session/session.ts'
import type { LoginCookies } from './login-cookies.ts'
import { previousSessionOf } from './previous-session-cookie.ts'

export type LoginDeps = {
  readonly sessions: Pick<Sessions, 'find' | 'named'>
  readonly beginSignIn: BeginSignIn
  readonly loginCookies: LoginCookies
  /** The step-up that the `challenge` of a login URL stands for, if it is known. */
  readonly stepUps: Pick<SingleUseReferences<AskedStepUp>, 'look' | 'take'>
  /** Throws invalid_return_url. */
  readonly requireReturnUrl: (value: unknown) => string
  readonly loginUrlFor: LoginUrlFor
  /** Remembers where a failure page of this request leads back to. */
  readonly noteReturnUrl: (req: Request, returnUrl: string) => void
}

/** Makes `B/login`: 302 to the authorization endpoint, with a cookie for this attempt. */
export function createLogin(deps: LoginDeps): RequestHandler {
  const { sessions, stepUps, loginUrlFor } = deps
  return async function login(req, res) {
    const returnUrl = deps.requireReturnUrl(req.query.returnUrl)
    deps.noteReturnUrl(req, returnUrl)
    const { challenge } = req.query
    const asked = challenge === undefined ? undefined : await stepUps.look(challenge)
    if (challenge !== undefined && !asked) throw stepUpExpired(loginUrlFor(returnUrl))
    if (req.method === 'HEAD') {
      // HEAD begins nothing: it checks a link or shows a preview.
      res.status(302).end()
      return
    }
    const current = await sessions.find(req)
    const { url, cookie } = await deps.beginSignIn({
      ...{ returnUrl, asked, ...parametersOf(req) },
      ...(current ? { previous: previousSessionOf(current) } : {}),
      ...(sessions.named(req) === undefined ? {} : { hadCookie: true }),
      ...(req.query.landing === 'page' ? { beganAtRoute: true } : {}),
    })
    // Only now: it stays usable when the provider is not available.
    if (asked && !(await stepUps.take(challenge))) throw stepUpExpired(loginUrlFor(returnUrl))
    deps.loginCookies.set(req, res, cookie)
    res.redirect(302, url.href)
  }
}

const PROMPTS = new Set(['none', 'login', 'consent', 'select_account', 'create'])

/** What a login URL may pass on to the provider. Everything else in its query is ignored. */
function parametersOf({ query }: Request): { prompt?: string; loginHint?: string } {
  const { prompt, login_hint: loginHint } = query
  return {
    ...(typeof prompt === 'string' && PROMPTS.has(prompt) ? { prompt } : {}),
    ...(typeof loginHint === 'string' && loginHint !== '' && loginHint.length <= 256 ? { loginHint } : {}),
  }
}

/** The way back is the application: its next request brings a new challenge. */
function stepUpExpired(loginUrl: string): BffError {
  return new BffError('bad_request', 'this link to sign in again was used already, or is too old', {
    details: { reason: 'step_up_expired', login_url: loginUrl },
  })
}

export type LoginUrlsDeps = {
  readonly basePath: string
  /** Longest path and query that our own listener takes. */
  readonly urlLength: number
  readonly parseReturnUrl: (value: unknown) => string | undefined
}

/** Returns the path of a sign-in that comes back to `target`, as far as that can be returned to. */
export type LoginUrlFor = (target?: string) => string

/** Makes login URLs that `B/login` accepts: none is too long for the listener, none leads to a refused return URL. */
export function createLoginUrls({ basePath, urlLength, parseReturnUrl }: LoginUrlsDeps): LoginUrlFor {
  const login = `${basePath}/login`

  return function loginUrlFor(target) {
    const returnUrl = target === undefined ? undefined : parseReturnUrl(target)
    if (returnUrl === undefined) return login
    for (const [part, encode] of shortenings(returnUrl)) {
      const url = `${login}?returnUrl=${encode(part)}`
      if (url.length <= urlLength) return url
    }
    return login
  }
}

/** From the longest to the shortest: escaped as usual, then escaped sparingly, then without the query, then shorter paths. */
function* shortenings(returnUrl: string): Generator<[part: string, encode: (part: string) => string]> {
  yield [returnUrl, encodeURIComponent]
  yield [returnUrl, encodeSparingly]
  // Half a query or half a segment would mean something else.
  let path = returnUrl.split(/[?#]/, 1)[0]!
  for (let cuts = 0; path.length > 1 && cuts < 64; cuts += 1) {
    yield [path, encodeSparingly]
    path = path.slice(0, path.lastIndexOf('/', path.length - 2) + 1)
  }
}

/** Escapes only what would mean something else in the value of a query parameter (WHATWG URL §5.1). */
function encodeSparingly(text: string): string {
  return text.replace(/[^\w.~!$'()*,/:;=?@-]/g, encodeURIComponent)
}

/**
 * Returns the login URL for a page or a download. A redirect to a download leaves the tab on the page before, so the way
 * back ends on a page of ours; with a Strict session cookie it does anyway.
 */
export function pageLoginUrl(loginUrl: string, sameSite: 'strict' | 'lax'): string {
  return sameSite === 'lax' && loginUrl.includes('?') ? `${loginUrl}&landing=page` : loginUrl
}
