import { isDeepStrictEqual } from 'node:util'
import { createExpiringMap, type ExpiringMap, heapBytes, heapShare } from '../../async/expiring-map.ts'
import {
  type ClientTokenRecords,
  createSessionChanges,
  type EndingRecords,
  type LoginRecords,
  onInvalidateOf,
  type ReplayRecords,
  type SealedTokens,
  type SessionChanges,
  type SessionHash,
  type SessionIndex,
  type SessionIndexes,
  type SessionRecords,
  type Store,
  type StoreTimes,
  type TokenRecords,
  type TokenWrite,
} from '../port.ts'
import { countInProcess } from '../rate-limits.ts'

type MemorySession = {
  readonly value: string
  readonly tokens?: SealedTokens | undefined
  readonly about?: string
  readonly indexes?: SessionIndexes | undefined
}
type HeldSession = MemorySession & {
  /** The absolute timeout, by the clock of the store. */
  readonly endsAt: number
}

/** Everything that outlives a restart, in plain data: sessions with their tokens, and sign-ins in flight. All of it is sealed. */
export type MemoryContents = {
  readonly sessions: readonly (MemorySession & {
    readonly hash: SessionHash
    /** Ms until the idle timeout. */
    readonly leftMs: number
    /** Ms until the absolute timeout; absent: none. */
    readonly endsInMs?: number
  })[]
  readonly logins: readonly { readonly key: string; readonly value: string; readonly leftMs: number }[]
}

/** The store of one process, which can be written down. */
export type MemoryStore = Store & {
  contents(): MemoryContents
  /** Shortens the idle timeout of a session, until it is used again. */
  shorten(hash: SessionHash, leftMs: number): void
}

/** What the records of sessions and tokens share. */
type Parts = {
  readonly sessions: ExpiringMap<SessionHash, HeldSession>
  readonly locks: ExpiringMap<SessionHash, string>
  readonly changes: SessionChanges
  readonly times: StoreTimes
  readonly names: Names
}

/** The parts of the heap that they may take. */
const SESSIONS_SHARE = 1 / 4
const LOGINS_SHARE = 1 / 16

/**
 * Makes the store of one process, for the demo and for tests: lost at restart, and not shared with other replicas.
 *
 * @param options.maxSessions the session that was used longest ago is removed when there are more; sign-in attempts
 * likewise. Both are bounded by bytes, too, so that large ones do not end the process.
 * @param options.contents what `contents` returned, to begin with.
 */
export function createMemoryStore(
  times: StoreTimes,
  options: { maxSessions?: number; contents?: MemoryContents | undefined } = {},
): MemoryStore {
  const { maxSessions: max = 10_000, contents } = options
  const { monotonicNow } = times
  const changes = createSessionChanges()
  const bytes = (share: number) => ({ max: heapShare(share), of: heapBytes })
  const names = createNames(times.monotonicNow)
  const sessions = createExpiringMap<SessionHash, HeldSession>({
    ...{ monotonicNow, max, bytes: bytes(SESSIONS_SHARE) },
    evicted: (hash) => changes.emit('changed', hash),
    removed: (hash, { indexes }) => names.remove(hash, indexes),
  })
  const locks = createExpiringMap<SessionHash, string>({ monotonicNow, max })
  const logins = createExpiringMap<string, string>({ monotonicNow, max, bytes: bytes(LOGINS_SHARE) })
  const clientTokens = createExpiringMap<string, string>({ monotonicNow, max })
  const clientLocks = createExpiringMap<string, string>({ monotonicNow, max })
  const replays = createExpiringMap<string, 'pending' | 'used'>({ monotonicNow, max })
  const ended = createExpiringMap<string, number>({ monotonicNow, max })
  const maps = [sessions, locks, logins, clientTokens, clientLocks, replays, ended]

  const parts = { sessions, locks, changes, times, names }
  if (contents) restore(contents, { ...parts, logins })
  return {
    sessions: sessionRecords(parts),
    index: sessionIndex(parts),
    tokens: tokenRecords(parts),
    clientTokens: clientTokenRecords(clientTokens, clientLocks),
    logins: loginRecords(logins),
    replays: replayRecords(replays),
    endings: endingRecords(ended),
    invalidations: { isLive: () => true, onInvalidate: onInvalidateOf(changes) },
    countRequests: (_kind, limit) => countInProcess(limit),
    async ping() {},
    async tryOut() {},
    async close() {
      for (const map of maps) map.clear()
    },
    contents: () => ({
      sessions: sessions.living().map(([hash, { endsAt, ...session }, leftMs]) => {
        const endsInMs = endsAt - monotonicNow()
        return { hash, ...session, leftMs, ...(Number.isFinite(endsInMs) && { endsInMs }) }
      }),
      logins: logins.living().map(([key, value, leftMs]) => ({ key, value, leftMs })),
    }),
    shorten(hash, leftMs) {
      const session = sessions.get(hash)
      if (!session || sessions.expiresInMs(hash) <= leftMs) return
      sessions.set(hash, session, leftMs)
      changes.emit('changed', hash)
    },
  }
}

