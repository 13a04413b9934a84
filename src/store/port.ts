import { EventEmitter } from 'node:events'
/** base64url(SHA-256(session id)): names a session in the store and on the invalidation channel; opens nothing. */
export type SessionHash = string & { readonly __brand: 'SessionHash' }

/** Claims of the ID token that signed the user in, or of a refreshed one since (OpenID Connect Core §2, §12.2). */
export type UserClaims = { readonly sub: string; readonly [claim: string]: unknown }

/** What the sign-in of a session asked for and was granted. It stands in the sealed record, which the store never opens. */
export type SessionGrant = {
  /** RFC 8707 indicators of the resources that the sign-in asked for; absent where a grant is not limited to some (§2.2). */
  readonly indicators?: readonly string[] | undefined
  /** The scopes that the sign-in asked for; absent in sessions of older versions. */
  readonly scopes?: readonly string[] | undefined
  /** The scopes that its code answer named (RFC 6749 §5.1), if it did. */
  readonly granted?: readonly string[] | undefined
  /** Names of the claims that came from the UserInfo endpoint. */
  readonly userinfo?: readonly string[] | undefined
  /** Fingerprints of the step-ups that the sign-in was for. */
  readonly steppedUp?: readonly string[] | undefined
  /** The step-ups of the sign-ins of the last minutes that led to this one; absent in sessions of older versions. */
  readonly earlierStepUps?: readonly EarlierStepUp[] | undefined
}

/** A step-up, by its fingerprint, and when the sign-in for it was finished: epoch ms. */
export type EarlierStepUp = { readonly fingerprint: string; readonly at: number }

/**
 * Sealed session records. A creation that is repeated word for word counts as the same one, because its answer may have
 * been lost. Commands that are called in the same tick share one round trip. Every method rejects with BffError
 * `store_unavailable` when the store does not answer in time.
 */
export type SessionRecords = {
  /** Returns the record and leaves its life as it is. */
  read(hash: SessionHash): Promise<string | undefined>
  /**
   * Starts the idle timeout again, for the session's tokens too, but never beyond the absolute timeout. Returns the ms
   * that are left now; undefined when there is no such session.
   */
  slide(hash: SessionHash): Promise<number | undefined>
  /** Returns the ms that are left and leaves them as they are; undefined when there is no such session. */
  timeLeft(hash: SessionHash): Promise<number | undefined>
  /**
   * Creates a record that lives for the idle timeout, and at most for the absolute one; false, and nothing written, if that
   * hash exists already. The session is noted under its indexes first, so that none exists that they do not name.
   */
  create(hash: SessionHash, value: string, indexes?: SessionIndexes): Promise<boolean>
  /** Replaces the record `before` and leaves its life as it is; false, and nothing written, if the record is another or has ended: a write never revives a session. */
  replace(hash: SessionHash, change: { readonly before: string; readonly after: string }): Promise<boolean>
  /**
   * Keeps what a list of sessions tells of this one, sealed, for as long as it lives, and notes it under its indexes again:
   * it may have begun under a version that had none, or they were evicted. False, and nothing written, if it has ended.
   */
  noteAbout(
    hash: SessionHash,
    about: string,
    session?: { readonly indexes: SessionIndexes; readonly startedMsAgo: number },
  ): Promise<boolean>
  /** Returns what `noteAbout` kept last. */
  about(hash: SessionHash): Promise<string | undefined>
  /**
   * Ends the session: removes record, tokens and refresh lock in one step, and tells every replica; then its name under
   * its indexes. Returns the sealed tokens that it removed, so that the caller can revoke them; exactly one of two racing callers gets them.
   */
  end(hash: SessionHash): Promise<SealedTokens | undefined>
}

/** Names the sessions of one user. What follows is a pseudonym of issuer and `sub`. */
export type UserIndex = `sub:${string}`
/** Names the sessions that began in one session of the provider. What follows is a pseudonym of issuer and `sid`. */
export type IdpSessionIndex = `idp:${string}`
/** Under which names one session is found; a provider need not name its own sessions. */
export type SessionIndexes = {
  readonly user: UserIndex
  readonly idpSession?: IdpSessionIndex | undefined
  /** Another name of the user. */
  readonly alias?: UserIndex | undefined
}

/** A session under an index. */
export type IndexedSession = {
  readonly hash: SessionHash
  /** Grows from one session of a user to the next, over all replicas; 0 under an index of a provider's session. */
  readonly order: number
  /** Ms since its sign-in, by the clock of the store; undefined under an index of a provider's session. */
  readonly startedMsAgo: number | undefined
}

