import { createRecentRefusals } from './recent-refusals.ts'
import { type StoredAccessToken, storedAccessToken } from './token-record.ts'

export type ClientTokensDeps = {
  /** RFC 6749 §4.4; times in epoch ms. Rejects with provider_rejected or provider_unavailable. */
  readonly grant: (
    resource: string,
  ) => Promise<{ accessToken: string; obtainedAt: number; expiresAt: number }>
  readonly now: () => number
  readonly observe: (resource: string, outcome: string) => void
}

/** Access tokens of the client itself, one per resource and process, renewed like a session's: nobody's session is in them. */
export function createClientTokens({ grant, now, observe }: ClientTokensDeps) {
  const held = new Map<string, StoredAccessToken>()
  const inFlight = new Map<string, Promise<StoredAccessToken>>()
  const refusals = createRecentRefusals(now)

  async function obtain(resource: string): Promise<StoredAccessToken> {
    refusals.throwIfRecent(resource)
    try {
      const { accessToken, obtainedAt, expiresAt } = await grant(resource)
      const token = storedAccessToken(accessToken, obtainedAt, expiresAt)
      held.set(resource, token)
      observe(resource, 'renewed')
      return token
    } catch (error) {
      observe(resource, 'unavailable')
      refusals.remember(resource, error)
      throw error
    }
  }

  function obtainOnce(resource: string): Promise<StoredAccessToken> {
    const running = inFlight.get(resource)
    if (running) return running
    const begun = obtain(resource).finally(() => inFlight.delete(resource))
    inFlight.set(resource, begun)
    return begun
  }

  return function clientTokenFor(resource: string): StoredAccessToken | Promise<StoredAccessToken> {
    const token = held.get(resource)
    if (!token || now() >= token.expiresAt) return obtainOnce(resource)
    // A failed renewal is met again by a later caller; the living token serves this one.
    if (now() >= token.renewAt) obtainOnce(resource).catch(() => undefined)
    return token
  }
}
