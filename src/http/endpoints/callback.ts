import type { Request, RequestHandler, Response } from 'express'
import { BffError } from '../../errors.ts'
import {
  type LoginAttempt,
  type LoginAttempts,
  loginAttemptId,
  type PreviousSession,
} from '../../oidc/sign-in/attempts.ts'
import type { BegunSignIn } from '../../oidc/sign-in/authorization.ts'
import { hasLoginError, withLoginError, withoutLoginError } from '../../oidc/sign-in/return-url.ts'
import type { SingleUseReferences } from '../../oidc/sign-in/single-use-references.ts'
import { unverifiedClaims } from '../../oidc/token-endpoint/jwt.ts'
import type { BffSession, Sessions } from '../../session/session.ts'
import { requireNavigation } from '../origins.ts'
import { clearBrowserCache } from '../security-headers.ts'
import type { LoginCookies } from './login-cookies.ts'
import { arrivalPage, landingPage, onwardPage, type Page, sendPage } from './pages.ts'
import { type PreviousSessionCookie, previousSessionOf } from './previous-session-cookie.ts'

/**
 * Redeems the code, and begins the new session with its tokens. Without a refresh token it may begin the sign-in once more
 * instead.
 */
export type FinishSignIn = (
  req: Request,
  res: Response,
  response: { attempt: LoginAttempt; query: string },
) => Promise<{ readonly session: BffSession } | { readonly repetition: BegunSignIn }>

/** Ends the sessions that a new one replaces, and revokes their grants. Resolves with whether any was alive; never rejects. */
export type EndPreviousSessions = (
  previous: readonly PreviousSession[],
  session: BffSession,
  asked: LoginAttempt['asked'],
) => Promise<boolean>

export type CallbackDeps = {
  readonly basePath: string
  readonly sameSite: 'strict' | 'lax'
  readonly sessions: Pick<Sessions, 'peek' | 'named'>
  readonly loginAttempts: LoginAttempts
  readonly loginCookies: LoginCookies
  readonly previousSessionCookie: PreviousSessionCookie
  readonly finishSignIn: FinishSignIn
  /** The form of a response that was posted, as text. Rejects with `bad_request` or `body_too_large`. */
  readonly readForm: (req: Request, res: Response) => Promise<string>
  /** Posted responses, as queries. */
  readonly postedResponses: SingleUseReferences<string>
  readonly endPreviousSessions: EndPreviousSessions
  /** Remembers where a failure page of this request leads back to. */
  readonly noteReturnUrl: (req: Request, returnUrl: string) => void
  /** Told when the provider cannot sign in without the user, and the application is. */
  readonly observeNeedsUser?: () => void
}

/** A provider's answers when it cannot sign in without asking the user (OpenID Connect Core §3.1.2.6). */
const NEEDS_USER = new Set([
  'login_required',
  'interaction_required',
  'consent_required',
  'account_selection_required',
])

type AuthorizationResponse = {
  readonly state: string
  /** Names the cookie of the attempt. */
  readonly id: string
  /** The cookie of the attempt, if this browser has it. */
  readonly secret: string | undefined
  /** With its question mark. */
  readonly query: string
  /** It was posted (OAuth 2.0 Form Post Response Mode). */
  readonly isPosted: boolean
}

/** The endpoints that take the response. */
export type Callback = Readonly<Record<'callback' | 'posted' | 'finish' | 'landing', RequestHandler>>

/** How long a posted response waits for the browser to follow the redirect, in ms. */
export const POSTED_RESPONSE_LIFETIME_MS = 60_000
/**
 * Most bytes of a posted response: one with an ID token in it, and room to spare; where none is asked for, one without, of
 * a sign-in that began before a reload. Strangers, who may post one too, are to fill no store.
 */
export const MOST_POSTED_BYTES = { asked: 65_536, unasked: 4_096 } as const

/** Sends the browser on: by a redirect, or by the page. */
type GoOn = (url: string, page: (url: string) => Page) => void

/**
 * Makes `B/callback`, which takes the authorization response. `state` finds the cookie of the attempt, the cookie opens
 * the attempt, and taking the attempt deletes it: a response is good once, in the browser that began it (RFC 9700 §2.1,
 * §4.7.1).
 */