/**
 * Finds sessions by what the provider calls its user and its own session, without their cookies. A session and its
 * indexes change one after the other, so an index may name a session that has gone, which is forgotten when it is met.
 */
export type SessionIndex = {
  /**
   * Returns the living sessions under a name; those of a user oldest first.
   *
   * @param newest looks at so many of the newest of a user alone.
   */
  living(index: UserIndex | IdpSessionIndex, newest?: number): Promise<readonly IndexedSession[]>
}

/**
 * What the last refresh attempt left in the record. `open:OWNER`: it is in flight, or its owner has died; the owner is part
 * of the mark, so that two that begin at once are told apart. `lost`: no usable answer came. `burnt`: the refresh token may
 * well be used up, because the provider refused the resource, or the process stood still. tokens/refresh/attempt.ts
 * writes and reads them.
 */
export type AttemptMark = `open:${string}` | 'lost' | 'burnt'

/** The token record of one session as stored: everything sealed but the version. */
export type SealedTokens = {
  /** Grows by one with every write; a writer names the version it read, so a late write is refused (fencing). */
  readonly version: number
  /** Left by a refresh attempt whose outcome is not known: the refresh token may be used up. */
  readonly attempt?: AttemptMark
  readonly refreshToken: string | undefined
  /** By resource name. */
  readonly accessTokens: Readonly<Record<string, string>>
}

/** One change to a token record. It is refused when the record has another version: another replica wrote, or began a refresh attempt. */
export type TokenWrite = {
  /** Version the change is based on. */
  readonly expectedVersion: number
  readonly refreshToken?: string
  readonly accessToken?: { readonly resource: string; readonly sealed: string }
  /** What becomes of the mark of the refresh attempt; unchanged unless given. `ended` removes it. */
  readonly attempt?: AttemptMark | 'ended'
}

/** `written`: stored, version is now expectedVersion + 1. `superseded`: the version is not ours any more. `gone`: the session ended. */
export type TokenWriteOutcome = 'written' | 'superseded' | 'gone'

/** Sealed token records and the refresh lock, all in one hash slot with their session. */
export type TokenRecords = {
  /** Returns the record; where a resource is named, without the access tokens of others, so that it costs the same however many there are. */
  read(hash: SessionHash, resource?: string): Promise<SealedTokens | undefined>
  /** Creates the first record of a new session, version 1; false if the session has ended or has tokens already. */
  create(hash: SessionHash, tokens: Omit<SealedTokens, 'version'>): Promise<boolean>
  /** Replicas are told of a new access token alone: what else a write changes is read past every copy. */
  write(hash: SessionHash, change: TokenWrite): Promise<TokenWriteOutcome>
  /**
   * Stores an access token that took no refresh token. The version stays, so that a refresh attempt in flight is not
   * fenced off; false, and nothing written, if the session has ended.
   */
  keep(
    hash: SessionHash,
    accessToken: { readonly resource: string; readonly sealed: string },
  ): Promise<boolean>
  /** Removes access tokens that nothing will ask for again. The version stays, as with `keep`. */
  forget(hash: SessionHash, resources: readonly string[]): Promise<void>
  /**
   * Removes every access token of a session that has a refresh token, and tells every replica, so that the next request
   * asks for new ones. The version stays, as with `keep`; false, and nothing removed, if there is no refresh token.
   */
  forgetAll(hash: SessionHash): Promise<boolean>
  /** Takes the refresh lock for `ttlMs`; false if another owner holds it. */
  lock(hash: SessionHash, owner: string, ttlMs: number): Promise<boolean>
  /** Releases the lock, if it is still `owner`'s. */
  unlock(hash: SessionHash, owner: string): Promise<void>
}

/** Sealed access tokens of the client itself, one for all replicas, and the lock under which the next one is requested. */
export type ClientTokenRecords = {
  read(key: string): Promise<string | undefined>
  /** Stores it for `ttlMs`, and replaces the one before. */
  write(key: string, sealed: string, ttlMs: number): Promise<void>
  /** Takes the lock for `ttlMs`; false if another owner holds it. */
  lock(key: string, owner: string, ttlMs: number): Promise<boolean>
  /** Releases the lock, if it is still `owner`'s. */
  unlock(key: string, owner: string): Promise<void>
}

