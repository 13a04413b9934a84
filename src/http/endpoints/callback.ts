import type { Request, RequestHandler, Response } from 'express'
import { BffError } from '../../errors.ts'
import {
  type BegunSignIn,
  type EarlierSession,
  type LoginAttempt,
  type LoginAttempts,
  loginTicketId,
} from '../../oidc/sign-in/attempts.ts'
import { hasLoginError, withLoginError, withoutLoginError } from '../../oidc/sign-in/return-url.ts'
import type { BffSession } from '../../session/bff-session.ts'
import { clearBrowserCache } from './browser-cache.ts'
import type { LoginCookies } from './login-cookies.ts'
import { arrivalPage, landingPage, onwardPage, type Page, sendPage } from './pages.ts'
import type { EarlierCookie } from './previous-session-cookie.ts'
import type { MayLackCookie } from './strict-cookie.ts'

/**
 * Redeems the code and begins the new session with its tokens; or gives the sign-in that has begun in its place, because
 * it brought no refresh token.
 */
export type FinishSignIn = (
  req: Request,
  res: Response,
  response: { attempt: LoginAttempt; query: string },
) => Promise<{ readonly session: BffSession } | { readonly repetition: BegunSignIn }>

export type CallbackDeps = {
  readonly basePath: string
  readonly sameSite: 'strict' | 'lax'
  readonly loginAttempts: LoginAttempts
  readonly loginCookies: LoginCookies
  readonly earlierCookie: EarlierCookie
  readonly finishSignIn: FinishSignIn
  /** Ends the sessions that this one replaces, and revokes their grants; whether any was alive. Never rejects. */
  readonly endEarlier: (
    earlier: readonly EarlierSession[],
    session: BffSession,
    asked: LoginAttempt['asked'],
  ) => Promise<boolean>
  /** Whether the request brings a session cookie, whatever it is worth. */
  readonly hasSessionCookie: (req: Request) => boolean
  readonly mayLackCookie: MayLackCookie
  /** The living session of the request's cookie; looking does not extend it. */
  readonly sessionOf: (req: Request) => Promise<BffSession | undefined>
  /** Where a failure page of this request leads back to. */
  readonly noteReturnUrl: (req: Request, returnUrl: string) => void
}

/** Answers of a provider that was asked to sign in without the user, and cannot (OpenID Connect Core §3.1.2.6). */
const NOT_WITHOUT_USER = new Set([
  'login_required',
  'interaction_required',
  'consent_required',
  'account_selection_required',
])

type AuthorizationResponse = {
  readonly state: string
  /** Names the attempt's cookie. */
  readonly id: string
  /** The attempt's cookie, if this browser has it. */
  readonly secret: string | undefined
  /** With its question mark. */
  readonly query: string
}

/** Sends the browser on. */
type GoOn = (url: string, page: (url: string) => Page) => void

/**
 * Takes the authorization response. `state` finds the attempt's cookie, the cookie opens the attempt, and taking the
 * attempt deletes it: a response is good once, in the browser that began it (RFC 9700 §2.1, §4.7.1).
 */
export function createCallback(deps: CallbackDeps): { callback: RequestHandler; landing: RequestHandler } {
  return {
    async callback(req, res) {
      const goOn = deps.sameSite === 'lax' ? redirects(res) : navigates(res)
      const response = responseIn(req, deps)
      if (response.secret !== undefined) await finish(req, res, { ...response, goOn }, deps)
      else if (deps.mayLackCookie(req) && (await deps.loginAttempts.isFinished(response.state))) {
        sendPage(res, arrivalPage(landingUrl(response.state, deps)))
      } else goOn(await finishedUrl(req, response.state, deps), landingPage)
    },

    /** A page of our own that goes on: reached from our own site, so that the cookie comes along. */
    async landing(req, res) {
      navigates(res)(await finishedUrl(req, responseIn(req, deps).state, deps), landingPage)
    },
  }
}

function responseIn(req: Request, { loginCookies }: CallbackDeps): AuthorizationResponse {
  const { state } = req.query
  if (typeof state !== 'string' || state === '') throw invalid('the response has no single state')
  const id = loginTicketId(state)
  return { state, id, secret: loginCookies.read(req, id), query: queryOf(req.originalUrl) }
}

