import { randomUUID } from 'node:crypto'
import { BffError } from '../../errors.ts'
import type { SessionHash, Store } from '../port.ts'
import type { RedisConnection } from './connection/client.ts'

/** Longest life of what a trial leaves behind when it fails halfway. */
const TRIAL_LIFE_MS = 10_000
/** A node of a Redis Cluster has some of the slots: it is found out, because it hardly has those of so many random keys. */
const TRIAL_KEYS = 16

/**
 * Does everything with a store that is ever done with it, on random names. Rejects with the first failure: a right is
 * missing, say, or the server is a replica, or one node of a cluster.
 */
export async function tryEverything(store: Store): Promise<void> {
  await store.ping()
  await Promise.all(Array.from({ length: TRIAL_KEYS }, () => store.clientTokens.read(randomUUID())))
  await trySession(store)
  await tryRest(store)
}

async function trySession({ sessions, tokens }: Store): Promise<void> {
  const hash = `trial-${randomUUID()}` as SessionHash
  const accessToken = { resource: 'trial', sealed: 'trial' }
  await sessions.create(hash, 'trial')
  try {
    await sessions.read(hash)
    await sessions.slide(hash)
    await sessions.timeLeft(hash)
    await sessions.noteAbout(hash, 'trial')
    await sessions.about(hash)
    await tokens.create(hash, { refreshToken: 'trial', accessTokens: {} })
    await tokens.lock(hash, 'trial', TRIAL_LIFE_MS)
    await tokens.write(hash, { expectedVersion: 1, accessToken, attempt: 'ended' })
    await tokens.keep(hash, accessToken)
    await tokens.read(hash)
    await tokens.read(hash, accessToken.resource)
    await tokens.forget(hash, [accessToken.resource])
    await tokens.forgetAll(hash)
    await tokens.unlock(hash, 'trial')
    await sessions.replace(hash, { before: 'trial', after: 'trial' })
  } finally {
    await sessions.end(hash)
  }
}

async function tryRest({ clientTokens, logins, replays, endings }: Store): Promise<void> {
  const key = `trial-${randomUUID()}`
  // Only its end removes it.
  await clientTokens.write(key, 'trial', 1)
  await clientTokens.lock(key, 'trial', TRIAL_LIFE_MS)
  await clientTokens.unlock(key, 'trial')
  await logins.put(key, 'trial', TRIAL_LIFE_MS)
  await logins.take(key)
  await replays.firstUse('trial', key, TRIAL_LIFE_MS)
  await replays.keep('trial', key, TRIAL_LIFE_MS)
  await replays.forget('trial', key)
  await endings.last()
  await endings.lastOf([key])
}

/**
 * Writes what waits for a replica, where the store is set up so. That none confirms it is no failure: sessions are served
 * without one. Rejects with `store_unavailable` when Redis does not let us wait.
 */
export async function tryReplicas(
  redis: RedisConnection,
  keys: { readonly lock: (hash: SessionHash) => string },
): Promise<void> {
  const lock = keys.lock(`trial-${randomUUID()}` as SessionHash)
  const { refused } = await redis.runDurably('unlock', [lock], ['trial'])
  if (refused) throw new BffError('store_unavailable', 'redis did not serve WAIT', { cause: refused })
}