function restore(
  contents: MemoryContents,
  { sessions, logins, names, times }: Parts & { readonly logins: ExpiringMap<string, string> },
): void {
  for (const { hash, leftMs, endsInMs = Number.POSITIVE_INFINITY, ...session } of contents.sessions) {
    if (Math.min(leftMs, endsInMs) <= 0) continue
    names.add(hash, session.indexes)
    sessions.set(hash, { ...session, endsAt: times.monotonicNow() + endsInMs }, Math.min(leftMs, endsInMs))
  }
  for (const { key, value, leftMs } of contents.logins) if (leftMs > 0) logins.set(key, value, leftMs)
}

function sessionRecords({ sessions, locks, changes, times, names }: Parts): SessionRecords {
  const lifeMs = ({ endsAt }: HeldSession) => Math.min(times.idleTimeoutMs(), endsAt - times.monotonicNow())
  return {
    async read(hash) {
      return sessions.get(hash)?.value
    },
    async slide(hash) {
      const session = sessions.get(hash)
      if (!session) return undefined
      sessions.set(hash, session, lifeMs(session))
      return sessions.expiresInMs(hash)
    },
    async timeLeft(hash) {
      const leftMs = sessions.expiresInMs(hash)
      return leftMs > 0 ? leftMs : undefined
    },
    async create(hash, value, indexes) {
      const there = sessions.get(hash)
      if (there) return there.value === value
      const endsAt = times.monotonicNow() + (times.absoluteTimeoutMs?.() ?? Number.POSITIVE_INFINITY)
      const created = { value, tokens: undefined, endsAt, indexes }
      names.add(hash, indexes)
      sessions.set(hash, created, lifeMs(created))
      return true
    },
    async replace(hash, { before, after }) {
      const session = sessions.get(hash)
      if (session?.value !== before) return false
      sessions.update(hash, { ...session, value: after })
      changes.emit('changed', hash)
      return true
    },
    async noteAbout(hash, about, noted) {
      const session = sessions.get(hash)
      if (!session) return false
      if (!session.indexes) names.add(hash, noted?.indexes, noted?.startedMsAgo)
      sessions.update(hash, { ...session, about, indexes: session.indexes ?? noted?.indexes })
      return true
    },
    async about(hash) {
      return sessions.get(hash)?.about
    },
    async end(hash) {
      const tokens = sessions.get(hash)?.tokens
      sessions.delete(hash)
      locks.delete(hash)
      changes.emit('changed', hash)
      return tokens
    },
  }
}

/** The sessions under each name, in the order of their beginnings. */
type Names = ReturnType<typeof createNames>

function createNames(monotonicNow: () => number) {
  const byName = new Map<string, Map<SessionHash, { order: number; startedAt: number }>>()
  let order = 0
  const namesOf = (indexes: SessionIndexes | undefined) =>
    [indexes?.user, indexes?.idpSession, indexes?.alias].filter((name) => name !== undefined)
  return {
    of: (name: string) => [...(byName.get(name) ?? [])],
    add(hash: SessionHash, indexes: SessionIndexes | undefined, startedMsAgo = 0): void {
      order += 1
      const started = { order, startedAt: monotonicNow() - startedMsAgo }
      for (const name of namesOf(indexes))
        byName.set(name, (byName.get(name) ?? new Map()).set(hash, started))
    },
    remove(hash: SessionHash, indexes: SessionIndexes | undefined): void {
      for (const name of namesOf(indexes)) {
        const hashes = byName.get(name)
        hashes?.delete(hash)
        if (hashes?.size === 0) byName.delete(name)
      }
    },
  }
}

function sessionIndex({ sessions, names, times }: Parts): SessionIndex {
  return {
    async living(name, newest) {
      const isOfUser = name.startsWith('sub:')
      const noted = names.of(name).map(([hash, { order, startedAt }]) => {
        const startedMsAgo = isOfUser ? times.monotonicNow() - startedAt : undefined
        return { hash, order: isOfUser ? order : 0, startedMsAgo }
      })
      const looked = newest === undefined || !isOfUser ? noted : noted.slice(-newest)
      return looked.filter(({ hash }) => sessions.expiresInMs(hash) > 0)
    },
  }
}

