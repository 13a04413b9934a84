import type { SessionHash, SessionRecords, UserClaims } from '../store/port.ts'
import type { SessionContents } from './session.ts'

export type FollowClaimsDeps = {
  /** Absent: none. */
  readonly absoluteTimeoutMs?: number
  readonly records: Pick<SessionRecords, 'read' | 'replace'>
  readonly seal: (id: string, plaintext: string) => string
  readonly open: (id: string, sealed: string) => string | undefined
}

const ATTEMPTS = 5
/** The end of a refresh token comes as a number of seconds: one that stays is written only once. */
const SAME_END_MS = 60_000

/**
 * Makes the way to change a session after its sign-in by what a refresh brought, on every replica: its claims, and when
 * its refresh token ends (epoch ms), if that shortens the session. Each write is based on the record that was read and is
 * refused if that has changed meanwhile; `change` is asked again then. It returns undefined when there is nothing to
 * change. A session that has ended is not revived, and its life gets no longer. Rejects with `store_unavailable`.
 */
export function createFollowClaims(deps: FollowClaimsDeps) {
  const { records, seal, open, absoluteTimeoutMs = Number.POSITIVE_INFINITY } = deps

  function userAfter(
    { user, createdAt = 0 }: SessionContents,
    change: (before: UserClaims) => UserClaims | undefined,
    endsAt: number | undefined,
  ): SessionContents['user'] {
    if (!user) return undefined
    const claims = change(user.claims) ?? user.claims
    const within = (ms = Number.POSITIVE_INFINITY) => Math.min(ms, createdAt + absoluteTimeoutMs)
    const isMoved =
      endsAt !== undefined && !(Math.abs(within(endsAt) - within(user.refreshTokenExpiresAt)) < SAME_END_MS)
    if (!isMoved) return isSameJson(claims, user.claims) ? undefined : { ...user, claims }
    return { ...user, claims, refreshTokenExpiresAt: endsAt }
  }

  return async function followClaims(
    { id, hash }: { readonly id: string; readonly hash: SessionHash },
    change: (before: UserClaims) => UserClaims | undefined,
    refreshTokenExpiresAt?: number,
  ): Promise<void> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const before = await records.read(hash)
      const text = before === undefined ? undefined : open(id, before)
      if (before === undefined || text === undefined) return
      const record = JSON.parse(text) as SessionContents
      const user = userAfter(record, change, refreshTokenExpiresAt)
      if (!user) return
      const after = seal(id, JSON.stringify({ ...record, user }))
      if (await records.replace(hash, { before, after })) return
    }
  }
}

const isSameJson = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)
