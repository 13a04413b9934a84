/** base64url(SHA-256(session id)): names a session in the store and on the invalidation channel; opens nothing. */
export type SessionHash = string & { readonly __brand: 'SessionHash' }

/** A record found in the store, and how long it would live if nobody touched it again. */
export type FoundSession = { readonly value: string; readonly expiresInMs: number }

/** Sealed session records. Every method rejects with BffError `store_unavailable` when the store does not answer in time. */
export type SessionRecords = {
  /** Reads one record. `slide` starts the idle timeout again, for the session's tokens too. */
  read(hash: SessionHash, options: { slide: boolean }): Promise<FoundSession | undefined>
  /** Creates a record with the idle timeout as its life; false, and nothing written, if that hash exists already. */
  create(hash: SessionHash, value: string): Promise<boolean>
  /** Replaces an existing record; false, and nothing written, if it has ended: a write never revives a session. */
  replace(hash: SessionHash, value: string): Promise<boolean>
  /**
   * Ends the session: record, tokens and refresh lock go in one step, and every replica is told.
   * Returns the sealed tokens it took, so that the caller can revoke them; exactly one of two racing callers gets them.
   */
  end(hash: SessionHash): Promise<SealedTokens | undefined>
}

/** The token record of one session as stored: everything sealed but the version. */
export type SealedTokens = {
  /** Grows by one with every write; a writer names the version it read, so a late write is refused. */
  readonly version: number
  readonly refreshToken: string | undefined
  /** By resource name. */
  readonly accessTokens: Readonly<Record<string, string>>
}

/** One change to a token record, made by the owner of the refresh lock. */
export type TokenWrite = {
  /** Owner of the refresh lock; the write is refused when somebody else, or nobody, holds it. */
  readonly owner: string
  /** Version the change is based on. */
  readonly expectedVersion: number
  readonly refreshToken?: string
  readonly accessToken?: { readonly resource: string; readonly sealed: string }
}

/** `written`: stored, version is now expectedVersion + 1. `superseded`: lock or version is not ours any more. `gone`: the session ended. */
export type TokenWriteOutcome = 'written' | 'superseded' | 'gone'

/** Sealed token records and the refresh lock, all in one hash slot with their session. */
export type TokenRecords = {
  read(hash: SessionHash): Promise<SealedTokens | undefined>
  /** The first record of a new session, version 1; false if the session has ended or has tokens already. */
  create(hash: SessionHash, tokens: Omit<SealedTokens, 'version'>): Promise<boolean>
  write(hash: SessionHash, change: TokenWrite): Promise<TokenWriteOutcome>
  /** Takes the refresh lock for `ttlMs`; false if somebody holds it. */
  lock(hash: SessionHash, owner: string, ttlMs: number): Promise<boolean>
  /** Gives the lock back, if it is still `owner`'s. */
  unlock(hash: SessionHash, owner: string): Promise<void>
}

/** Login attempts in flight. */
export type LoginRecords = {
  put(key: string, value: string, ttlMs: number): Promise<void>
  /** Returns and deletes in one step, so that an attempt is consumed once. */
  take(key: string): Promise<string | undefined>
}

/** What tells this process that a session changed or ended anywhere. */
export type Invalidations = {
  /** False while nothing would reach us: no copy may be believed then. */
  isLive(): boolean
  /** Calls `listener` with the session that changed or ended, or undefined when any may have. Returns the unsubscriber. */
  onInvalidate(listener: (hash: SessionHash | undefined) => void): () => void
}

/** Everything Cloakroom keeps outside the process. */
export type Store = {
  readonly sessions: SessionRecords
  readonly tokens: TokenRecords
  readonly logins: LoginRecords
  readonly invalidations: Invalidations
  /** Resolves when the store answers; rejects with `store_unavailable` otherwise. */
  ping(): Promise<void>
  close(): Promise<void>
}

/** What a store is told about time. All in ms. */
export type StoreTimes = { readonly idleTimeoutMs: number; readonly now: () => number }

/** Told after every command: how long it took in seconds and how it ended. */
export type ObserveStore = (command: string, seconds: number, outcome: 'ok' | 'error') => void
