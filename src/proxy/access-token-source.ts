import type { BffSession } from '../session/bff-session.ts'

/** An access token for one session and one resource. */
export type AccessToken = {
  /** What goes after `Bearer `. */
  readonly value: string
  /** Epoch ms. */
  readonly expiresAt: number
}

/** What the hot path asks of the tokens room; rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable or store_unavailable. */
export type AccessTokenSource = (session: BffSession, resource: string) => AccessToken | Promise<AccessToken>

/** What the hot path asks of the session room: the signed-in session of a request, or undefined; rejects with store_unavailable. */
export type FindSession<Req, Res> = (
  req: Req,
  res: Res,
) => BffSession | undefined | Promise<BffSession | undefined>
