import type { Request, RequestHandler, Response } from 'express'
import { BffError } from '../../errors.ts'
import type { BffSession, Sessions } from '../../session/session.ts'
import { listedId, type UserSessions } from '../../session/session-index.ts'
import type { RequireSameOrigin } from '../origins.ts'
import { clearBrowserCache } from '../security-headers.ts'

export type SessionsEndpointDeps = {
  readonly sessions: Pick<Sessions, 'find'>
  readonly userSessions: Pick<UserSessions, 'list' | 'endOne' | 'endOthers'>
  /** Ends the request's own session, and revokes its refresh token. */
  readonly endOwn: (session: BffSession) => Promise<void>
  readonly clearSessionCookie: (res: Response) => void
  readonly requireSameOrigin: RequireSameOrigin
}

/** How the metrics call the end of a session by its user from another session. */
const REASON = 'by_user'

/**
 * Makes `B/sessions`: a user sees his sessions and ends them (contract section 4; ASVS 7.4.5). Whose they are goes by the
 * verified claims of the request's own session, never by anything that the request says.
 */
export function createSessionsEndpoint(
  deps: SessionsEndpointDeps,
): Record<'list' | 'endOne' | 'endOthers', RequestHandler> {
  const { userSessions } = deps

  async function requireSession(req: Request): Promise<BffSession> {
    deps.requireSameOrigin(req, { auth: 'required', csrf: 'header' })
    const session = await deps.sessions.find(req)
    if (session) return session
    throw new BffError('session_required', 'nobody is signed in')
  }

  return {
    async list(req, res) {
      const own = await requireSession(req)
      const listed = await userSessions.list(own.claims, { own: own.hash })
      res.json({
        sessions: listed.map(({ id, hash, created, lastSeen, userAgent, ip }) => ({
          ...{ id, created: timeOf(created), lastSeen: timeOf(lastSeen), userAgent, ip },
          current: hash === own.hash,
        })),
      })
    },

    async endOne(req, res) {
      const own = await requireSession(req)
      const id = String(req.params[0])
      if (id === listedId(own.hash)) {
        await deps.endOwn(own)
        deps.clearSessionCookie(res)
        clearBrowserCache(res)
      } else if (!(await userSessions.endOne(own.claims, id, REASON))) {
        throw new BffError('route_not_found', 'you have no session of this id')
      }
      res.status(204).end()
    },

    async endOthers(req, res) {
      const own = await requireSession(req)
      await userSessions.endOthers(own.claims, own.hash, REASON)
      res.status(204).end()
    },
  }
}

function timeOf(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString()
}
