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
 * Whose sessions: those of a user, by name or by a verified e-mail address, those of one session at the provider, or, with both `sub` and `sid`, those that are
 * of both (OpenID Connect Back-Channel Logout §2.6). `iss` as in the ID token.
 */
export type SessionsOf =
  | {
      readonly email?: undefined
      readonly iss: string
      readonly sub: string
      readonly sid?: string | undefined
    }
  | { readonly email?: undefined; readonly iss: string; readonly sub?: undefined; readonly sid: string }
  | { readonly email: string; readonly iss?: undefined; readonly sub?: undefined; readonly sid?: undefined }

/**
 * Ends every session of a user, or of a session at the provider, on all replicas: the records are removed, copies are
 * dropped, WebSockets and endless answers end, and a sign-in that is on its way is refused. Resolves with how many there
 * were; `reason` labels each in the metrics. Their refresh tokens are not revoked: only their cookies open them.
 * Rejects with `store_unavailable`; what has ended until then has ended, and the call may be repeated.
 */
export type EndSessions = (of: SessionsOf, reason: string, options?: EndOptions) => Promise<number>

/** Which of the sessions found are meant. */
export type EndOptions = {
  /**
   * Epoch ms: a session of the user that began later is another sign-in than the one that ends. What began in one session
   * of the provider ends in any case, because that session is over.
   */
  readonly startedBefore?: number
}

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
  /** Seal and open with the session keys alone, because a request has only one of the user's cookies. */
  readonly sealAbout: (hash: SessionHash, text: string) => string
  readonly openAbout: (hash: SessionHash, sealed: string) => string | undefined
  /** Make a name of a text under each session key; the first is that of new sessions. */
  readonly pseudonyms: readonly ((text: string) => string)[]
  /** Called for each session that has ended. */
  readonly ended: (hash: SessionHash, reason: string) => void
  /** Whether sessions are also found by a verified e-mail address. */
  readonly byEmail?: boolean
  /**
   * Of a provider for many tenants, which writes the tenant into the `iss` of each ID token: its own name. Its sessions go
   * by that, because it does not always say of which tenant they are.
   */
  readonly sharedIssuer?: string | undefined
  /** Epoch ms. */
  readonly now: () => number
}

/** The sessions of users, found without their cookies. Every promise rejects with `store_unavailable` when the store does not answer. */
export type UserSessions = {
  /** The names under which a new session is found. */
  indexesOf(claims: UserClaims): SessionIndexes
  /** Keeps from where a session is used, and notes it under its names again. */
  noteUse(
    session: { readonly hash: SessionHash; readonly createdAt: number; readonly claims: UserClaims },
    from: Pick<SessionAbout, 'ip' | 'userAgent'>,
  ): Promise<unknown>
  /**
   * Returns the living sessions of a user, the one used last first; of more than `most`, 100 unless given, those that began
   * last, and `own`, which is there because the request came with it.
   */
  list(
    claims: UserClaims,
    options?: { readonly most?: number; readonly own?: SessionHash },
  ): Promise<readonly ListedSession[]>
  /** Ends the session that a list of this user's calls so; false when there is none. */
  endOne(claims: UserClaims, id: string, reason: string): Promise<boolean>
  /** Ends all sessions of a user but one; resolves with how many there were. */
  endOthers(claims: UserClaims, kept: SessionHash, reason: string): Promise<number>
  /**
   * Ends the oldest sessions of a user beyond so many, 0 for no limit; resolves with how many there were. Replicas that do
   * so at once end the same ones, because they see one order.
   */
  endOldest(claims: UserClaims, beyond: number): Promise<number>
  /** Returns the living sessions that `end` would end, oldest first. */
  find(of: SessionsOf): Promise<readonly SessionHash[]>
  readonly end: EndSessions
  /**
   * Throws `invalid_callback` when the user's sessions were ended while the sign-in was on its way: a logout that overtakes
   * its login; or when its session at the provider was ended at all, because that does not come back. Ask when the session
   * exists: either the logout finds it in the index, or this finds the logout.
   *
   * @param endingsBefore `store.endings.last()` when the sign-in began, before the provider was asked.
   */
  requireNotEnded(claims: UserClaims, endingsBefore: number): Promise<void>
}

/** Most sessions that are ended in one round trip. */
const ENDED_AT_ONCE = 100
/** Each costs two commands: a user with thousands must not make every look at his list expensive. */
const LISTED = 100
/** Characters of a User-Agent: they tell browser and system. */
const USER_AGENT_KEPT = 256

