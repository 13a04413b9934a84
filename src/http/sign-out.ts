import { timingSafeEqual } from 'node:crypto'
import type { Request, Response } from 'express'
import { BffError } from '../errors.ts'
import type { BffSession } from '../session/bff-session.ts'
import type { Sessions } from '../session/session.ts'

/** Ends a session here and at the provider; resolves with the end-session URL, if the provider has one. */
export type EndSession = (session: BffSession, returnUrl: string) => Promise<string | undefined>

export type SignOutDeps = {
  readonly sessions: Sessions
  readonly endSession: EndSession
  readonly clearSessionCookie: (res: Response) => void
}

/** Signs the browser out and says where it goes next; without a session that is `returnUrl`, so that twice is harmless. */
export function createSignOut({ sessions, endSession, clearSessionCookie }: SignOutDeps) {
  return async function signOut(
    req: Request,
    res: Response,
    { returnUrl, handle }: { returnUrl: string; handle?: string },
  ): Promise<string> {
    const session = await sessions.find(req, res)
    if (!session) {
      clearSessionCookie(res)
      return returnUrl
    }
    if (handle !== undefined && !isSame(handle, session.logoutHandle)) {
      throw new BffError('bad_request', 'the parameter sid does not belong to this session')
    }
    const endSessionUrl = await endSession(session, returnUrl)
    clearSessionCookie(res)
    return endSessionUrl ?? returnUrl
  }
}

function isSame(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)]
  return a.length === b.length && timingSafeEqual(a, b)
}
