import { type ClientTokenTurnDeps, type ClientWish, takeClientTurn } from './client-token-turn.ts'
import { createRecentRefusals } from './recent-refusals.ts'
import type { Rejection, RejectionReaction } from './rejection.ts'
import type { StoredAccessToken } from './token-record.ts'

/** However often an upstream says no, a token of the client is asked for out of turn once a minute. */
const FORCED_EVERY_MS = 60_000
const RELAY: RejectionReaction = { kind: 'relay' }

type Forced = { readonly rejected: string; readonly at: number; readonly result: Promise<StoredAccessToken> }

/**
 * Access tokens of the client itself, one per resource for all replicas, with a copy in this process, renewed like a
 * session's: nobody's session is in them.
 */
export function createClientTokens(deps: ClientTokenTurnDeps) {
  const { now } = deps
  const held = new Map<string, StoredAccessToken>()
  const inFlight = new Map<string, Promise<StoredAccessToken>>()
  const forced = new Map<string, Forced>()
  const refusals = createRecentRefusals(now)

  async function obtain(wish: ClientWish): Promise<StoredAccessToken> {
    refusals.throwIfRecent(wish.resource)
    try {
      const token = await takeClientTurn(deps, wish)
      held.set(wish.resource, token)
      return token
    } catch (error) {
      refusals.remember(wish.resource, error)
      throw error
    }
  }

  function obtainOnce(wish: ClientWish): Promise<StoredAccessToken> {
    const key = JSON.stringify([wish.resource, wish.rejected])
    const running = inFlight.get(key)
    if (running) return running
    const begun = obtain(wish).finally(() => inFlight.delete(key))
    inFlight.set(key, begun)
    return begun
  }

  function tokenFor(resource: string): StoredAccessToken | Promise<StoredAccessToken> {
    const token = held.get(resource)
    // Nothing is held once a token was dropped: the shelf may still have that one.
    if (!token) return obtainOnce({ resource, rejected: forced.get(resource)?.rejected })
    if (now() >= token.expiresAt) return obtainOnce({ resource })
    // A failed renewal is met again by a later caller; the living token serves this one.
    if (now() >= token.renewAt) obtainOnce({ resource }).catch(() => undefined)
    return token
  }

  async function replacementFor(resource: string, rejected: string): Promise<StoredAccessToken | undefined> {
    const recent = forced.get(resource)
    const isRecent = recent !== undefined && now() < recent.at + FORCED_EVERY_MS
    if (isRecent && recent.rejected === rejected) return recent.result
    const token = held.get(resource)
    if (token && token.value !== rejected && now() < token.expiresAt) return token
    // Another replica may have forced it within the same minute.
    if (isRecent || (token?.forcedAt !== undefined && now() < token.forcedAt + FORCED_EVERY_MS))
      return undefined
    held.delete(resource)
    const result = obtainOnce({ resource, rejected })
    forced.set(resource, { rejected, at: now(), result })
    return result
  }

  /** No user can cure what is wrong with a token of the client: all but `invalid_token` is the client's to read. */
  async function onRejected(
    resource: string,
    { token, challenge, isRepeatable }: Rejection,
  ): Promise<RejectionReaction> {
    if (challenge.kind !== 'invalid_token') return RELAY
    const replacement = replacementFor(resource, token.value)
    if (!isRepeatable) {
      replacement.catch(() => undefined)
      return RELAY
    }
    const found = await replacement
    return found ? { kind: 'resend', token: found } : RELAY
  }

  return { tokenFor, onRejected }
}