/** Makes the way to sessions that goes by user instead of by cookie. */
export function createUserSessions(deps: UserSessionsDeps): UserSessions {
  const { store, pseudonyms, ended, now } = deps
  const userNames = (iss: unknown, sub: string) => namesOf<UserIndex>('sub', iss, sub)
  const idpNames = (iss: unknown, sid: string) =>
    namesOf<IdpSessionIndex>('idp', deps.sharedIssuer ?? iss, sid)

  /** RFC 5321 §2.4 has case in the local part, and no mail system that people use goes by it. */
  const emailNames = (email: string) => namesOf<UserIndex>('sub', 'mailto:', email.toLowerCase())

  /** Anybody may claim an address that is not verified. */
  const aliasNames = ({ email, email_verified: isVerified }: UserClaims) =>
    deps.byEmail && isVerified === true && isText(email) ? emailNames(email) : []

  function namesOf<Name>(kind: string, iss: unknown, value: string): Name[] {
    // JSON, because no choice of issuer and value can make two different pairs equal.
    const text = JSON.stringify([kind, iss ?? null, value])
    return pseudonyms.map((pseudonym) => `${kind}:${pseudonym(text)}` as Name)
  }

  /** Oldest first. */
  async function living(
    names: readonly (UserIndex | IdpSessionIndex)[],
    newest?: number,
  ): Promise<IndexedSession[]> {
    const found = await Promise.all(names.map((name) => store.index.living(name, newest)))
    // Once each: while session keys change, one may be under the names of both.
    const sorted = found.flat().sort(inOrder)
    return [...new Map(sorted.toReversed().map((one) => [one.hash, one])).values()].reverse()
  }

  async function matching({ email, iss, sub, sid }: SessionsOf): Promise<readonly IndexedSession[]> {
    if (email !== undefined) return living(emailNames(email))
    const ofSid = sid === undefined ? undefined : await living(idpNames(iss, sid))
    if (sub === undefined) return ofSid ?? []
    const ofSub = await living(userNames(iss, sub))
    if (!ofSid) return ofSub
    const hashes = new Set(hashesOf(ofSid))
    return ofSub.filter(({ hash }) => hashes.has(hash))
  }

  const of = async ({ iss, sub }: UserClaims, newest?: number) =>
    hashesOf(await living(userNames(iss, sub), newest))

  const list: UserSessions['list'] = async (claims, { most = LISTED, own } = {}) => {
    const newest = (await of(claims, most)).slice(-most)
    const hashes = own === undefined || newest.includes(own) ? newest : [own, ...newest]
    const sealed = await Promise.all(hashes.map((hash) => store.sessions.about(hash)))
    const listed = hashes.map((hash, at): ListedSession => {
      const text = sealed[at] === undefined ? undefined : deps.openAbout(hash, sealed[at])
      return { id: listedId(hash), hash, ...(text === undefined ? {} : (JSON.parse(text) as SessionAbout)) }
    })
    return listed.sort((a, b) => (b.lastSeen ?? 0) - (a.lastSeen ?? 0))
  }

  const indexesOf = (claims: UserClaims): SessionIndexes => {
    const { iss, sub, sid } = claims
    const [user] = userNames(iss, sub)
    const [idpSession] = isText(sid) ? idpNames(iss, sid) : []
    const [alias] = aliasNames(claims)
    if (user === undefined) throw new RangeError('at least one session key is needed')
    return { user, idpSession, alias }
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
    indexesOf,
    noteUse({ hash, createdAt, claims }, { ip, userAgent }) {
      const about = {
        created: createdAt,
        lastSeen: now(),
        ip,
        userAgent: userAgent?.slice(0, USER_AGENT_KEPT),
      }
      const sealed = deps.sealAbout(hash, JSON.stringify(about satisfies SessionAbout))
      const startedMsAgo = Math.max(0, now() - createdAt)
      return store.sessions.noteAbout(hash, sealed, { indexes: indexesOf(claims), startedMsAgo })
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
      const hashes = beyond > 0 ? await of(claims) : []
      return endAll(hashes.slice(0, Math.max(0, hashes.length - beyond)), 'max_per_user')
    },
    find: async (of) => hashesOf(await matching(of)),
    async end(of, reason, { startedBefore = Number.POSITIVE_INFINITY } = {}) {
      const { email, iss, sub, sid } = of
      const ofUser = email !== undefined ? emailNames(email) : sub === undefined ? [] : userNames(iss, sub)
      const names = sid !== undefined ? idpNames(iss, sid) : startedBefore < now() ? [] : ofUser
      // First, so that a session which is created after the look below is refused by its own sign-in.
      if (names.length > 0) await store.endings.note(names, deps.signInLifetimeMs)
      const at = now()
      const isMeant = ({ startedMsAgo }: IndexedSession) =>
        sid !== undefined || startedMsAgo === undefined || at - startedMsAgo <= startedBefore
      return endAll(hashesOf((await matching(of)).filter(isMeant)), reason)
    },
    async requireNotEnded(claims, endingsBefore) {
      const { iss, sub, sid } = claims
      const [ofUser, ofIdpSession] = await Promise.all([
        store.endings.lastOf([...userNames(iss, sub), ...aliasNames(claims)]),
        // A provider may tell of an end before it is through with it, and may let the user in meanwhile.
        isText(sid) ? store.endings.lastOf(idpNames(iss, sid)) : 0,
      ])
      if (ofUser <= endingsBefore && ofIdpSession === 0) return
      throw new BffError('invalid_callback', 'the provider has ended this session, or those of this user', {
        details: { reason: 'grant_ended' },
      })
    },
  }
}

/** What a list calls a session: from the hash alone, so that it stays when session keys change; one way, so that it leads to no key of the store. */
export function listedId(hash: SessionHash): string {
  return createHash('sha256').update(`cloakroom listed session ${hash}`).digest('base64url').slice(0, 22)
}

const hashesOf = (found: readonly IndexedSession[]) => found.map(({ hash }) => hash)
const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''

/** Those of one moment by their names, so that all replicas see the same order. */
function inOrder(a: IndexedSession, b: IndexedSession): number {
  return a.order - b.order || (a.hash < b.hash ? -1 : 1)
}
