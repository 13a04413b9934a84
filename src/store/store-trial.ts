import { randomUUID } from 'node:crypto'
import type { SessionHash, Store } from './port.ts'

/** For as long, at most, as what a trial leaves behind when it fails halfway is kept. */
const LEFT_MS = 10_000
/** A node of a Redis Cluster has some of the slots: that it has those of all of these, and lacks others, is no matter of luck. */
const PLACES = 16

/**
 * Does with a store whatever is ever done with it, on names that nobody else has. Rejects as the first thing does that
 * does not work: for want of a right, say, or because the server is a replica, or one node of many.
 */
export async function tryOut(store: Store): Promise<void> {
  await store.ping()
  await Promise.all(Array.from({ length: PLACES }, () => store.clientTokens.read(randomUUID())))
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
    await tokens.create(hash, { refreshToken: 'trial', accessTokens: {} })
    await tokens.lock(hash, 'trial', LEFT_MS)
    await tokens.write(hash, { expectedVersion: 1, accessToken, attempt: 'ended' })
    await tokens.keep(hash, accessToken)
    await tokens.read(hash)
    await tokens.forget(hash, [accessToken.resource])
    await tokens.unlock(hash, 'trial')
    await sessions.replace(hash, { before: 'trial', after: 'trial' })
  } finally {
    await sessions.end(hash)
  }
}

async function tryRest({ clientTokens, logins }: Store): Promise<void> {
  const key = `trial-${randomUUID()}`
  // There is no way to remove it but its end.
  await clientTokens.write(key, 'trial', 1)
  await clientTokens.lock(key, 'trial', LEFT_MS)
  await clientTokens.unlock(key, 'trial')
  await logins.put(key, 'trial', LEFT_MS)
  await logins.take(key)
}
