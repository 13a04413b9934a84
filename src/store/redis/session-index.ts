import { randomUUID } from 'node:crypto'
import type {
  IdpSessionIndex,
  IndexedSession,
  SessionHash,
  SessionIndex,
  SessionIndexes,
  UserIndex,
} from '../port.ts'
import type { RedisConnection } from './connection/client.ts'

type Name = UserIndex | IdpSessionIndex

type SessionIndexDeps = {
  readonly redis: RedisConnection
  readonly keys: {
    readonly index: (name: Name) => string
    readonly session: (hash: SessionHash) => string
  }
  readonly absoluteTimeoutMs?: (() => number) | undefined
}

/** The index, and what the session records do with it. */
export type RedisSessionIndex = {
  readonly port: SessionIndex
  /** Notes a session that is about to be created, or began so many ms ago. Resolves with what `remove` needs. */
  add(hash: SessionHash, indexes: SessionIndexes, startedMsAgo?: number): Promise<string>
  /** Forgets a session under the names that `add` gave. */
  remove(hash: SessionHash, names: string): Promise<void>
  /** Forgets some of the sessions that have gone without `remove`, so that no index grows with every sign-in. */
  forgetSome(indexes: SessionIndexes): Promise<void>
  /** Does what is ever done with an index; leaves nothing behind. */
  tryOut(): Promise<void>
}

/** A session that was noted so long ago and is not there will not be created any more: every command has a timeout. */
const CREATED_WITHIN_MS = 30_000
const SAMPLE = 16

/**
 * The indexes of sessions. Their keys lie in other slots than the sessions, so a session is noted before it is created
 * and forgotten after its end: there may be names without a session, but no session without its names.
 */
export function createRedisSessionIndex(deps: SessionIndexDeps): RedisSessionIndex {
  const { redis, keys, absoluteTimeoutMs } = deps
  const isLiving = async (hash: SessionHash) =>
    ((await redis.call('sessionTimeLeft', 'PTTL', keys.session(hash))) as number) > 0

  async function split<T extends { readonly hash: SessionHash }>(noted: readonly T[]) {
    const lives = await Promise.all(noted.map(({ hash }) => isLiving(hash)))
    const living = noted.filter((_, at) => lives[at])
    const gone = noted.flatMap(({ hash }, at) => (lives[at] ? [] : [hash]))
    return { living, gone }
  }

  /** Returns those that are certainly over: they were noted long enough ago, or are forgotten already. */
  const forget = async (user: UserIndex, gone: readonly SessionHash[]) =>
    gone.length === 0
      ? []
      : ((await redis.run(
          'forgetSessions',
          [keys.index(user)],
          [CREATED_WITHIN_MS, ...gone],
        )) as SessionHash[])

  const ofUser = async (
    user: UserIndex,
    range: readonly [from: number, to: number],
  ): Promise<IndexedSession[]> => {
    const [now, flat] = (await redis.run('readUserIndex', [keys.index(user)], [...range])) as [
      number,
      string[],
    ]
    return flat.flatMap((hash, at) => {
      const order = Number(flat[at + 1])
      return at % 2 ? [] : [{ hash: hash as SessionHash, order, startedMsAgo: now - order }]
    })
  }

  async function ofIdpSession(name: IdpSessionIndex): Promise<IndexedSession[]> {
    const hashes = (await redis.call('readIdpSessionIndex', 'SMEMBERS', keys.index(name))) as SessionHash[]
    return hashes.map((hash) => ({ hash, order: 0, startedMsAgo: undefined }))
  }

  async function living(name: Name, newest?: number): Promise<readonly IndexedSession[]> {
    const range = [newest === undefined ? 0 : -newest, -1] as const
    const found = await split(isUser(name) ? await ofUser(name, range) : await ofIdpSession(name))
    if (isUser(name)) await forget(name, found.gone)
    return found.living
  }

  async function forgetSome({ user, idpSession }: SessionIndexes): Promise<void> {
    // The order matters: what is under both names was noted for the user first. What the user's does not name any more has
    // been forgotten there, and is not about to be created.
    const sample = idpSession
      ? ((await redis.call(
          'sampleIdpSessionIndex',
          'SRANDMEMBER',
          keys.index(idpSession),
          SAMPLE,
        )) as SessionHash[])
      : []
    const noted = [...(await ofUser(user, [0, SAMPLE - 1])), ...sample.map((hash) => ({ hash }))]
    const over = await forget(user, (await split(noted)).gone)
    if (idpSession && over.length > 0)
      await redis.call('forgetIdpSession', 'SREM', keys.index(idpSession), ...over)
  }

  async function add(hash: SessionHash, indexes: SessionIndexes, startedMsAgo = 0): Promise<string> {
    const { user, idpSession, alias } = indexes
    const note = [hash, absoluteTimeoutMs?.() ?? 0, Math.round(startedMsAgo)]
    await redis.run('indexUser', [keys.index(user)], note)
    if (idpSession) await redis.run('indexIdpSession', [keys.index(idpSession)], note)
    if (alias) await redis.run('indexUser', [keys.index(alias)], note)
    return [user, idpSession, alias].filter((name) => name !== undefined).join(' ')
  }

  async function remove(hash: SessionHash, names: string): Promise<void> {
    const indexes = names.split(' ').filter(Boolean) as Name[]
    await Promise.all(
      indexes.map((name) =>
        isUser(name)
          ? redis.call('forgetUserSession', 'ZREM', keys.index(name), hash)
          : redis.call('forgetIdpSession', 'SREM', keys.index(name), hash),
      ),
    )
  }

  return {
    port: { living },
    ...{ add, remove, forgetSome },
    async tryOut() {
      const hash = `trial-${randomUUID()}` as SessionHash
      const indexes = { user: `sub:${hash}`, idpSession: `idp:${hash}` } as const
      const names = await add(hash, indexes)
      try {
        await living(indexes.user)
        await living(indexes.idpSession)
        await forgetSome(indexes)
      } finally {
        await remove(hash, names)
      }
    },
  }
}

const isUser = (name: Name): name is UserIndex => name.startsWith('sub:')
