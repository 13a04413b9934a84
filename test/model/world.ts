import { sessionHash } from '../../src/session/session.ts'
import { createMemoryStore } from '../../src/store/memory/memory-store.ts'
import type { SealedTokens, Store, TokenRecords } from '../../src/store/port.ts'
import type { TokenHolder } from '../../src/tokens/record/sealing.ts'
import { type Clock, epochOf } from './clock.ts'
import type { Configuration } from './configuration.ts'
import { createProviderModel, type ProviderModel } from './provider-model.ts'
import type { Thread } from './schedule.ts'

/** One use of a refresh token, as the provider saw it. */
export type TokenUse = { readonly by: Thread; isLost: boolean }

/** All that the replicas share, and what an observer of everything knows beside it. */
export type World = {
  readonly clock: Clock
  /** Whether a refresh token that may be used up is never offered again. */
  readonly isStrict: boolean
  readonly holder: TokenHolder
  readonly store: Store
  readonly tokens: TokenRecords
  readonly provider: ProviderModel
  /** The last use of each refresh token. */
  readonly uses: Map<string, TokenUse>
  /** Who has begun a refresh attempt, in that order, and how many pauses there had been. */
  readonly begun: Map<Thread, number>
  /** Names of lock owners, by their random ids. */
  readonly owners: Map<string, string>
  readonly crashed: Set<string>
  readonly violations: string[]
  /** The token record as it is now; undefined once the session has ended. */
  record: SealedTokens | undefined
  lock: { readonly owner: string; readonly atLeap: number; readonly until: number } | undefined
  /** A crashed replica took the newest refresh token with it. */
  isTokenLost: boolean
}

const YEAR_MS = 365 * 24 * 3_600_000
const ID = 'the session id'
const HOLDER: TokenHolder = { id: ID, hash: sessionHash(ID), claims: { sub: 'ada' } }

/** One session with a refresh token, in the real memory store; with a living access token only where that is rejected. */
export async function createWorld({ mutation, isStrict, callers }: Configuration): Promise<World> {
  const clock: Clock = { ms: 0, leaps: 0, pauses: 0 }
  const store = createMemoryStore({ monotonicNow: () => epochOf(clock), idleTimeoutMs: () => YEAR_MS })
  await store.sessions.create(HOLDER.hash, 'a session')
  const rejected = callers.filter(({ isForced }) => isForced).map(({ resource }) => resource)
  const accessTokens = Object.fromEntries(
    rejected.map((resource) => [resource, livingToken(clock, resource)]),
  )
  await store.tokens.create(HOLDER.hash, { refreshToken: 'rt-1', accessTokens })
  return {
    clock,
    isStrict: isStrict ?? false,
    holder: HOLDER,
    store,
    tokens: mutation?.store?.(store.tokens) ?? store.tokens,
    provider: createProviderModel(),
    uses: new Map(),
    begun: new Map(),
    owners: new Map(),
    crashed: new Set(),
    violations: [],
    record: await store.tokens.read(HOLDER.hash),
    lock: undefined,
    isTokenLost: false,
  }
}

/** Sealed by the sealing of this model, which is none. */
function livingToken(clock: Clock, resource: string): string {
  const endsAt = epochOf(clock) + YEAR_MS
  return JSON.stringify([rejectedToken(resource), endsAt, endsAt])
}

/** The access token that an upstream rejects. */
export function rejectedToken(resource: string): string {
  return `${resource}#0`
}

/** The name of a caller in schedules and states. */
export function nameOf({ actor, caller }: Thread): string {
  return `${actor}.${caller}`
}

/** Whether the refresh lock is held now. */
export function isLocked({ lock, clock }: World): boolean {
  return lock !== undefined && epochOf(clock) < lock.until
}

/** Ends the refresh lock before its time. */
export async function expireLock(world: World): Promise<void> {
  if (!world.lock) return
  await world.store.tokens.unlock(world.holder.hash, world.lock.owner)
  world.lock = undefined
}

/** The record in words, with the random parts named. */
export function describeRecord(world: World, record: SealedTokens | undefined): string {
  if (!record) return 'gone'
  const { version, refreshToken, accessTokens, attempt } = record
  const held = Object.values(accessTokens).map((sealed): string => JSON.parse(sealed)[0])
  // By age, because a renaming must not change the order.
  const age = (token: string) => Number(token.split('#')[1])
  held.sort((a, b) => age(a) - age(b))
  return [`v${version}`, refreshToken, ...held, ...(attempt ? [markOf(world, attempt)] : [])].join(' ')
}

/** An attempt mark with its owner named. */
export function markOf(world: World, mark: string): string {
  const [kind, owner] = mark.split(':')
  return owner === undefined ? mark : `${kind}:${world.owners.get(owner) ?? owner}`
}
