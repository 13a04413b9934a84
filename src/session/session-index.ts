import { createHash } from 'node:crypto'
import { BffError } from '../errors.ts'
import type {
  IdpSessionIndex,
  IndexedSession,
  SessionHash,
  SessionIndexes,
  Store,
  UserClaims,
  UserIndex,
} from '../store/port.ts'

/**
 * Whose sessions: those of a user, those of one session at the provider, or, with both `sub` and `sid`, those that are
 * of both (OpenID Connect Back-Channel Logout §2.6). `iss` as in the ID token.
 */
export type SessionsOf =
  | { readonly iss: string; readonly sub: string; readonly sid?: string | undefined }
  | { readonly iss: string; readonly sub?: undefined; readonly sid: string }

/**
 * Ends every session of a user, or of a session at the provider, on all replicas: the records are removed, copies are
 * dropped, WebSockets and endless answers end, and a sign-in that is on its way is refused. Resolves with how many there
 * were; `reason` labels each in the metrics. Their refresh tokens are not revoked: only their cookies open them.
 * Rejects with `store_unavailable`; what has ended until then has ended, and the call may be repeated.
 */
export type EndSessions = (of: SessionsOf, reason: string) => Promise<number>

/** From where a session is used, for its user to recognize it. Times in epoch ms. */
export type SessionAbout = {
  /** The sign-in. */
  readonly created: number
  /** The last use, to about a minute; `userAgent` and `ip` are those of then. */
  readonly lastSeen: number
  readonly userAgent?: string | undefined
  readonly ip: string
}

/** One session of a list. What is told of it is not there when it was sealed with a key that this replica does not have. */
export type ListedSession = Partial<SessionAbout> & {
  /** Names it for its own user alone: neither the cookie's session id nor the hash. */
  readonly id: string
  readonly hash: SessionHash
}

export type UserSessionsDeps = {
  readonly store: Pick<Store, 'sessions' | 'index' | 'endings'>
  /** How long a sign-in may take, in ms: an end is remembered for so long. */
  readonly signInLifetimeMs: number
  /** Opens with the session keys alone, because nobody has the cookies of a user's other sessions. */
  readonly openAbout: (hash: SessionHash, sealed: string) => string | undefined
  /** Make a name of a text under each session key; the first is that of new sessions. */
  readonly pseudonyms: readonly ((text: string) => string)[]
  /** Called for each session that has ended. */
  readonly ended: (hash: SessionHash, reason: string) => void
}

/** The sessions of users, found without their cookies. Every promise rejects with `store_unavailable` when the store does not answer. */
export type UserSessions = {
  /** The names under which a new session is found. */
  indexesOf(claims: UserClaims): SessionIndexes
  /** Returns the living sessions of a user, the one used last first; of more than `most`, 100 unless given, those that began last. */
  list(claims: UserClaims, most?: number): Promise<readonly ListedSession[]>
  /** Ends the session that a list of this user's calls so; false when there is none. */
  endOne(claims: UserClaims, id: string, reason: string): Promise<boolean>
  /** Ends all sessions of a user but one; resolves with how many there were. */
  endOthers(claims: UserClaims, kept: SessionHash, reason: string): Promise<number>
  /**
   * Ends the oldest sessions of a user beyond so many; resolves with how many there were. Replicas that do so at once end
   * the same ones, because they see one order.
   */
  endOldest(claims: UserClaims, beyond: number): Promise<number>
  readonly end: EndSessions
  /**
   * Throws `invalid_callback` when the user's sessions, or those of this session at the provider, were ended while the
   * sign-in was on its way: a logout that overtakes its login. Ask when the session exists: either the logout finds it in
   * the index, or this finds the logout.
   *
   * @param endingsBefore `store.endings.last()` when the sign-in began, before the provider was asked.
   */
  requireNotEnded(claims: UserClaims, endingsBefore: number): Promise<void>
}

/** Most sessions that are ended in one round trip. */
const ENDED_AT_ONCE = 100
/** Each costs two commands: a user with thousands must not make every look at his list expensive. */
const LISTED = 100