function tokenRecords({ sessions, locks, changes }: Parts): TokenRecords {
  return {
    async read(hash) {
      return sessions.get(hash)?.tokens
    },
    async create(hash, tokens) {
      const session = sessions.get(hash)
      if (!session) return false
      if (session.tokens) return isDeepStrictEqual(session.tokens, { ...tokens, version: 1 })
      sessions.update(hash, { ...session, tokens: { ...tokens, version: 1 } })
      return true
    },
    async write(hash, change) {
      const session = sessions.get(hash)
      if (!session) return 'gone'
      if (isDone(change, session.tokens)) return 'written'
      if (session.tokens?.version !== change.expectedVersion) return 'superseded'
      sessions.update(hash, { ...session, tokens: changed(session.tokens, change) })
      if (change.accessToken) changes.emit('changed', hash)
      return 'written'
    },
    async keep(hash, { resource, sealed }) {
      const session = sessions.get(hash)
      if (!session?.tokens) return false
      const accessTokens = { ...session.tokens.accessTokens, [resource]: sealed }
      sessions.update(hash, { ...session, tokens: { ...session.tokens, accessTokens } })
      changes.emit('changed', hash)
      return true
    },
    async forget(hash, resources) {
      const session = sessions.get(hash)
      if (!session?.tokens) return
      const living = Object.entries(session.tokens.accessTokens).filter(([name]) => !resources.includes(name))
      const tokens = { ...session.tokens, accessTokens: Object.fromEntries(living) }
      sessions.update(hash, { ...session, tokens })
    },
    async forgetAll(hash) {
      const session = sessions.get(hash)
      if (session?.tokens?.refreshToken === undefined) return false
      sessions.update(hash, { ...session, tokens: { ...session.tokens, accessTokens: {} } })
      changes.emit('changed', hash)
      return true
    },
    ...lockRecords(locks),
  }
}

function lockRecords<Key extends {}>(locks: ExpiringMap<Key, string>) {
  return {
    async lock(key: Key, owner: string, ttlMs: number) {
      const holder = locks.get(key)
      if (holder !== undefined) return holder === owner
      locks.set(key, owner, ttlMs)
      return true
    },
    async unlock(key: Key, owner: string) {
      if (locks.get(key) === owner) locks.delete(key)
    },
  }
}

function clientTokenRecords(
  tokens: ExpiringMap<string, string>,
  locks: ExpiringMap<string, string>,
): ClientTokenRecords {
  return {
    async read(key) {
      return tokens.get(key)
    },
    async write(key, sealed, ttlMs) {
      tokens.set(key, sealed, ttlMs)
    },
    ...lockRecords(locks),
  }
}

/** A write that is repeated word for word because its answer was lost is not a conflict. */
function isDone(
  { expectedVersion, refreshToken, accessToken, attempt }: TokenWrite,
  tokens: SealedTokens | undefined,
): boolean {
  if (tokens?.version !== expectedVersion + 1 || (!refreshToken && !accessToken && !attempt)) return false
  if (refreshToken && refreshToken !== tokens.refreshToken) return false
  if (attempt && (tokens.attempt ?? 'ended') !== attempt) return false
  return !accessToken || tokens.accessTokens[accessToken.resource] === accessToken.sealed
}

function changed(
  { attempt: before, ...tokens }: SealedTokens,
  { refreshToken, accessToken, attempt }: TokenWrite,
): SealedTokens {
  const mark = attempt ?? before
  return {
    version: tokens.version + 1,
    refreshToken: refreshToken ?? tokens.refreshToken,
    accessTokens: accessToken
      ? { ...tokens.accessTokens, [accessToken.resource]: accessToken.sealed }
      : tokens.accessTokens,
    ...(mark && mark !== 'ended' ? { attempt: mark } : {}),
  }
}

function loginRecords(logins: ExpiringMap<string, string>): LoginRecords {
  return {
    async put(key, value, ttlMs) {
      logins.set(key, value, ttlMs)
    },
    async read(key) {
      return logins.get(key)
    },
    async take(key) {
      const value = logins.get(key)
      logins.delete(key)
      return value
    },
  }
}

function replayRecords(used: ExpiringMap<string, 'pending' | 'used'>): ReplayRecords {
  const keyOf = (kind: string, id: string) => `${kind} ${id}`
  return {
    async firstUse(kind, id, ttlMs) {
      const before = used.get(keyOf(kind, id))
      if (before) return before
      used.set(keyOf(kind, id), 'pending', ttlMs)
      return 'first'
    },
    async keep(kind, id, ttlMs) {
      used.set(keyOf(kind, id), 'used', ttlMs)
    },
    async forget(kind, id) {
      used.delete(keyOf(kind, id))
    },
  }
}

function endingRecords(ended: ExpiringMap<string, number>): EndingRecords {
  let last = 0
  return {
    async last() {
      return last
    },
    async note(names, ttlMs) {
      last += 1
      for (const name of names) ended.set(name, last, ttlMs)
    },
    async lastOf(names) {
      return Math.max(0, ...names.map((name) => ended.get(name) ?? 0))
    },
  }
}