export function createCallback(deps: CallbackDeps): Callback {
  async function take(req: Request, res: Response, response: AuthorizationResponse): Promise<void> {
    const goOn = deps.sameSite === 'lax' ? redirects(res) : navigates(res)
    if (response.secret !== undefined) await finish(deps, { req, res }, { ...response, goOn })
    else if (mayLackCookie(req, deps) && (await deps.loginAttempts.isFinished(response.state))) {
      sendPage(res, arrivalPage(landingUrl(response.state, deps)))
    } else goOn(await finishedUrl(req, response.state, deps), landingPage)
  }

  return {
    callback: (req, res) => take(req, res, responseIn(req, deps, { query: queryOf(req.originalUrl) })),

    /**
     * A browser sends no Lax or Strict cookie with a POST from another site. So every posted response is
     * kept first and judged later; the redirect that follows brings the cookie of the attempt, and the code comes into no URL.
     */
    async posted(req, res) {
      requireNavigation(req)
      const query = `?${await deps.readForm(req, res)}`
      responseIn(req, deps, { query, isPosted: true })
      const reference = await deps.postedResponses.keep(query)
      res.status(303).location(`${deps.basePath}/callback/finish?h=${reference}`).end()
    },

    /** Only looks it up: the attempt is good once, and a reload must find the way into the application. */
    async finish(req, res) {
      requireNavigation(req)
      const query = await deps.postedResponses.look(req.query.h)
      if (query === undefined) throw invalid('the posted response is not known any more')
      await take(req, res, responseIn(req, deps, { query, isPosted: true }))
    },

    /** A page of our own site that goes on, so that the browser sends the session cookie. */
    async landing(req, res) {
      const { state } = responseIn(req, deps, { query: queryOf(req.originalUrl) })
      navigates(res)(await finishedUrl(req, state, deps), landingPage)
    },
  }
}

function responseIn(
  req: Request,
  { loginCookies }: CallbackDeps,
  { query, isPosted = false }: { query: string; isPosted?: boolean },
): AuthorizationResponse {
  const parameters = new URLSearchParams(query)
  const names = [...parameters.keys()]
  // RFC 6749 §3.1: no parameter comes twice. Of a query the checks of the response say so.
  if (isPosted && new Set(names).size < names.length) throw invalid('the response has a parameter twice')
  const state = stateOf(parameters)
  if (!state) throw invalid('the response has no single state')
  const id = loginAttemptId(state)
  return { state, id, secret: loginCookies.read(req, id), query, isPosted }
}

/** The `state` that finds the attempt, whose checks verify it afterwards: of a signed response too (JARM §2.1). */
function stateOf(parameters: URLSearchParams): string | undefined {
  const jwt = parameters.get('response')
  if (jwt === null) {
    const [state, ...more] = parameters.getAll('state')
    return more.length === 0 ? state : undefined
  }
  if (['code', 'error', 'state'].some((name) => parameters.has(name))) {
    throw invalid('the response has plain parameters beside the signed ones')
  }
  if (jwt.split('.').length === 5) {
    throw invalid(
      'the response is encrypted: register the client without authorization_encrypted_response_alg',
    )
  }
  const state = unverifiedClaims(jwt)?.state
  return typeof state === 'string' ? state : undefined
}

/**
 * Whether this browser may have a session cookie that it did not send: it sends no SameSite=Strict cookie with a
 * navigation that began on another site (RFC 6265bis §5.2). A page of ours that navigates by itself brings the cookie.
 */
function mayLackCookie(req: Request, { sameSite, sessions }: CallbackDeps): boolean {
  // Browsers without Fetch Metadata do not say where a navigation began.
  const isCrossSite = /^(?:cross-site)?$/.test(String(req.headers['sec-fetch-site'] ?? ''))
  const acceptsPages = req.headers.accept?.includes('text/html') === true
  return sameSite === 'strict' && isCrossSite && acceptsPages && sessions.named(req) === undefined
}

type Exchange = { readonly req: Request; readonly res: Response }