/** Makes the way to sessions that goes by user instead of by cookie. */
export function createUserSessions(deps: UserSessionsDeps): UserSessions {
  const { store, pseudonyms, ended } = deps
  const userNames = (iss: unknown, sub: string) => namesOf<UserIndex>('sub', iss, sub)
  const idpNames = (iss: unknown, sid: string) => namesOf<IdpSessionIndex>('idp', iss, sid)

  function namesOf<Name>(kind: string, iss: unknown, value: string): Name[] {
    // JSON, because no choice of issuer and value can make two different pairs equal.
    const text = JSON.stringify([kind, iss ?? null, value])
    return pseudonyms.map((pseudonym) => `${kind}:${pseudonym(text)}` as Name)
  }

  /** Oldest first. */
  async function living(
    names: readonly (UserIndex | IdpSessionIndex)[],
    newest?: number,
  ): Promise<readonly SessionHash[]> {
    const found = await Promise.all(names.map((name) => store.index.living(name, newest)))
    return found
      .flat()
      .sort(inOrder)
      .map(({ hash }) => hash)
  }

  async function matching({ iss, sub, sid }: SessionsOf): Promise<readonly SessionHash[]> {
    const ofSid = sid === undefined ? undefined : await living(idpNames(iss, sid))
    if (sub === undefined) return ofSid ?? []
    const ofSub = await living(userNames(iss, sub))
    return ofSid ? ofSub.filter((hash) => ofSid.includes(hash)) : ofSub
  }

  const of = ({ iss, sub }: UserClaims, newest?: number) => living(userNames(iss, sub), newest)

  async function list(claims: UserClaims, most = LISTED): Promise<readonly ListedSession[]> {
    const hashes = (await of(claims, most)).slice(-most)
    const sealed = await Promise.all(hashes.map((hash) => store.sessions.about(hash)))
    const listed = hashes.map((hash, at): ListedSession => {
      const text = sealed[at] === undefined ? undefined : deps.openAbout(hash, sealed[at])
      return { id: listedId(hash), hash, ...(text === undefined ? {} : (JSON.parse(text) as SessionAbout)) }
    })
    return listed.sort((a, b) => (b.lastSeen ?? 0) - (a.lastSeen ?? 0))
  }

  async function endAll(hashes: readonly SessionHash[], reason: string): Promise<number> {
    let count = 0
    for (let at = 0; at < hashes.length; at += ENDED_AT_ONCE) {
      const some = hashes.slice(at, at + ENDED_AT_ONCE)
      const taken = await Promise.all(some.map((hash) => store.sessions.end(hash)))
      // Of several that end one session, the one that got its tokens counts it.
      const endedNow = some.filter((_, index) => taken[index] !== undefined)
      for (const hash of endedNow) ended(hash, reason)
      count += endedNow.length
    }
    return count
  }

  return {
    indexesOf({ iss, sub, sid }) {
      const [user] = userNames(iss, sub)
      const [idpSession] = isSid(sid) ? idpNames(iss, sid) : []
      if (user === undefined) throw new RangeError('at least one session key is needed')
      return { user, idpSession }
    },
    list,
    async endOne(claims, id, reason) {
      const hash = (await of(claims, LISTED)).find((one) => listedId(one) === id)
      return hash !== undefined && (await endAll([hash], reason)) === 1
    },
    async endOthers(claims, kept, reason) {
      return endAll(
        (await of(claims)).filter((hash) => hash !== kept),
        reason,
      )
    },
    async endOldest(claims, beyond) {
      const hashes = await of(claims)
      return endAll(hashes.slice(0, Math.max(0, hashes.length - beyond)), 'max_per_user')
    },
    async end(of, reason) {
      const { iss, sub, sid } = of
      const names = sid !== undefined ? idpNames(iss, sid) : sub === undefined ? [] : userNames(iss, sub)
      // First, so that a session which is created after the look below is refused by its own sign-in.
      await store.endings.note(names, deps.signInLifetimeMs)
      return endAll(await matching(of), reason)
    },
    async requireNotEnded({ iss, sub, sid }, endingsBefore) {
      const names = [...userNames(iss, sub), ...(isSid(sid) ? idpNames(iss, sid) : [])]
      if ((await store.endings.lastOf(names)) <= endingsBefore) return
      throw new BffError(
        'invalid_callback',
        'the provider ended the session while the sign-in was on its way',
        {
          details: { reason: 'grant_ended' },
        },
      )
    },
  }
}

/** What a list calls a session: from the hash alone, so that it stays when session keys change; one way, so that it leads to no key of the store. */
export function listedId(hash: SessionHash): string {
  return createHash('sha256').update(`cloakroom listed session ${hash}`).digest('base64url').slice(0, 22)
}

const isSid = (sid: unknown): sid is string => typeof sid === 'string' && sid !== ''

/** Those of one moment by their names, so that all replicas see the same order. */
function inOrder(a: IndexedSession, b: IndexedSession): number {
  return a.order - b.order || (a.hash < b.hash ? -1 : 1)
}
