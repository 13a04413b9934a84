import { randomUUID } from 'node:crypto'
import type { Clock } from '../../async/clock.ts'
import { createSingleFlight } from '../../async/single-flight.ts'
import { BffError } from '../../errors.ts'
import { createRecentRefusals } from '../recent-refusals.ts'
import {
  type AccessToken,
  freshOrUndefined,
  type GrantedAccessToken,
  storedAccessToken,
} from '../record/sealing.ts'
import { createForcedRenewals, type Rejection, type RejectionReaction } from '../rejected-token.ts'
import type { SharedClientTokens } from './shared-client-tokens.ts'

export type ClientTokensDeps = {
  /** RFC 6749 §4.4. Rejects with provider_rejected or provider_unavailable. */
  readonly grant: (resource: string) => Promise<GrantedAccessToken>
  /** What the replicas share; absent: each asks for itself. */
  readonly shared?: SharedClientTokens
  /** Waits for a permit of the token endpoint limiter, before the lock is taken. */
  readonly admit: <T>(work: () => Promise<T>) => Promise<T>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow' | 'pause'>
  /** Longer than one provider call and the writes around it can take; so long others wait, too. */
  readonly lockTtlMs: number
}

/** @property rejected a token that an upstream has rejected: it will not do, whatever the clock says. */
type WantedClientToken = { readonly resource: string; readonly rejected?: string }

const RELAY: RejectionReaction = { kind: 'relay' }

/**
 * Access tokens of the client itself (RFC 6749 §4.4), one per resource for all replicas, with a copy in this process,
 * renewed like a session's: they belong to no user.
 */
export function createClientTokens(deps: ClientTokensDeps) {
  const { now, monotonicNow } = deps.clock
  const held = new Map<string, AccessToken>()
  const flights = createSingleFlight<AccessToken>()
  const refusals = createRecentRefusals(monotonicNow)
  const { replacementFor, isDropped } = createForcedRenewals<
    WantedClientToken & { readonly rejected: string }
  >({
    keyOf: ({ resource }) => resource,
    stored: ({ resource }) => held.get(resource),
    renew: obtainOnce,
    clock: deps.clock,
  })

  async function obtain(wanted: WantedClientToken): Promise<AccessToken> {
    refusals.throwIfRecent(wanted.resource)
    try {
      const token = await sharedOrAskedFor(deps, wanted)
      held.set(wanted.resource, token)
      return token
    } catch (error) {
      refusals.remember(wanted.resource, error)
      throw error
    }
  }

  function obtainOnce(wanted: WantedClientToken): Promise<AccessToken> {
    const key = JSON.stringify([wanted.resource, wanted.rejected])
    return flights.share(key, () => obtain(wanted))
  }

  function inMemory(resource: string): AccessToken | undefined {
    const token = held.get(resource)
    return token && now() < token.renewAt && !isDropped(resource, token) ? token : undefined
  }

  function tokenFor(resource: string): AccessToken | Promise<AccessToken> {
    const token = held.get(resource)
    if (!token || now() >= token.expiresAt) return obtainOnce({ resource })
    if (isDropped(resource, token)) return insteadOf(resource, token)
    // A failed renewal is met again by a later caller; the living token serves this one.
    if (now() >= token.renewAt) obtainOnce({ resource }).catch(() => undefined)
    return token
  }

  /** All users share this token: what one of them met at one path must not keep the others from it while no other is had. */
  async function insteadOf(resource: string, token: AccessToken): Promise<AccessToken> {
    const replacement = await replacementFor({ resource, rejected: token.value }).catch(() => undefined)
    return replacement ?? token
  }

  /** A user cannot cure what is wrong with a token of the client: the client gets all challenges but `invalid_token` to read. */
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

  return { inMemory, tokenFor, onRejected }
}

/** Gets a fresh token of the client: from the shared cache, or by asking for it while all other replicas wait. */
async function sharedOrAskedFor(deps: ClientTokensDeps, wanted: WantedClientToken): Promise<AccessToken> {
  const { shared } = deps
  if (!shared) return deps.admit(() => askFor(deps, wanted))
  const owner = randomUUID()
  const givesUpAt = deps.clock.monotonicNow() + deps.lockTtlMs
  for (;;) {
    // A store that is away costs one token for each replica, not the requests that need it.
    const brought = await freshIn(deps, shared, wanted).catch(() => undefined)
    const token = brought ?? (await deps.admit(() => askUnderLock(deps, shared, { wanted, owner })))
    if (token) return token
    if (deps.clock.monotonicNow() > givesUpAt) throw stillBusy()
    await deps.clock.pause(25 + Math.random() * 25)
  }
}

/** Undefined when another replica has the lock. */
async function askUnderLock(
  deps: ClientTokensDeps,
  shared: SharedClientTokens,
  { wanted, owner }: { wanted: WantedClientToken; owner: string },
): Promise<AccessToken | undefined> {
  const { resource } = wanted
  const unlock = () => shared.unlock(resource, owner).catch(() => undefined)
  try {
    if (!(await shared.lock(resource, owner, deps.lockTtlMs))) return undefined
  } catch {
    // The store may have given it all the same, its answer lost.
    unlock()
    return askFor(deps, wanted)
  }
  try {
    const brought = await freshIn(deps, shared, wanted).catch(() => undefined)
    if (brought) return brought
    const token = await askFor(deps, wanted)
    await shared.write(resource, token).catch(() => undefined)
    return token
  } finally {
    await unlock()
  }
}

async function freshIn(
  { clock }: ClientTokensDeps,
  shared: SharedClientTokens,
  { resource, rejected }: WantedClientToken,
): Promise<AccessToken | undefined> {
  return freshOrUndefined(await shared.read(resource), rejected, clock.now())
}

async function askFor(
  { grant, clock }: ClientTokensDeps,
  { resource, rejected }: WantedClientToken,
): Promise<AccessToken> {
  return storedAccessToken(await grant(resource), rejected === undefined ? undefined : clock.now())
}

function stillBusy(): BffError {
  return new BffError('provider_unavailable', 'another replica is still asking for this token', {
    retryAfterSeconds: 2,
  })
}