async function finish(
  deps: CallbackDeps,
  { req, res }: Exchange,
  { state, id, secret = '', query, isPosted, goOn }: AuthorizationResponse & { goOn: GoOn },
): Promise<void> {
  const { loginAttempts, loginCookies } = deps
  // The session is read before anything is used up: while the store is away, the attempt stays good.
  const current = await deps.sessions.peek(req)
  const attempt = await loginAttempts.take(state, secret)
  loginCookies.clear(res, id)
  if (!attempt) return goOn(await finishedUrl(req, state, deps), landingPage)
  deps.noteReturnUrl(req, attempt.returnUrl)
  const named = deps.previousSessionCookie.read(req)
  const hasCookie = deps.sessions.named(req) !== undefined || named.length > 0
  const seen = { current, named, hasCookie, others: loginCookies.others(req, id) }
  let finished: Awaited<ReturnType<FinishSignIn>>
  try {
    finished = await deps.finishSignIn(req, res, { attempt, query })
  } catch (error) {
    const outcome = outcomeOf(error, attempt)
    if (outcome === undefined) throw error
    deps.observeNeedsUser?.()
    return goOn(withLoginError(attempt.returnUrl, outcome), onwardPage)
  }
  if ('repetition' in finished) return repeat(deps, { req, res }, { ...finished, secret, isPosted })
  const { session } = finished
  await replacePrevious(deps, res, { ...seen, attempt, secret, session })
  const returnUrl = withoutLoginError(attempt.returnUrl)
  const isKept = await loginAttempts.keepFinished(state, session, returnUrl)
  goOn(attempt.beganAtRoute && isKept ? landingUrl(state, deps) : returnUrl, landingPage)
}

/** Back to the provider. The new attempt inherits what other sign-ins have told the one before. */
async function repeat(
  { loginAttempts, loginCookies }: CallbackDeps,
  { req, res }: Exchange,
  { repetition, secret, isPosted }: { repetition: BegunSignIn; secret: string; isPosted: boolean },
): Promise<void> {
  const told = await loginAttempts.takePrevious(secret)
  if (told) await loginAttempts.leavePrevious([repetition.cookie.secret], told)
  loginCookies.set(req, res, repetition.cookie)
  // The provider's page says where its form may lead, redirects included (CSP `form-action`): a page of ours ends that.
  if (isPosted) sendPage(res, onwardPage(repetition.url.href))
  else res.redirect(303, repetition.url.href)
}

/** What the cookies of a browser said before this sign-in. */
type Seen = {
  readonly current: BffSession | undefined
  /** The sessions that its previous-session cookie names, alive or not. */
  readonly named: readonly PreviousSession[]
  readonly hasCookie: boolean
  /** The secrets of its other attempts. */
  readonly others: readonly string[]
}

/**
 * Ends the sessions that this browser had before. Under SameSite=Strict the redirect from the provider brings no session
 * cookie, but the previous-session cookie names the session. The attempt knows the session that it began beside, and
 * those of sign-ins that finished meanwhile.
 */
async function replacePrevious(
  { loginAttempts, endPreviousSessions, previousSessionCookie }: CallbackDeps,
  res: Response,
  made: Seen & { attempt: LoginAttempt; secret: string; session: BffSession },
): Promise<void> {
  const { attempt, named, current, session } = made
  // Read first, then tell the others: of two sign-ins that finish at once, at most one ends the other's session.
  const told = await loginAttempts.takePrevious(made.secret)
  await loginAttempts.leavePrevious(made.others, previousSessionOf(session))
  const found = [...named, attempt.previous, told, current && previousSessionOf(current)]
  const known = found.filter((one) => one !== undefined)
  const previous = [...new Map(known.map((one) => [one.hash, one])).values()]
  previousSessionCookie.set(res, previousSessionOf(session))
  const wasAlive = await endPreviousSessions(previous, session, attempt.asked)
  // The cached answers are another user's, or may be.
  const isUnknown = !wasAlive && (made.hasCookie || attempt.hadCookie === true)
  if (isUnknown || previous.some(({ sub }) => sub !== session.claims.sub)) clearBrowserCache(res)
}

/** Where a response leads that was used already: by the back button, a reload or a second click. */
async function finishedUrl(req: Request, state: string, deps: CallbackDeps): Promise<string> {
  const session = await deps.sessions.peek(req)
  const finished = session && (await deps.loginAttempts.finished(state, session))
  if (!finished)
    throw invalid('this browser has no sign-in of that state under way: it took too long, or is over')
  return finished.returnUrl
}

/**
 * The error with which the provider answered that it cannot sign in without the user. The application is told once. The
 * second time in a row is a failure, so that an application which needs a session starts no loop.
 */
function outcomeOf(error: unknown, attempt: LoginAttempt): string | undefined {
  // Only a response that passed every other check gives a reason of its own.
  if (!(error instanceof BffError) || error.logged?.step !== 'authorization') return undefined
  const reason = String(error.details?.reason)
  if (!NEEDS_USER.has(reason)) return undefined
  return attempt.prompt === 'none' || !hasLoginError(attempt.returnUrl) ? reason : undefined
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
