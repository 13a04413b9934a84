import type { SessionHash } from '../../store/port.ts'
import type { SignalActions } from './signals-receiver.ts'
import type { SignalSubject } from './subjects.ts'

/** Sessions by what the provider calls them; a user's alone, those of one provider session, or both together. */
type SessionsOf =
  | { readonly iss: string; readonly sub: string; readonly sid?: string | undefined }
  | { readonly iss: string; readonly sid: string }
  | { readonly email: string }

export type SignalActionsDeps = {
  /** Of the provider whose users sign in. */
  readonly issuer: string
  readonly end: (
    of: SessionsOf,
    reason: string,
    options: { readonly startedBefore: number },
  ) => Promise<number>
  readonly find: (of: SessionsOf) => Promise<readonly SessionHash[]>
  /** Makes the next request of a session get new tokens; false when it has no refresh token. */
  readonly forceRenewal: (hash: SessionHash) => Promise<boolean>
}

/** Makes what events do to sessions. */
export function createSignalActions({ issuer, end, find, forceRenewal }: SignalActionsDeps): SignalActions {
  /** Each way in which the subject is named; only one of them may be known here. */
  function namesOf({ user, email, idpSid: sid }: SignalSubject): SessionsOf[] {
    if (sid !== undefined) return [user ? { ...user, sid } : { iss: issuer, sid }]
    return [...(user ? [user] : []), ...(email === undefined ? [] : [{ email }])]
  }

  return {
    async endSessions(of, { reason, startedBefore }) {
      let count = 0
      for (const name of namesOf(of)) count += await end(name, reason, { startedBefore })
      return count
    },
    async renewTokens(of) {
      const found = await Promise.all(namesOf(of).map(find))
      const hashes = [...new Set(found.flat())]
      const renewed = await Promise.all(hashes.map(forceRenewal))
      return renewed.filter(Boolean).length
    },
  }
}
