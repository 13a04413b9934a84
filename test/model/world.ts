import { sessionHash } from '../../src/session/bff-session.ts'
import { createMemoryStore } from '../../src/store/memory/memory-store.ts'
import type { SealedTokens, Store, TokenRecords } from '../../src/store/port.ts'
import type { TokenHolder } from '../../src/tokens/token-record.ts'
import { type Clock, epochOf } from './clock.ts'
import { createProviderModel, type ProviderModel } from './provider-model.ts'
import type { Thread } from './schedule.ts'

/** Who asks a replica for which resource; `as` tells two wishes for one resource apart. */
export type Wish = { readonly replica: string; readonly resource: string; readonly as?: string }

/** Something broken on purpose: in the store, or between one replica's code and the store. */
export type Mutation = {
  readonly store?: (tokens: TokenRecords) => TokenRecords
  readonly replica?: (records: TokenRecords) => TokenRecords
}

/** One spend of a refresh token, as the provider saw it. */
export type Spend = { readonly by: Thread; isLost: boolean }

/** All that the replicas share, and what an observer of everything knows beside it. */
export type World = {
  readonly clock: Clock
  /** Whether a refresh token that may be spent is never offered again. */
  readonly isStrict: boolean
  readonly holder: TokenHolder
  readonly store: Store
  readonly tokens: TokenRecords
  readonly provider: ProviderModel
  /** The last spend of each refresh token. */
  readonly spends: Map<string, Spend>
  /** Who has begun a spend, in that order, and how many pauses there had been. */
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

export type WorldOptions = { readonly mutation?: Mutation; readonly isStrict?: boolean }

/** One session with a refresh token and no living access token, in the real memory store. */
export async function createWorld({ mutation = {}, isStrict = false }: WorldOptions): Promise<World> {
  const clock: Clock = { ms: 0, leaps: 0, pauses: 0 }
  const store = createMemoryStore({ now: () => epochOf(clock), idleTimeoutMs: YEAR_MS })
  await store.sessions.create(HOLDER.hash, 'a session')
  await store.tokens.create(HOLDER.hash, { refreshToken: 'rt-1', accessTokens: {} })
  return {
    clock,
    isStrict,
    holder: HOLDER,
    store,
    tokens: mutation.store?.(store.tokens) ?? store.tokens,
    provider: createProviderModel(),
    spends: new Map(),
    begun: new Map(),
    owners: new Map(),
    crashed: new Set(),
    violations: [],
    record: await store.tokens.read(HOLDER.hash),
    lock: undefined,
    isTokenLost: false,
  }
}

/** The name of a wish in schedules and states. */
export function nameOf({ actor, wish }: Thread): string {
  return `${actor}.${wish}`
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
  const { version, refreshToken, accessTokens, spend } = record
  const held = Object.values(accessTokens).map((sealed) => JSON.parse(sealed)[0])
  return [`v${version}`, refreshToken, ...held, ...(spend ? [markOf(world, spend)] : [])].join(' ')
}

/** A spend mark with its owner named. */
export function markOf(world: World, mark: string): string {
  const [kind, owner] = mark.split(':')
  return owner === undefined ? mark : `${kind}:${world.owners.get(owner) ?? owner}`
}
