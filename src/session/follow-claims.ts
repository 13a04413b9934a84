import type { SessionHash, SessionRecords } from '../store/port.ts'
import type { UserClaims } from './bff-session.ts'

export type FollowClaimsDeps = {
  readonly records: Pick<SessionRecords, 'read' | 'replace'>
  readonly seal: (id: string, plaintext: string) => string
  readonly open: (id: string, sealed: string) => string | undefined
}

const ATTEMPTS = 5

/**
 * Makes the way to change the claims of a session after its sign-in, everywhere. Each write is based on the record that
 * was read and refused if that has changed meanwhile; one that has ended is never revived, and its life gets no longer.
 * `change` is asked again then, and says undefined when there is nothing to change. Rejects with `store_unavailable`.
 */
export function createFollowClaims({ records, seal, open }: FollowClaimsDeps) {
  return async function followClaims(
    { id, hash }: { readonly id: string; readonly hash: SessionHash },
    change: (before: UserClaims) => UserClaims | undefined,
  ): Promise<void> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const found = await records.read(hash, { slide: false })
      const text = found && open(id, found.value)
      if (!found || text === undefined) return
      const record = JSON.parse(text) as { user?: { claims: UserClaims } }
      const claims = record.user && change(record.user.claims)
      if (!record.user || !claims || JSON.stringify(claims) === JSON.stringify(record.user.claims)) return
      const changed = JSON.stringify({ ...record, user: { ...record.user, claims } })
      if (await records.replace(hash, seal(id, changed), { before: found.value })) return
    }
  }
}
