import { randomUUID } from 'node:crypto'
import type { Waiting } from '../../async/clock.ts'
import { BffError } from '../../errors.ts'
import { type StoredAccessToken, storedAccessToken } from '../record/token-record.ts'
import type { ClientTokenShelf } from './shared-client-tokens.ts'

export type ClientTokenTurnDeps = {
  /** RFC 6749 §4.4; times in epoch ms. Rejects with provider_rejected or provider_unavailable. */
  readonly grant: (
    resource: string,
  ) => Promise<{ accessToken: string; obtainedAt: number; expiresAt: number }>
  /** What the replicas share; absent: each asks for itself. */
  readonly shelf?: ClientTokenShelf
  /** Waits for a place towards the provider, before the lock is taken. */
  readonly admit: <T>(work: () => Promise<T>) => Promise<T>
  readonly now: () => number
  readonly monotonicNow: () => number
  readonly waiting: Waiting
  /** Longer than one provider call and the writes around it can take; so long others wait, too. */
  readonly lockTtlMs: number
}

/** A token that an upstream has rejected will not do, whatever the clock says. */
export type ClientWish = { readonly resource: string; readonly rejected?: string }

/** Gets a fresh token of the client: from the shelf, or by asking for it while all other replicas wait. */
export async function takeClientTurn(
  deps: ClientTokenTurnDeps,
  wish: ClientWish,
): Promise<StoredAccessToken> {
  const { shelf } = deps
  if (!shelf) return deps.admit(() => askFor(deps, wish))
  const owner = randomUUID()
  const givesUpAt = deps.waiting.elapsedMs() + deps.lockTtlMs
  for (;;) {
    // A store that is away costs one token for each replica, not the requests that need it.
    const brought = await freshOn(deps, shelf, wish).catch(() => undefined)
    const token = brought ?? (await deps.admit(() => askUnderLock(deps, shelf, { wish, owner })))
    if (token) return token
    if (deps.waiting.elapsedMs() > givesUpAt) throw stillBusy()
    await deps.waiting.pause(25 + Math.random() * 25)
  }
}

/** Undefined when another replica has the lock. */
async function askUnderLock(
  deps: ClientTokenTurnDeps,
  shelf: ClientTokenShelf,
  { wish, owner }: { wish: ClientWish; owner: string },
): Promise<StoredAccessToken | undefined> {
  const { resource } = wish
  const unlock = () => shelf.unlock(resource, owner).catch(() => undefined)
  try {
    if (!(await shelf.lock(resource, owner, deps.lockTtlMs))) return undefined
  } catch {
    // The store may have given it all the same, with nobody left to hear it.
    unlock()
    return askFor(deps, wish)
  }
  try {
    const brought = await freshOn(deps, shelf, wish).catch(() => undefined)
    if (brought) return brought
    const token = await askFor(deps, wish)
    await shelf.write(resource, token).catch(() => undefined)
    return token
  } finally {
    await unlock()
  }
}

async function freshOn(
  { now }: ClientTokenTurnDeps,
  shelf: ClientTokenShelf,
  { resource, rejected }: ClientWish,
): Promise<StoredAccessToken | undefined> {
  const token = await shelf.read(resource)
  return token && token.value !== rejected && now() < token.renewAt ? token : undefined
}

async function askFor(
  { grant, now }: ClientTokenTurnDeps,
  { resource, rejected }: ClientWish,
): Promise<StoredAccessToken> {
  const { accessToken, obtainedAt, expiresAt } = await grant(resource)
  const token = storedAccessToken(accessToken, obtainedAt, expiresAt)
  return rejected === undefined ? token : { ...token, forcedAt: now() }
}

function stillBusy(): BffError {
  return new BffError('provider_unavailable', 'another replica is still asking for this token', {
    retryAfterSeconds: 2,
  })
}
