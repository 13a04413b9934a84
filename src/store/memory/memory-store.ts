import { createInvalidationListeners, type InvalidationListeners } from '../invalidation-listeners.ts'
import type {
  LoginRecords,
  SealedTokens,
  SessionHash,
  SessionRecords,
  Store,
  StoreTimes,
  TokenRecords,
  TokenWrite,
} from '../port.ts'
import { createExpiringMap, type ExpiringMap } from './expiring-map.ts'

type MemorySession = { readonly value: string; readonly tokens: SealedTokens | undefined }

type Rooms = {
  readonly sessions: ExpiringMap<SessionHash, MemorySession>
  readonly locks: ExpiringMap<SessionHash, string>
  readonly listeners: InvalidationListeners
  readonly idleTimeoutMs: number
}

const SWEEP_MS = 30_000

/**
 * The store of one process: lost at restart, shared with nobody, for the demo and for tests.
 *
 * @param options.maxSessions the session used longest ago goes when there are more; login attempts likewise.
 */
export function createMemoryStore(times: StoreTimes, options: { maxSessions?: number } = {}): Store {
  const { maxSessions = 10_000 } = options
  const { now, idleTimeoutMs } = times
  const listeners = createInvalidationListeners()
  const sessions = createExpiringMap<SessionHash, MemorySession>({
    now,
    max: maxSessions,
    evicted: listeners.tell,
  })
  const locks = createExpiringMap<SessionHash, string>({ now, max: maxSessions })
  const logins = createExpiringMap<string, string>({ now, max: maxSessions })
  const maps = [sessions, locks, logins]
  const sweeping = setInterval(() => {
    for (const map of maps) map.sweep()
  }, SWEEP_MS)
  sweeping.unref()

  const rooms = { sessions, locks, listeners, idleTimeoutMs }
  return {
    sessions: sessionRecords(rooms),
    tokens: tokenRecords(rooms),
    logins: loginRecords(logins),
    invalidations: { isLive: () => true, onInvalidate: listeners.onInvalidate },
    async ping() {},
    async close() {
      clearInterval(sweeping)
      for (const map of maps) map.clear()
    },
  }
}

function sessionRecords({ sessions, locks, listeners, idleTimeoutMs }: Rooms): SessionRecords {
  return {
    async read(hash, { slide }) {
      const session = sessions.get(hash)
      if (!session) return undefined
      if (slide) sessions.set(hash, session, idleTimeoutMs)
      return { value: session.value, expiresInMs: sessions.expiresInMs(hash) }
    },
    async create(hash, value) {
      if (sessions.get(hash)) return false
      sessions.set(hash, { value, tokens: undefined }, idleTimeoutMs)
      return true
    },
    async replace(hash, value) {
      const session = sessions.get(hash)
      if (!session) return false
      sessions.set(hash, { ...session, value }, idleTimeoutMs)
      listeners.tell(hash)
      return true
    },
    async end(hash) {
      const tokens = sessions.get(hash)?.tokens
      sessions.delete(hash)
      locks.delete(hash)
      listeners.tell(hash)
      return tokens
    },
  }
}

function tokenRecords({ sessions, locks, listeners }: Rooms): TokenRecords {
  return {
    async read(hash) {
      return sessions.get(hash)?.tokens
    },
    async create(hash, tokens) {
      const session = sessions.get(hash)
      if (!session || session.tokens) return false
      sessions.update(hash, { ...session, tokens: { ...tokens, version: 1 } })
      return true
    },
    async write(hash, change) {
      const session = sessions.get(hash)
      if (!session) return 'gone'
      if (isDone(change, session.tokens)) return 'written'
      if (session.tokens?.version !== change.expectedVersion) return 'superseded'
      sessions.update(hash, { ...session, tokens: changed(session.tokens, change) })
      listeners.tell(hash)
      return 'written'
    },
    async lock(hash, owner, ttlMs) {
      if (locks.get(hash) !== undefined) return false
      locks.set(hash, owner, ttlMs)
      return true
    },
    async unlock(hash, owner) {
      if (locks.get(hash) === owner) locks.delete(hash)
    },
  }
}

/** A write that is repeated word for word, because its answer was lost, is no conflict. */
function isDone(
  { expectedVersion, refreshToken, accessToken, spend }: TokenWrite,
  tokens: SealedTokens | undefined,
): boolean {
  if (tokens?.version !== expectedVersion + 1 || (!refreshToken && !accessToken && !spend)) return false
  if (refreshToken && refreshToken !== tokens.refreshToken) return false
  if (spend && (tokens.spend ?? 'ended') !== spend) return false
  return !accessToken || tokens.accessTokens[accessToken.resource] === accessToken.sealed
}

function changed(
  { spend: before, ...tokens }: SealedTokens,
  { refreshToken, accessToken, spend }: TokenWrite,
): SealedTokens {
  const mark = spend ?? before
  return {
    version: tokens.version + 1,
    refreshToken: refreshToken ?? tokens.refreshToken,
    accessTokens: accessToken
      ? { ...tokens.accessTokens, [accessToken.resource]: accessToken.sealed }
      : tokens.accessTokens,
    ...(mark && mark !== 'ended' ? { spend: mark } : {}),
  }
}

function loginRecords(logins: ExpiringMap<string, string>): LoginRecords {
  return {
    async put(key, value, ttlMs) {
      logins.set(key, value, ttlMs)
    },
    async take(key) {
      const value = logins.get(key)
      logins.delete(key)
      return value
    },
  }
}
