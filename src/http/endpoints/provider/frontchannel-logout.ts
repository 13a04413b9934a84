import type { Request, RequestHandler } from 'express'
import { BffError } from '../../../errors.ts'
import type { Logger } from '../../../log.ts'
import type { EndSessions } from '../../../session/session-index.ts'
import { isSpeculative } from '../../origins.ts'
import { clearBrowserCache } from '../../security-headers.ts'

export type FrontchannelLogoutDeps = {
  /** The issuer of sessions whose `sid` comes without one. */
  readonly issuer: string
  readonly isIssuer: (iss: string) => boolean
  /** The origins of the provider's pages; never rejects. */
  readonly frameOrigins: () => Promise<readonly string[]>
  readonly endSessions: EndSessions
  readonly requestIdOf: (req: Request) => string
  readonly log: Logger
}

/**
 * Makes `GET B/frontchannel-logout?iss&sid` (OpenID Connect Front-Channel Logout 1.0 §2, §3), which a page of the provider
 * loads in an iframe. A browser sends no cookie there, so the sessions are found by `sid`: a caller that knows it may end them.
 * 200 whether or not there were any; `bad_request` without `sid`, or with the `iss` of another provider. A missing `iss`
 * means the one that is configured, because Entra ID sends none.
 */
export function createFrontchannelLogout(deps: FrontchannelLogoutDeps): RequestHandler {
  return async function frontchannelLogout(req, res) {
    if (isSpeculative(req)) {
      throw new BffError('origin_forbidden', 'this URL must not be fetched ahead of a navigation')
    }
    const of = endedSession(req, deps)
    const count = await deps.endSessions(of, 'frontchannel_logout')
    const request_id = deps.requestIdOf(req)
    if (count > 0)
      deps.log.info({ request_id, reason: 'frontchannel_logout', count }, 'the provider ended sessions')
    clearBrowserCache(res)
    allowFrames(res, await deps.frameOrigins())
    res.status(200).type('html').end()
  }
}

/** §3: `iss` and `sid`, each once. */
function endedSession({ query }: Request, { issuer, isIssuer }: FrontchannelLogoutDeps) {
  const { iss = issuer, sid } = query
  if (typeof iss !== 'string' || (iss !== issuer && !isIssuer(iss))) {
    throw new BffError('bad_request', 'iss is not the issuer of this site', { logged: { claim: 'iss' } })
  }
  if (typeof sid !== 'string' || sid === '') {
    throw new BffError('bad_request', 'sid is missing, or there are several', { logged: { claim: 'sid' } })
  }
  return { iss, sid }
}

/** Lets the provider, and no other site, show this answer in a frame. */
function allowFrames(res: Parameters<RequestHandler>[1], origins: readonly string[]): void {
  const policy = String(res.getHeader('content-security-policy') ?? "default-src 'none'")
  const others = policy.split(';').filter((directive) => !directive.startsWith('frame-ancestors'))
  res.setHeader('content-security-policy', [...others, `frame-ancestors ${origins.join(' ')}`].join(';'))
  res.removeHeader('x-frame-options')
  // A page of the provider with Cross-Origin-Embedder-Policy loads nothing else.
  res.setHeader('cross-origin-resource-policy', 'cross-origin')
}
