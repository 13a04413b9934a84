import { createHash } from 'node:crypto'
import type { SessionGrant, SessionHash, UserClaims } from '../store/port.ts'

/** The browser's opaque 256-bit session id: it opens the session's records, so it is never logged or stored. */
export type SessionId = string & { readonly __brand: 'SessionId' }

/** A signed-in user's session, as the rest of the program sees it. Its claims follow refreshed ID tokens; the rest is written at sign-in only. */
export type BffSession = SessionGrant & {
  readonly id: SessionId
  readonly hash: SessionHash
  readonly claims: UserClaims
  /** The ID token, for `id_token_hint` at logout. */
  readonly idToken: string
  /** Random value that `GET B/logout?sid=` must carry, so that no other site can sign the user out. */
  readonly logoutHandle: string
  /** Epoch ms of the sign-in; the absolute timeout counts from here. */
  readonly createdAt: number
  /** Epoch ms of the end if nothing more happens: idle or absolute timeout, whichever is first. */
  readonly expiresAt: number
}

/** Returns the name of a session in the store (contract section 6): a dump of the store holds no usable cookie. */
export function sessionHash(id: string): SessionHash {
  return createHash('sha256').update(id).digest('base64url') as SessionHash
}
