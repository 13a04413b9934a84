import { createForcedRenewals } from '../forced-renewals.ts'
import { createRecentRefusals } from '../recent-refusals.ts'
import type { StoredAccessToken } from '../record/token-record.ts'
import type { Rejection, RejectionReaction } from '../rejected-token.ts'
import { type ClientTokenTurnDeps, type ClientWish, takeClientTurn } from './client-token-turn.ts'

const RELAY: RejectionReaction = { kind: 'relay' }

/**
 * Access tokens of the client itself, one per resource for all replicas, with a copy in this process, renewed like a
 * session's: nobody's session is in them.
 */
export function createClientTokens(deps: ClientTokenTurnDeps) {
  const { now, monotonicNow } = deps
  const held = new Map<string, StoredAccessToken>()
  const inFlight = new Map<string, Promise<StoredAccessToken>>()
  const refusals = createRecentRefusals(monotonicNow)
  const { replacementFor, isDropped } = createForcedRenewals<ClientWish & { readonly rejected: string }>({
    keyOf: ({ resource }) => resource,
    stored: ({ resource }) => held.get(resource),
    renew: obtainOnce,
    now,
    monotonicNow,
  })

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
    if (!token || now() >= token.expiresAt) return obtainOnce({ resource })
    if (isDropped(resource, token)) return insteadOf(resource, token)
    // A failed renewal is met again by a later caller; the living token serves this one.
    if (now() >= token.renewAt) obtainOnce({ resource }).catch(() => undefined)
    return token
  }

  /** All users share this token: what one of them met at one path must not keep the others from it while no other is had. */
  async function insteadOf(resource: string, token: StoredAccessToken): Promise<StoredAccessToken> {
    const replacement = await replacementFor({ resource, rejected: token.value }).catch(() => undefined)
    return replacement ?? token
  }

  /** No user can cure what is wrong with a token of the client: all but `invalid_token` is the client's to read. */
  async function onRejected(
    resource: string,
    { token, challenge, isRepeatable }: Rejection,
  ): Promise<RejectionReaction> {
    if (challenge.kind !== 'invalid_token') return RELAY
    const replacement = replacementFor({ resource, rejected: token.value })
    if (!isRepeatable) {
      replacement.catch(() => undefined)
      return RELAY
    }
    const found = await replacement
    return found ? { kind: 'resend', token: found } : RELAY
  }

  return { tokenFor, onRejected }
}
