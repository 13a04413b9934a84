import type { Request, RequestHandler } from 'express'
import type { LoginParam } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { SignInGoal } from '../../oidc/sign-in/attempts.ts'
import type { BeginSignIn } from '../../oidc/sign-in/authorization.ts'
import type { SingleUseReferences } from '../../oidc/sign-in/single-use-references.ts'
import type { AskedStepUp } from '../../oidc/sign-in/step-up.ts'
import type { Sessions } from '../../session/session.ts'
import type { LoginCookies } from './login-cookies.ts'
import { previousSessionOf } from './previous-session-cookie.ts'

export type LoginDeps = {
  readonly sessions: Pick<Sessions, 'find' | 'named'>
  readonly beginSignIn: BeginSignIn
  /** What a login URL may pass on to the provider. */
  readonly loginParams: readonly LoginParam[]
  readonly loginCookies: LoginCookies
  /** The step-up that the `challenge` of a login URL stands for, if it is known. */
  readonly stepUps: Pick<SingleUseReferences<AskedStepUp>, 'look'>
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
    const found = challenge === undefined ? undefined : await stepUps.look(challenge)
    if (challenge !== undefined && !found) throw stepUpExpired(loginUrlFor(returnUrl))
    // Spent when the sign-in is finished: one that was given up can be begun again.
    const asked = found && { ...found, challenge: String(challenge) }
    if (req.method === 'HEAD') {
      // HEAD begins nothing: it checks a link or shows a preview.
      res.status(302).end()
      return
    }
    const current = await sessions.find(req)
    const { url, cookie } = await deps.beginSignIn({
      ...{ returnUrl, asked, ...parametersOf(req, deps.loginParams) },
      ...(current ? { previous: previousSessionOf(current) } : {}),
      ...(sessions.named(req) === undefined ? {} : { hadCookie: true }),
      ...(req.query.landing === 'page' ? { beganAtRoute: true } : {}),
    })
    deps.loginCookies.set(req, res, cookie)
    res.redirect(302, url.href)
  }
}

/** OpenID Connect Core §3.1.2.1, and `create` of Initiating User Registration 1.0. */
const PROMPTS = new Set(['none', 'login', 'consent', 'select_account', 'create'])

/** What each parameter may be: its own values, a sane length, and nothing that ends a line or a header. */
const LOGIN_PARAMS: Readonly<Record<LoginParam, (value: string) => boolean>> = {
  prompt: isPrompt,
  login_hint: (value) => /^[^\p{Cc}]{1,256}$/u.test(value),
  acr_values: (value) => value.length <= 512 && /^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(value),
  // Seconds: up to 31 years.
  max_age: (value) => /^\d{1,9}$/.test(value),
  // BCP 47.
  ui_locales: (value) => value.length <= 256 && /^[A-Za-z0-9-]{1,35}(?: [A-Za-z0-9-]{1,35})*$/.test(value),
}

/** `none` stands alone, because the others show a page. */
function isPrompt(value: string): boolean {
  const prompts = value.split(' ')
  const isSet = new Set(prompts).size === prompts.length && prompts.every((one) => PROMPTS.has(one))
  return isSet && (prompts.length === 1 || !prompts.includes('none'))
}

/** What of a login URL is passed on to the provider. Everything else in its query is ignored, and so is a value that is none. */
function parametersOf(
  { query }: Request,
  allowed: readonly LoginParam[],
): Pick<SignInGoal, 'prompt' | 'loginHint' | 'params'> {
  const given = allowed.flatMap((name): [LoginParam, string][] => {
    const value = query[name]
    return typeof value === 'string' && LOGIN_PARAMS[name](value) ? [[name, value]] : []
  })
  const { prompt, login_hint: loginHint, ...params } = Object.fromEntries(given)
  return {
    ...(prompt === undefined ? {} : { prompt }),
    ...(loginHint === undefined ? {} : { loginHint }),
    ...(Object.keys(params).length === 0 ? {} : { params }),
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