/** Sign-in attempts in flight, and other short-lived records whose key goes through the browser. */
export type LoginRecords = {
  put(key: string, value: string, ttlMs: number): Promise<void>
  /** Returns the record and leaves it there. */
  read(key: string): Promise<string | undefined>
  /** Returns and deletes the record in one step, so that an attempt is used once. */
  take(key: string): Promise<string | undefined>
}

/**
 * Messages that are good once over all replicas, such as a logout token or a security event token by its `jti`. Only a
 * digest of `id` is stored.
 */
export type ReplayRecords = {
  /** Notes for `ttlMs` that the message came; `pending` when it came before and is being acted on, `used` when that is done. */
  firstUse(kind: string, id: string, ttlMs: number): Promise<'first' | 'pending' | 'used'>
  /** Notes for `ttlMs` from now on that the message has been acted on. */
  keep(kind: string, id: string, ttlMs: number): Promise<void>
  /** Takes the note back, so that a message that could not be acted on may be sent again. */
  forget(kind: string, id: string): Promise<void>
}

/**
 * The users and provider sessions that were signed out from elsewhere, in the order in which the store was told, for as
 * long as a sign-in that began before may still be on its way. A sign-out counts as later than every sign-in that has
 * asked for `last` by then, whatever the clocks of the replicas say.
 */
export type EndingRecords = {
  /** The number of the last ending; 0 when there was none for an hour. */
  last(): Promise<number>
  /** Notes for `ttlMs` that what these names stand for ended now. */
  note(names: readonly string[], ttlMs: number): Promise<void>
  /** The number of the last ending of any of these; 0 when none is noted. */
  lastOf(names: readonly string[]): Promise<number>
}

/** The requests that one key may make within a window of `perMs`. */
export type RequestLimit = { readonly requests: number; readonly perMs: number }

/**
 * Counts one more request of `key`: 0 when it is within the limit, else the ms until the next may be. Never rejects:
 * without the store, each process counts for itself.
 */
export type CountRequest = (key: string) => Promise<number>

/** Tells this process that a session changed or ended on any replica. */
export type Invalidations = {
  /** False while nothing would reach us: no copy may be trusted then. */
  isLive(): boolean
  /** Calls `listener` with the session that changed or ended; with undefined when any may have. Returns what unsubscribes it. */
  onInvalidate(listener: (hash: SessionHash | undefined) => void): () => void
}

/** Everything Cloakroom keeps outside the process. */
export type Store = {
  readonly sessions: SessionRecords
  readonly index: SessionIndex
  readonly tokens: TokenRecords
  readonly clientTokens: ClientTokenRecords
  readonly logins: LoginRecords
  readonly replays: ReplayRecords
  readonly endings: EndingRecords
  readonly invalidations: Invalidations
  /** Makes the counter of one kind of requests over all replicas. Keys are stored as they are, so they must reveal nothing. */
  countRequests(kind: string, limit: RequestLimit): CountRequest
  /** Resolves when the store answers; rejects with `store_unavailable` otherwise. */
  ping(): Promise<void>
  /** Does everything that is ever done with the store; rejects with `store_unavailable` for the first thing that fails. */
  tryOut(): Promise<void>
  close(): Promise<void>
}

/** The timeouts and the clock of a store. All in ms; the timeouts may change while it is open. */
export type StoreTimes = {
  readonly idleTimeoutMs: () => number
  /** Longest life of a session by the clock of the store, which is the same for all replicas; absent: none. */
  readonly absoluteTimeoutMs?: () => number
  /** A clock that never goes back: every life in the store is relative, so that setting the time of day changes none. */
  readonly monotonicNow: () => number
}

/** Called after every command with the seconds it took, how it ended, and the code of its error. */
export type ObserveStore = (command: string, seconds: number, outcome: 'ok' | 'error', error?: string) => void

/** `changed`: the session's record changed or ended; undefined when any session may have changed. */
export type SessionChanges = EventEmitter<{ changed: [hash: SessionHash | undefined] }>

/** Tells the copies of this process which sessions changed; each listener has been called when `emit` returns. */
export function createSessionChanges(): SessionChanges {
  const changes: SessionChanges = new EventEmitter()
  return changes.setMaxListeners(0)
}

/** The port's word for listening to changes; what it returns ends that. */
export function onInvalidateOf(changes: SessionChanges): Invalidations['onInvalidate'] {
  return (listener) => {
    changes.on('changed', listener)
    return () => changes.off('changed', listener)
  }
}
