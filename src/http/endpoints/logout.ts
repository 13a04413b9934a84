import { timingSafeEqual } from 'node:crypto'
import type { Request, RequestHandler, Response } from 'express'
import { BffError } from '../../errors.ts'
import type { EndSessionRequest } from '../../oidc/sign-in/end-session.ts'
import type { SingleUseReferences } from '../../oidc/sign-in/single-use-references.ts'
import type { BffSession, Sessions } from '../../session/session.ts'
import { isSpeculative, isTopLevelNavigation, type RequireSameOrigin } from '../origins.ts'
import { clearBrowserCache } from '../security-headers.ts'
import { endSessionPage, sendPage, signedOutPage } from './pages.ts'

/** Ends a session here. Resolves with the request that ends the provider's, or undefined if it has no such endpoint. */
export type EndSession = (session: BffSession, returnUrl: string) => Promise<EndSessionRequest | undefined>

export type SignOutDeps = {
  readonly basePath: string
  readonly sessions: Pick<Sessions, 'find'>
  readonly endSession: EndSession
  readonly clearSessionCookie: (res: Response) => void
  readonly requireReturnUrl: (value: unknown) => string
  readonly requireSameOrigin: RequireSameOrigin
  /** Forms that are too long for a URL: a script is given a reference, and the page behind it posts the form. */
  readonly endSessionForms: SingleUseReferences<EndSessionRequest['form']>
  /** Where the browser goes on after it came back from the provider. */
  readonly loggedOutReturns: SingleUseReferences<string>
}

/** The endpoints of a sign-out. */
export type SignOut = Readonly<Record<'byLink' | 'byScript' | 'endSession' | 'loggedOut', RequestHandler>>

/** Makes the sign-out. Without a session it changes nothing, so that a second call is harmless. */
export function createSignOut(deps: SignOutDeps): SignOut {
  /** Resolves with the request that ends the provider's session, or undefined if there is none to make. */
  async function signOut(
    req: Request,
    res: Response,
    { returnUrl, sid }: { returnUrl: string; sid?: unknown },
  ) {
    const session = await deps.sessions.find(req)
    if (session && sid !== undefined && !isSame(sid, session.logoutHandle)) {
      throw new BffError('bad_request', 'the parameter sid is missing, or does not belong to this session')
    }
    const next = session && (await deps.endSession(session, returnUrl))
    // Only then: a cross-site navigation brings no Strict cookie, and the session that it names may be alive.
    if (session) deps.clearSessionCookie(res)
    clearBrowserCache(res)
    return { hasEnded: session !== undefined, next }
  }

  /**
   * Goes on to the application by way of a page of ours. A browser keeps the page that was left alive for its back button
   * from when the next one is there, which after redirects is the application's: nothing of ours would clear it any more.
   */
  function leave(req: Request, res: Response, returnUrl: string): void {
    const wantsPage = isTopLevelNavigation(req) && req.headers.accept?.includes('text/html') === true
    const onward = `${deps.basePath}/logged-out?returnUrl=${encodeURIComponent(returnUrl)}`
    if (wantsPage) sendPage(res, signedOutPage(onward))
    else goOn(res, returnUrl)
  }

  return {
    async byLink(req, res) {
      const returnUrl = deps.requireReturnUrl(req.query.returnUrl)
      const { hasEnded, next } = await signOut(req, res, { returnUrl, sid: req.query.sid ?? '' })
      if (next?.isTooLong) sendPage(res, endSessionPage(next.form))
      else if (next) goOn(res, next.url)
      else if (hasEnded) leave(req, res, returnUrl)
      else goOn(res, returnUrl)
    },

    async byScript(req, res) {
      deps.requireSameOrigin(req, { auth: 'required', csrf: 'header' })
      const returnUrl = deps.requireReturnUrl(req.query.returnUrl)
      const { next } = await signOut(req, res, { returnUrl })
      res.json({ redirect: next ? await urlFor(next) : returnUrl })
    },

    /** The page that posts a form of `endSessionForms`, where a script sends the browser. */
    async endSession(req, res) {
      refuseSpeculation(req)
      const form = await deps.endSessionForms.take(req.query.handle)
      if (form) sendPage(res, endSessionPage(form))
      else goOn(res, '/')
    },

    /** Back from the provider with a `state`; from the page of `leave` with a `returnUrl`. */
    async loggedOut(req, res) {
      refuseSpeculation(req)
      const { state, returnUrl } = req.query
      const onward = returnUrl === undefined ? undefined : deps.requireReturnUrl(returnUrl)
      clearBrowserCache(res)
      if (onward !== undefined) goOn(res, onward)
      else leave(req, res, (await deps.loggedOutReturns.take(state)) ?? '/')
    },
  }

  /** Never rejects: the session has ended already. */
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

/** A prefetch must not use up a single-use reference. */
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
