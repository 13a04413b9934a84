import { setTimeout as delay } from 'node:timers/promises'
import { inspect } from 'node:util'
import { BffError } from '../../../src/errors.ts'
import type { SessionHash, Store } from '../../../src/store/port.ts'
import { signedIn } from './store-contestants.ts'

/** What became of sessions while something happened to Redis. */
export type Outcome = {
  readonly served: number
  /** Why steps were answered with `store_unavailable`, one for each. */
  readonly refusals: readonly string[]
  /** From the first such answer to the last one, in ms. */
  readonly outageMs: number
  /** Sessions that were there before, and are not any more. */
  readonly lost: readonly SessionHash[]
  /** Errors of another kind: there must be none. */
  readonly others: readonly string[]
}

/** Sessions that are read, slid and renewed without a pause until told to stop. */
export type Load = {
  /** Sessions that have signed in before. */
  readonly hashes: readonly SessionHash[]
  /** Forgets what was counted. */
  mark(): void
  stop(): Promise<Outcome>
}

const PAUSE_MS = 5

/** Signs `sessions` in and begins to use them, each from one of the stores, until the test has ended at the latest. */
export async function startLoad(
  t: { after(cleanUp: () => unknown): void },
  stores: readonly Store[],
  sessions = 20,
): Promise<Load> {
  const users = await Promise.all(
    Array.from({ length: sessions }, async (_, at) => {
      const store = stores[at % stores.length]!
      return { store, hash: await signedIn(store), version: 1 }
    }),
  )
  let isOver = false
  t.after(() => {
    isOver = true
  })
  let served = 0
  let refused: { readonly at: number; readonly why: string }[] = []
  const others: string[] = []
  const gone = new Set<SessionHash>()

  async function step(user: (typeof users)[number]): Promise<void> {
    const { store, hash } = user
    if ((await store.sessions.read(hash)) === undefined) gone.add(hash)
    if ((await store.sessions.slide(hash)) === undefined) gone.add(hash)
    const change = { accessToken: { resource: 'orders', sealed: `at-${user.version}` } }
    const outcome = await store.tokens.write(hash, { expectedVersion: user.version, ...change })
    if (outcome === 'written') user.version += 1
    // A failover may lose writes, so that the version goes back: what counts is that the session goes on.
    else user.version = (await store.tokens.read(hash))?.version ?? 1
  }

  async function use(user: (typeof users)[number]): Promise<void> {
    while (!isOver) {
      try {
        await step(user)
        served += 1
      } catch (error) {
        if (error instanceof BffError && error.code === 'store_unavailable')
          refused.push({ at: performance.now(), why: (error.cause as Error | undefined)?.message ?? '' })
        else others.push(inspect(error))
      }
      await delay(PAUSE_MS)
    }
  }

  const using = users.map(use)
  return {
    hashes: users.map(({ hash }) => hash),
    mark() {
      served = 0
      refused = []
    },
    async stop() {
      isOver = true
      await Promise.all(using)
      return {
        ...{ served, refusals: refused.map(({ why }) => why), lost: [...gone], others },
        outageMs: (refused.at(-1)?.at ?? 0) - (refused[0]?.at ?? 0),
      }
    },
  }
}
