import type { Request, RequestHandler, Response } from 'express'
import { BffError } from '../errors.ts'
import { type BeginSignIn, type LoginAttempt, type LoginAttempts, loginTicketId } from '../oidc/login.ts'
import type { LoginCookies } from './login-cookies.ts'
import { landingPage, sendPage } from './pages.ts'

/**
 * Redeems the code, begins the new session with its tokens and ends the one it replaces; or resolves with the sign-in that
 * has begun in its place, because it brought no refresh token.
 */
export type FinishSignIn = (
  req: Request,
  res: Response,
  response: { attempt: LoginAttempt; query: string },
) => Promise<Awaited<ReturnType<BeginSignIn>> | undefined>

export type CallbackDeps = {
  readonly sameSite: 'strict' | 'lax'
  readonly loginAttempts: LoginAttempts
  readonly loginCookies: LoginCookies
  readonly finishSignIn: FinishSignIn
}

/**
 * Takes the authorization response. `state` finds the attempt's cookie, the cookie opens the attempt, and taking the
 * attempt deletes it: a response is good once, in the browser that began it (RFC 9700 §2.1, §4.7.1).
 */
export function createCallback(deps: CallbackDeps): RequestHandler {
  return async function callback(req, res) {
    const { state } = req.query
    if (typeof state !== 'string' || state === '') throw invalid('the response has no single state')
    const id = loginTicketId(state)
    const secret = deps.loginCookies.read(req, id)
    if (secret === undefined) throw invalid('this browser has no sign-in of that state under way')
    const attempt = await deps.loginAttempts.take(state, secret)
    // Not before: while the store is away the attempt is still good.
    deps.loginCookies.clear(res, id)
    if (!attempt) throw invalid('the sign-in took too long, or was finished already')
    const repetition = await deps.finishSignIn(req, res, { attempt, query: queryOf(req.originalUrl) })
    if (repetition) {
      deps.loginCookies.set(req, res, repetition.ticket)
      return res.redirect(303, repetition.url.href)
    }
    land(res, attempt.returnUrl, deps.sameSite)
  }
}

function land(res: Response, returnUrl: string, sameSite: 'strict' | 'lax'): void {
  if (sameSite === 'lax') res.redirect(303, returnUrl)
  else sendPage(res, landingPage(returnUrl))
}

function queryOf(url: string): string {
  const at = url.indexOf('?')
  return at === -1 ? '' : url.slice(at)
}

function invalid(why: string): BffError {
  return new BffError('invalid_callback', why)
}
