import { timingSafeEqual } from 'node:crypto'
import type { Request, RequestHandler, Response } from 'express'
import { BffError } from '../../errors.ts'
import type { EndSessionRequest } from '../../oidc/sign-in/end-session.ts'
import type { SingleUseReferences } from '../../oidc/sign-in/single-use-references.ts'
import type { BffSession } from '../../session/bff-session.ts'
import type { Sessions } from '../../session/session.ts'
import { isSpeculative, type RequireSameOrigin } from '../same-origin.ts'
import { clearBrowserCache } from './browser-cache.ts'
import { endSessionPage, sendPage } from './pages.ts'

/** Ends a session here, and says how the browser ends the provider's; undefined when the provider has no such endpoint. */
export type EndSession = (session: BffSession, returnUrl: string) => Promise<EndSessionRequest | undefined>

export type SignOutDeps = {
  readonly basePath: string
  readonly sessions: Sessions
  readonly endSession: EndSession
  readonly clearSessionCookie: (res: Response) => void
  readonly requireReturnUrl: (value: unknown) => string
  readonly requireSameOrigin: RequireSameOrigin
  /** What is too long for a URL, on its way through a script to the page that posts it. */
  readonly endSessionForms: SingleUseReferences<EndSessionRequest['form']>
  /** Where the provider's way back leads. */
  readonly loggedOutReturns: SingleUseReferences<string>
}

/** The endpoints of a sign-out. */
export type SignOut = Readonly<Record<'byLink' | 'byScript' | 'endSession' | 'loggedOut', RequestHandler>>

/** Signs the browser out and sends it on; without a session nothing changes, so that twice is harmless. */
export function createSignOut(deps: SignOutDeps): SignOut {
  /** What the browser does next: undefined when there was no session to end. */
  async function signOut(req: Request, res: Response, returnUrl: string, handle?: unknown) {
    const session = await deps.sessions.find(req)
    if (session && handle !== undefined && !isSame(handle, session.logoutHandle)) {
      throw new BffError('bad_request', 'the parameter sid is missing, or does not belong to this session')
    }
    const next = session && (await deps.endSession(session, returnUrl))
    // A cross-site navigation brings no Strict cookie: the session that seems to be none may be alive.
    if (session) deps.clearSessionCookie(res)
    clearBrowserCache(res)
    return next
  }

  return {
    async byLink(req, res) {
      const returnUrl = deps.requireReturnUrl(req.query.returnUrl)
      const next = await signOut(req, res, returnUrl, req.query.sid ?? '')
      if (next?.isTooLong) sendPage(res, endSessionPage(next.form))
      else goOn(res, next?.url ?? returnUrl)
    },

    async byScript(req, res) {
      deps.requireSameOrigin(req, { auth: 'required', csrf: 'header' })
      const returnUrl = deps.requireReturnUrl(req.query.returnUrl)
      const next = await signOut(req, res, returnUrl)
      res.json({ redirect: next ? await urlFor(next) : returnUrl })
    },

    /** The page that a script's answer could not be. */
    async endSession(req, res) {
      refuseSpeculation(req)
      const form = await deps.endSessionForms.take(req.query.handle)
      if (form) sendPage(res, endSessionPage(form))
      else goOn(res, '/')
    },

    async loggedOut(req, res) {
      refuseSpeculation(req)
      clearBrowserCache(res)
      goOn(res, (await deps.loggedOutReturns.take(req.query.state)) ?? '/')
    },
  }

  /** The session is over, whatever becomes of the way on. */
  async function urlFor({ isTooLong, form, urlWithoutHint, url }: EndSessionRequest): Promise<string> {
    if (!isTooLong) return url
    const reference = await deps.endSessionForms.keep(form).catch(() => undefined)
    return reference === undefined ? urlWithoutHint : `${deps.basePath}/end-session?handle=${reference}`
  }
}

/** No body: Express would repeat the URL in one, and it may carry an ID token. */
function goOn(res: Response, url: string): void {
  res.status(302).location(url).end()
}

/** What is good once must not be used up by a browser that looks ahead. */
function refuseSpeculation(req: Request): void {
  if (isSpeculative(req)) {
    throw new BffError('origin_forbidden', 'this URL must not be fetched ahead of a navigation')
  }
}

function isSame(given: unknown, expected: string): boolean {
  if (typeof given !== 'string') return false
  const [a, b] = [Buffer.from(given), Buffer.from(expected)]
  return a.length === b.length && timingSafeEqual(a, b)
}
