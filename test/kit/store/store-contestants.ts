import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { BffError } from '../../../src/errors.ts'
import type { Logger } from '../../../src/log.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { SessionHash, Store } from '../../../src/store/port.ts'
import type { RedisAddress } from '../../../src/store/redis/connection/servers.ts'
import { createRedisStore } from '../../../src/store/redis/redis-store.ts'
import { skipWithoutRedis, startRedis, type TestRedis, type TestRedisOptions } from './redis.ts'

/** A store under test, and its clock. */
export type OpenedStore = {
  readonly store: Store
  /** Lets at least this much of the store's time go by. */
  elapse(ms: number): Promise<void>
}

type SessionTimes = { idleTimeoutMs?: number; absoluteTimeoutMs?: number }

/** One implementation of the port. */
export type Contestant = {
  readonly name: string
  readonly skip: string | false
  open(t: TestContext, options?: SessionTimes): Promise<OpenedStore>
}

/** A log that keeps nothing. */
export const silentLog: Logger = { info() {}, warn() {}, error() {} }

/** A session hash of its own. */
export function someHash(): SessionHash {
  return randomUUID() as SessionHash
}

/** The tokens that `signedIn` gives a session. */
export const FIRST_TOKENS = { refreshToken: 'sealed-rt-1', accessTokens: { orders: 'sealed-at-1' } }

/** A new session with tokens. */
export async function signedIn(store: Store): Promise<SessionHash> {
  const hash = someHash()
  assert.equal(await store.sessions.create(hash, 'sealed'), true)
  assert.equal(await store.tokens.create(hash, FIRST_TOKENS), true)
  return hash
}

/** The same, as soon as the store serves: a command to a primary that is on its way out fails. */
export async function signedInWhenServed(store: Store): Promise<SessionHash> {
  let hash: SessionHash | undefined
  await eventually(async () => {
    hash = await signedIn(store).catch(unlessUnavailable)
    return hash !== undefined
  })
  return hash!
}

function unlessUnavailable(error: unknown): undefined {
  if (!(error instanceof BffError) || error.code !== 'store_unavailable') throw error
}

/** The memory store with a clock that stands until it is moved. */
export const memoryContestant: Contestant = {
  name: 'memory',
  skip: false,
  async open(t, { idleTimeoutMs = 60_000, absoluteTimeoutMs = 3_600_000 } = {}) {
    let time = 1_000_000
    const store = createMemoryStore({
      idleTimeoutMs: () => idleTimeoutMs,
      absoluteTimeoutMs: () => absoluteTimeoutMs,
      monotonicNow: () => time,
    })
    t.after(() => store.close())
    return {
      store,
      async elapse(ms) {
        time += ms
      },
    }
  },
}

/** The Redis store at an address, with a key prefix per test. */
export function redisContestant(
  address: () => RedisAddress | Promise<RedisAddress>,
  { name = 'redis', skip = skipWithoutRedis() }: { name?: string; skip?: string | false } = {},
): Contestant {
  return {
    ...{ name, skip },
    async open(t, times = {}) {
      return { store: await openRedisStore(t, await address(), times), elapse: (ms) => delay(ms + 5) }
    },
  }
}

/** One more replica's store on this server. */
export async function openRedisStore(
  t: TestContext,
  address: RedisAddress,
  options: SessionTimes & { keyPrefix?: string; log?: Logger } = {},
): Promise<Store> {
  const { keyPrefix = randomUUID(), log = silentLog } = options
  const { idleTimeoutMs = 60_000, absoluteTimeoutMs = 3_600_000 } = options
  const store = await createRedisStore(
    { ...address, keyPrefix },
    { idleTimeoutMs: () => idleTimeoutMs, absoluteTimeoutMs: () => absoluteTimeoutMs },
    { log },
  )
  t.after(() => store.close())
  return store
}

/** Starts a server before the tests of this file and stops it after them. */
export function redisForThisFile(options: TestRedisOptions = {}): () => TestRedis {
  let server: TestRedis | undefined
  before(async () => {
    if (!skipWithoutRedis()) server = await startRedis(options)
  })
  after(() => server?.stop())
  return () => {
    if (!server) throw new Error('no redis-server: the test should have been skipped')
    return server
  }
}

/** Asks until `holds` says yes; throws after 30 s. */
export async function eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error('it did not come true within 30 s')
    await delay(10)
  }
}