async function finish(
  req: Request,
  res: Response,
  { state, id, secret = '', query, goOn }: AuthorizationResponse & { goOn: GoOn },
  deps: CallbackDeps,
): Promise<void> {
  const { loginAttempts, loginCookies } = deps
  // Both before anything is used up: while the store is away the attempt is still good.
  const current = await deps.sessionOf(req)
  const attempt = await loginAttempts.take(state, secret)
  loginCookies.clear(res, id)
  if (!attempt) return goOn(await finishedUrl(req, state, deps), landingPage)
  deps.noteReturnUrl(req, attempt.returnUrl)
  const before = deps.earlierCookie.read(req)
  const hasCookie = deps.hasSessionCookie(req) || before.length > 0
  const seen = { current, before, hasCookie, others: loginCookies.others(req, id) }
  let finished: Awaited<ReturnType<FinishSignIn>>
  try {
    finished = await deps.finishSignIn(req, res, { attempt, query })
  } catch (error) {
    if (!isOutcome(error, req, attempt)) throw error
    return goOn(withLoginError(attempt.returnUrl, String(req.query.error)), onwardPage)
  }
  if ('repetition' in finished) return repeat(req, res, { ...finished, secret }, deps)
  const { session } = finished
  await replaceEarlier(res, { ...seen, attempt, secret, session }, deps)
  const returnUrl = withoutLoginError(attempt.returnUrl)
  const isKept = await loginAttempts.keepFinished(state, session, returnUrl)
  goOn(attempt.beganAtRoute && isKept ? landingUrl(state, deps) : returnUrl, landingPage)
}

/** Back to the provider, with what was told to the attempt before. */
async function repeat(
  req: Request,
  res: Response,
  { repetition, secret }: { repetition: BegunSignIn; secret: string },
  { loginAttempts, loginCookies }: CallbackDeps,
): Promise<void> {
  const told = await loginAttempts.takeEarlier(secret)
  if (told) await loginAttempts.leaveEarlier([repetition.ticket.secret], told)
  loginCookies.set(req, res, repetition.ticket)
  res.redirect(303, repetition.url.href)
}

/** What a browser had before this sign-in, by its cookies. */
type Seen = {
  readonly current: BffSession | undefined
  /** What its companion cookie names, dead or alive. */
  readonly before: readonly EarlierSession[]
  readonly hasCookie: boolean
  /** The secrets of its other attempts under way. */
  readonly others: readonly string[]
}

/**
 * Ends what this browser was signed in with before. Under SameSite=Strict the redirect from the provider brings no session
 * cookie, but its companion names the session; and the attempt knows the one that it began beside, and of sign-ins that
 * ended meanwhile.
 */
async function replaceEarlier(
  res: Response,
  made: Seen & { attempt: LoginAttempt; secret: string; session: BffSession },
  { loginAttempts, endEarlier, earlierCookie }: CallbackDeps,
): Promise<void> {
  const { attempt, before, current, session } = made
  // First look, then leave word: of two that finish at once, at most one then ends the other's.
  const told = await loginAttempts.takeEarlier(made.secret)
  await loginAttempts.leaveEarlier(made.others, earlierSession(session))
  const found = [...before, attempt.earlier, told, current && earlierSession(current)]
  const known = found.filter((one) => one !== undefined)
  const earlier = [...new Map(known.map((one) => [one.hash, one])).values()]
  earlierCookie.set(res, earlierSession(session))
  const wasAlive = await endEarlier(earlier, session, attempt.asked)
  // What the browser has kept is another user's, or may be.
  const isUnknown = !wasAlive && (made.hasCookie || attempt.hadCookie === true)
  if (isUnknown || earlier.some(({ sub }) => sub !== session.claims.sub)) clearBrowserCache(res)
}

/** What a later sign-in in the same browser must know of a session to end it. */
export function earlierSession({ id, hash, claims }: BffSession): EarlierSession {
  return { id, hash, sub: claims.sub, ...(typeof claims.sid === 'string' ? { sid: claims.sid } : {}) }
}

/** Where a response leads that was good already, because of the back button, a reload or a second click. */
async function finishedUrl(req: Request, state: string, deps: CallbackDeps): Promise<string> {
  const session = await deps.sessionOf(req)
  const finished = session && (await deps.loginAttempts.finished(state, session))
  if (!finished)
    throw invalid('this browser has no sign-in of that state under way: it took too long, or is over')
  return finished.returnUrl
}

/**
 * Whether the provider answered that it cannot do without the user. One who was asked, and refused so all the same, is
 * told once; at the second time in a row it is a failure, so that a page which needs a session leads nobody in circles.
 */
function isOutcome(error: unknown, req: Request, attempt: LoginAttempt): boolean {
  const { error: code } = req.query
  if (typeof code !== 'string' || !NOT_WITHOUT_USER.has(code)) return false
  // The error names it only if the response was good in every other way.
  if (!(error instanceof BffError) || error.details?.reason !== code) return false
  return attempt.prompt === 'none' || !hasLoginError(attempt.returnUrl)
}

function landingUrl(state: string, { basePath }: CallbackDeps): string {
  return `${basePath}/landing?state=${encodeURIComponent(state)}`
}

const redirects =
  (res: Response): GoOn =>
  (url) =>
    res.redirect(303, url)

const navigates =
  (res: Response): GoOn =>
  (url, page) =>
    sendPage(res, page(url))

function queryOf(url: string): string {
  const at = url.indexOf('?')
  return at === -1 ? '' : url.slice(at)
}

function invalid(why: string): BffError {
  return new BffError('invalid_callback', why)
}
