import { createHash, randomUUID } from 'node:crypto'
import { createThrottledWarning } from '../../async/log-throttle.ts'
import { describeError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import {
  type AttemptMark,
  type ClientTokenRecords,
  createSessionChanges,
  type EndingRecords,
  type IdpSessionIndex,
  type LoginRecords,
  type ObserveStore,
  type ReplayRecords,
  type SealedTokens,
  type SessionChanges,
  type SessionHash,
  type SessionRecords,
  type Store,
  type StoreTimes,
  type TokenRecords,
  type TokenWrite,
  type TokenWriteOutcome,
  type UserIndex,
} from '../port.ts'
import { type CountShared, countOverReplicas } from '../rate-limits.ts'
import type { RedisConnection } from './connection/client.ts'
import { openRedis, type RedisAddress } from './connection/servers.ts'
import { subscribeToInvalidations } from './invalidation.ts'
import { createRecentWrites, type RecentWrites } from './recent-writes.ts'
import { createRedisSessionIndex, type RedisSessionIndex } from './session-index.ts'
import { tryEverything, tryReplicas } from './trial.ts'

/** The `session.store` of the configuration, type redis. */
export type RedisStoreConfig = RedisAddress & {
  readonly keyPrefix: string
  /** `replica`: a rotated refresh token is on one replica before it is used, or half a second was waited for that. */
  readonly durability?: 'none' | 'replica'
}

/** What the Redis store needs beside its configuration. */
export type RedisStoreDeps = {
  readonly log: Logger
  readonly observe?: ObserveStore
  /** Told of each refresh token that no replica has confirmed in time. */
  readonly unreplicated?: () => void
}

/** What all records share. */
type Parts = {
  readonly redis: RedisConnection
  readonly keys: Keys
  readonly idleTimeoutMs: () => number
  readonly absoluteTimeoutMs?: (() => number) | undefined
  readonly changes: SessionChanges
  readonly index: RedisSessionIndex
  readonly recent: RecentWrites
  /** A refresh token is used although no replica has confirmed it. */
  readonly unreplicated: (refused: unknown) => void
}

const NOT_REPLICATED =
  'no replica of redis has confirmed a rotated refresh token within 500 ms: a failover now would lose it'

/**
 * The store in Redis 6.0 or later (contract section 6). Resolves after the first attempt to connect, at most 3 s,
 * whether or not it succeeded: while Redis is away every method rejects with `store_unavailable`.
 */
export async function createRedisStore(
  config: RedisStoreConfig,
  times: Omit<StoreTimes, 'monotonicNow'>,
  deps: RedisStoreDeps,
): Promise<Store> {
  const keys = createKeys(config.keyPrefix)
  const changes = createSessionChanges()
  const { log, observe, unreplicated } = deps
  const isDurable = config.durability === 'replica'
  const servers = openRedis(config, {
    ...{ log, observe, isDurable },
    notPrimary: () => invalidations.reconnect(),
    otherServer: () => recent.serverChanged(),
  })
  const redis = servers.commands
  const recent = createRecentWrites(redis, log)
  const invalidations = subscribeToInvalidations({
    connection: servers.subscriber,
    publishers: () =>
      redis.keyOfEachPrimary(keys.heartbeat).map((key) => async (text) => {
        await redis.run('heartbeat', [key], [keys.channel, text])
        recent.prune()
      }),
    channel: keys.channel,
    changes,
    log,
  })
  const index = createRedisSessionIndex({ redis, keys, absoluteTimeoutMs: times.absoluteTimeoutMs })
  const warnUnreplicated = createThrottledWarning(log, NOT_REPLICATED)
  const parts = {
    ...{ redis, keys, ...times, changes, index, recent },
    unreplicated(refused: unknown) {
      unreplicated?.()
      warnUnreplicated(refused ? { err: describeError(refused) } : {})
    },
  }
  await Promise.all([redis.attempted, invalidations.attempted])
  const store: Store = {
    sessions: sessionRecords(parts),
    index: index.port,
    tokens: tokenRecords(parts),
    clientTokens: clientTokenRecords(parts),
    logins: loginRecords(parts),
    replays: replayRecords(parts),
    endings: endingRecords(parts),
    invalidations,
    countRequests: (kind, limit) => countOverReplicas(limit, { count: sharedCount(parts, kind), log }),
    async ping() {
      await redis.call('ping', 'PING')
    },
    async tryOut() {
      await tryEverything(store)
      await index.tryOut()
      await tryReplicas(redis, keys)
      // Not through `countRequests`, which hides a failure: each replica counts for itself then.
      await sharedCount(parts, 'trial')(randomUUID(), 1)
      await invalidations.requireLive()
    },
    async close() {
      recent.close()
      invalidations.close()
      await servers.close()
    },
  }
  return store
}

type Keys = ReturnType<typeof createKeys>

function createKeys(prefix: string) {
  return {
    /** The braces are a Redis Cluster hash tag: one session, one slot. */
    session: (hash: SessionHash) => `${prefix}:{${hash}}:session`,
    tokens: (hash: SessionHash) => `${prefix}:{${hash}}:tokens`,
    lock: (hash: SessionHash) => `${prefix}:{${hash}}:refresh-lock`,
    /** Lives as long as the absolute timeout allows the session. */
    life: (hash: SessionHash) => `${prefix}:{${hash}}:life`,
    /** `sub:…` or `idp:…`: in other slots than the sessions that they name. */
    index: (name: UserIndex | IdpSessionIndex) => `${prefix}:${name}`,
    about: (hash: SessionHash) => `${prefix}:{${hash}}:about`,
    client: (key: string) => `${prefix}:client:${key}`,
    clientLock: (key: string) => `${prefix}:client-lock:${key}`,
    login: (key: string) => `${prefix}:login:${key}`,
    /** The id comes from another machine, of whatever length. */
    used: (kind: string, id: string) =>
      `${prefix}:used:${kind}:${createHash('sha256').update(id).digest('base64url')}`,
    ended: (name: string) => `${prefix}:ended:${name}`,
    endings: `${prefix}:endings`,
    limit: (kind: string, key: string) => `${prefix}:limit:${kind}:${key}`,
    channel: `${prefix}:invalidate`,
    /** Never exists. */
    heartbeat: `${prefix}:heartbeat`,
  }
}

/** What PTTL answers for a key that is not there. */
const NO_SUCH_KEY = -2

function sessionRecords(parts: Parts): SessionRecords {
  const { redis, keys, idleTimeoutMs, absoluteTimeoutMs, changes, index, recent } = parts
  return {
    async read(hash) {
      return ((await redis.call('readSession', 'GET', keys.session(hash))) as string | null) ?? undefined
    },
    async slide(hash) {
      const all = [keys.session(hash), keys.tokens(hash), keys.life(hash), keys.about(hash)]
      return ((await redis.run('slideSession', all, [idleTimeoutMs()])) as number | null) ?? undefined
    },
    async timeLeft(hash) {
      const leftMs = (await redis.call('sessionTimeLeft', 'PTTL', keys.session(hash))) as number
      return leftMs === NO_SUCH_KEY ? undefined : leftMs
    },
    async create(hash, value, indexes) {
      const names = indexes ? await index.add(hash, indexes) : ''
      const both = [keys.session(hash), keys.life(hash)]
      const record = [value, idleTimeoutMs(), absoluteTimeoutMs?.() ?? 0, names]
      const isCreated = (await redis.run('createSession', both, record)) === 1
      // Not awaited, and nothing depends on it: what is not forgotten now is met again.
      if (indexes) index.forgetSome(indexes).catch(() => undefined)
      return isCreated
    },
    async replace(hash, { before, after }) {
      const change = [keys.channel, hash, before, after]
      const replaced = (await redis.run('replaceSession', [keys.session(hash)], change)) === 1
      if (replaced) changes.emit('changed', hash)
      return replaced
    },
    async noteAbout(hash, about, session) {
      const both = [keys.session(hash), keys.about(hash)]
      const isNoted = (await redis.run('noteAbout', both, [about])) === 1
      if (isNoted && session) await index.add(hash, session.indexes, session.startedMsAgo)
      return isNoted
    },
    async about(hash) {
      return ((await redis.call('readAbout', 'GET', keys.about(hash))) as string | null) ?? undefined
    },
    async end(hash) {
      const all = [keys.session, keys.tokens, keys.lock, keys.life, keys.about].map((key) => key(hash))
      const taken = await redis.run('endSession', all, [keys.channel, hash])
      recent.note({ hash, script: 'endSession', keys: all, args: [keys.channel, hash] })
      const [tokens, names] = taken as [string[], string]
      changes.emit('changed', hash)
      // It has ended whether or not that works: a name without a session is forgotten when it is met.
      await index.remove(hash, names).catch(() => undefined)
      return sealedTokens(tokens)
    },
  }
}

function tokenRecords({ redis, keys, changes, recent, unreplicated }: Parts): TokenRecords {
  /** A refresh token that was rotated exists nowhere else, so it is the one write that waits for a replica. */
  async function sent(
    both: readonly string[],
    args: readonly (string | number)[],
    isRotated: boolean,
  ): Promise<TokenWriteOutcome | 'behind'> {
    // While Redis is told again what it has lost, its replicas are being synchronised anew: none would confirm anything.
    if (!isRotated || recent.isSettling())
      return (await redis.run('writeTokens', both, args)) as TokenWriteOutcome | 'behind'
    const { reply, isReplicated, refused } = await redis.runDurably('writeTokens', both, args)
    if (!isReplicated && reply === 'written') unreplicated(refused)
    return reply as TokenWriteOutcome | 'behind'
  }

  return {
    async read(hash, resource) {
      const key = keys.tokens(hash)
      const fields = await (resource === undefined
        ? redis.call('readTokens', 'HGETALL', key)
        : redis.run('readToken', [key], [ACCESS + resource]))
      return sealedTokens(fields as string[])
    },
    async create(hash, tokens) {
      const accessTokens = Object.entries(tokens.accessTokens).map(([resource, sealed]) => ({
        resource,
        sealed,
      }))
      const fields = [...refreshField(tokens.refreshToken), ...accessTokens.flatMap(accessField)]
      return (await redis.run('createTokens', [keys.session(hash), keys.tokens(hash)], fields)) === 1
    },
    async write(hash, change) {
      const both = [keys.session(hash), keys.tokens(hash)]
      const args = [keys.channel, hash, change.expectedVersion, ...changedFields(change)]
      // Its lock may be that of the server before.
      if (change.attempt?.startsWith(IN_FLIGHT)) await recent.settled()
      const outcome = await recent.inOrder(() => sent(both, args, change.refreshToken !== undefined))
      if (outcome !== 'written') return outcome
      recent.note({ hash, script: 'writeTokens', keys: both, args })
      if (change.accessToken) changes.emit('changed', hash)
      return outcome
    },
    async keep(hash, accessToken) {
      const both = [keys.session(hash), keys.tokens(hash)]
      const kept = await redis.run('keepToken', both, [keys.channel, hash, ...accessField(accessToken)])
      if (kept === 1) changes.emit('changed', hash)
      return kept === 1
    },
    async forget(hash, resources) {
      const fields = resources.map((resource) => ACCESS + resource)
      await redis.call('forgetTokens', 'HDEL', keys.tokens(hash), ...fields)
    },
    async forgetAll(hash) {
      const forgotten = (await redis.run('forgetAllTokens', [keys.tokens(hash)], [keys.channel, hash])) === 1
      if (forgotten) changes.emit('changed', hash)
      return forgotten
    },
    async lock(hash, owner, ttlMs) {
      // As if another had it, which may well be: the server before may have given it.
      if (!(await recent.settled(LOCK_WAITS_MS))) return false
      return (await redis.run('lock', [keys.lock(hash)], [owner, ttlMs])) === 1
    },
    async unlock(hash, owner) {
      await redis.run('unlock', [keys.lock(hash)], [owner])
    },
  }
}

function clientTokenRecords({ redis, keys }: Parts): ClientTokenRecords {
  return {
    async read(key) {
      return ((await redis.call('readClientToken', 'GET', keys.client(key))) as string | null) ?? undefined
    },
    async write(key, sealed, ttlMs) {
      await redis.call('writeClientToken', 'SET', keys.client(key), sealed, 'PX', ttlMs)
    },
    async lock(key, owner, ttlMs) {
      return (await redis.run('lock', [keys.clientLock(key)], [owner, ttlMs])) === 1
    },
    async unlock(key, owner) {
      await redis.run('unlock', [keys.clientLock(key)], [owner])
    },
  }
}

function loginRecords({ redis, keys }: Parts): LoginRecords {
  return {
    async put(key, value, ttlMs) {
      await redis.call('putLogin', 'SET', keys.login(key), value, 'PX', ttlMs)
    },
    async read(key) {
      return ((await redis.call('readLogin', 'GET', keys.login(key))) as string | null) ?? undefined
    },
    async take(key) {
      return ((await redis.run('takeLogin', [keys.login(key)], [])) as string | null) ?? undefined
    },
  }
}

function replayRecords({ redis, keys }: Parts): ReplayRecords {
  return {
    async firstUse(kind, id, ttlMs) {
      // Who notes it is told apart, because the command is repeated when its answer was lost.
      const answer = await redis.run('firstUse', [keys.used(kind, id)], [randomUUID(), ttlMs])
      return answer as Awaited<ReturnType<ReplayRecords['firstUse']>>
    },
    async keep(kind, id, ttlMs) {
      await redis.call('keepUsed', 'SET', keys.used(kind, id), '', 'PX', ttlMs)
    },
    async forget(kind, id) {
      await redis.call('forgetUsed', 'UNLINK', keys.used(kind, id))
    },
  }
}

/** Longer than a sign-in may take, so that the number of endings which a sign-in has read cannot have begun anew. */
const ENDINGS_LIFE_MS = 3_600_000

function endingRecords({ redis, keys }: Parts): EndingRecords {
  return {
    async last() {
      return Number(await redis.run('lastEnding', [keys.endings], [ENDINGS_LIFE_MS]))
    },
    async note(names, ttlMs) {
      const number = (await redis.run('nextEnding', [keys.endings], [ENDINGS_LIFE_MS])) as number
      const noted = names.map((name) => redis.run('noteEnding', [keys.ended(name)], [number, ttlMs]))
      await Promise.all(noted)
    },
    async lastOf(names) {
      const found = names.map((name) => redis.call('readEnding', 'GET', keys.ended(name)))
      return Math.max(0, ...(await Promise.all(found)).map(Number))
    },
  }
}

function sharedCount({ redis, keys }: Parts, kind: string): CountShared {
  return async (key, perMs) =>
    (await redis.run('countRequest', [keys.limit(kind, key)], [perMs])) as [number, number]
}

/** The caller looks then whether another replica has done its work, and asks again. */
const LOCK_WAITS_MS = 100
const IN_FLIGHT = 'open:'
const ACCESS = 'at:'
/** The field of the mark that a refresh attempt leaves. */
const ATTEMPT = 'spend'

function changedFields({ refreshToken, accessToken, attempt }: TokenWrite): string[] {
  return [
    ...refreshField(refreshToken),
    ...(accessToken ? accessField(accessToken) : []),
    ...(attempt ? [ATTEMPT, attempt === 'ended' ? '' : attempt] : []),
  ]
}

function refreshField(sealed: string | undefined): string[] {
  return sealed === undefined ? [] : ['rt', sealed]
}

function accessField({ resource, sealed }: { resource: string; sealed: string }): string[] {
  return [ACCESS + resource, sealed]
}

/** Reads a flat list of fields and values; an empty one means that there is no such key. */
function sealedTokens(flat: readonly string[]): SealedTokens | undefined {
  let version: number | undefined
  let refreshToken: string | undefined
  let attempt: AttemptMark | undefined
  const accessTokens: Record<string, string> = {}
  for (let i = 0; i < flat.length; i += 2) {
    const [field, value] = [flat[i]!, flat[i + 1]!]
    if (field === 'v') version = Number(value)
    else if (field === 'rt') refreshToken = value
    else if (field === ATTEMPT) attempt = value as AttemptMark
    else if (field.startsWith(ACCESS)) accessTokens[field.slice(ACCESS.length)] = value
  }
  if (version === undefined) return undefined
  return { version, refreshToken, ...(attempt === undefined ? {} : { attempt }), accessTokens }
}
