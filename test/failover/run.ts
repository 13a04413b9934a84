import { setTimeout as delay } from 'node:timers/promises'
import { slotOf } from '../../src/store/redis/connection/cluster.ts'
import { type Browser, createBrowser } from '../kit/browsers/browser.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type Replica, startTwoReplicas } from '../kit/replica.ts'
import { APP, type Scope, startApis, verdict } from '../kit/shops/shop.ts'
import {
  type ClusterSet,
  type SentinelSet,
  startClusterSet,
  startSentinelSet,
} from '../kit/store/redis-sets.ts'

/** What happens to Redis; resolves when it is over and everything runs again. */
export type Disturbance = {
  readonly name: string
  readonly store: 'sentinel' | 'cluster'
  readonly durability: 'none' | 'replica'
  /** More lines of redis.conf. */
  readonly args?: readonly string[]
  readonly happen: (sets: { sentinel: SentinelSet; cluster: ClusterSet }) => Promise<void>
}

/** What came of it. */
export type Result = {
  readonly name: string
  readonly requests: number
  /** By status, and code where it is one of ours. */
  readonly answers: Readonly<Record<string, number>>
  /** Longest time in which one session was not served, in ms. */
  readonly longestOutageMs: number
  /** Until every replica hears of ended sessions again, from the moment of the disturbance, in ms. */
  readonly heardAfterMs: number
  readonly signedOut: number
  readonly refreshes: number
  readonly reuseAlarms: number
  readonly cookiesTouched: number
}

/** Access tokens live so short that each session is renewed every second or two, with a rotated refresh token. */
const TOKEN_SECONDS = 3
const PAUSE_MS = 100
const QUIET_MS = 2000

type User = { readonly browser: Browser; isOut: boolean; servedAt: number; longestMs: number }

/** Plays one disturbance under the load of `sessions` users on two replicas. */
export async function play(disturbance: Disturbance, sessions: number, t: Scope): Promise<Result> {
  const { store, durability } = disturbance
  const { args = [] } = disturbance
  const set = store === 'sentinel' ? await startSentinelSet({ args }) : await startClusterSet({ args })
  t.after(() => set.stop())
  const provider = await startRotatingProvider({
    control: {
      accessTokenSeconds: TOKEN_SECONDS + 1,
      // `exp` is in whole seconds, so that an API may refuse a token almost a second before this is over.
      editAnswer(answer) {
        answer.expires_in = TOKEN_SECONDS
      },
    },
  })
  t.after(() => provider.close())
  const replicas = await startReplicas(t, provider, { ...addressOf(set), durability })
  const users = await signIn(sessions, { provider, replicas })
  const answers: Record<string, number> = {}
  let cookiesTouched = 0
  let isOver = false

  async function use(user: User): Promise<void> {
    for (let n = 0; !isOver && !user.isOut; n += 1) {
      const path = n % 2 ? '/api/orders' : '/api/billing'
      const answer = await user.browser.fetch(path, { via: replicas[n % replicas.length]!.listenUrl })
      const [status, code] = verdict(answer)
      const key = status === 200 ? '200' : `${status} ${String(code)}`
      answers[key] = (answers[key] ?? 0) + 1
      const now = performance.now()
      if (status === 200) {
        user.longestMs = Math.max(user.longestMs, now - user.servedAt)
        user.servedAt = now
      }
      if (status === 401) user.isOut = true
      if (status !== 200 && answer.headers['set-cookie'] !== undefined) cookiesTouched += 1
      await delay(PAUSE_MS)
    }
  }

  const refreshedBefore = provider.counters.refreshCalls
  for (const user of users) user.servedAt = performance.now()
  const using = users.map(use)
  await delay(QUIET_MS)
  const usual = Math.max(...users.map(({ longestMs }) => longestMs))
  const startedAt = performance.now()
  const heard = untilHeard(replicas, startedAt)
  await disturbance.happen({ sentinel: set as SentinelSet, cluster: set as ClusterSet })
  const heardAfterMs = await heard
  await delay(QUIET_MS + TOKEN_SECONDS * 1000)
  isOver = true
  await Promise.all(using)
  const longest = Math.max(...users.map(({ longestMs }) => longestMs))
  return {
    name: `${store}, ${disturbance.name}${durability === 'replica' ? ', durability replica' : ''}`,
    ...{ answers, cookiesTouched, heardAfterMs },
    requests: Object.values(answers).reduce((sum, count) => sum + count, 0),
    longestOutageMs: longest > 3 * usual ? longest : 0,
    signedOut: users.filter(({ isOut }) => isOut).length,
    refreshes: provider.counters.refreshCalls - refreshedBefore,
    reuseAlarms: provider.counters.reuseDetected,
  }
}

function addressOf(set: SentinelSet | ClusterSet): ConfigData {
  const named = (nodes: readonly { host: string; port: number }[]) =>
    nodes.map(({ host, port }) => `${host}:${port}`)
  return 'sentinels' in set
    ? { sentinels: named(set.sentinels), masterName: set.masterName }
    : { cluster: named(set.seeds) }
}

async function startReplicas(t: Scope, provider: RotatingProvider, store: ConfigData): Promise<Replica[]> {
  const { config } = await startApis(t, {
    ...{ provider: provider.settings, jwks: provider.endpoints.jwks },
    session: { store: { type: 'redis', ...store } },
  })
  return startTwoReplicas(t, config)
}

async function signIn(
  sessions: number,
  { provider, replicas }: { provider: RotatingProvider; replicas: readonly Replica[] },
): Promise<User[]> {
  const users: User[] = []
  for (let n = 0; n < sessions; n += 1) {
    provider.control.user = `user-${n}`
    const connect = { [APP]: replicas[n % replicas.length]!.listenUrl }
    const browser = createBrowser({ origin: APP, connect })
    await browser.signIn()
    users.push({ browser, isOut: false, servedAt: 0, longestMs: 0 })
  }
  return users
}

/** The replicas notice that they hear nothing, and then that they do again: asked of their metrics. */
async function untilHeard(replicas: readonly Replica[], startedAt: number): Promise<number> {
  const isLive = async ({ adminUrl }: Replica) =>
    /^cloakroom_invalidation_live 1$/m.test(await (await fetch(`${adminUrl}/metrics`)).text())
  let wasDeaf = false
  let liveAt = startedAt
  for (;;) {
    const live = (await Promise.all(replicas.map(isLive))).every(Boolean)
    const now = performance.now()
    if (!live) wasDeaf = true
    if (live && wasDeaf) return now - startedAt
    if (live) liveAt = now
    // Nothing was missed: the disturbance was none for the channel.
    if (!wasDeaf && liveAt - startedAt > 6000) return 0
    if (now - startedAt > 60_000) throw new Error('the invalidation channel is not heard again')
    await delay(50)
  }
}

const WAKES_AFTER_MS = 6000
const SLOTS = 16_384
const MOVED_SLOTS = 400

/** All that `npm run failover` does to Redis. */
export const DISTURBANCES: readonly Disturbance[] = [
  ...(['none', 'replica'] as const).map(
    (durability): Disturbance => ({
      ...{ name: 'primary killed', store: 'sentinel', durability },
      async happen({ sentinel }) {
        const old = await sentinel.primary()
        await old.kill()
        await sentinel.movedFrom(old)
        await sentinel.rejoin(old)
        await sentinel.settled()
      },
    }),
  ),
  {
    ...{ name: 'primary hangs, and goes on later', store: 'sentinel', durability: 'none' },
    async happen({ sentinel }) {
      const old = await sentinel.primary()
      old.pause()
      await delay(WAKES_AFTER_MS)
      old.resume()
      await sentinel.settled()
    },
  },
  ...(['none', 'replica', 'refused'] as const).map(
    (kind): Disturbance => ({
      name: `failover asked for, old primary alive${kind === 'refused' ? ', min-replicas-to-write 1' : ''}`,
      ...{ store: 'sentinel', durability: kind === 'replica' ? 'replica' : 'none' },
      // The old primary takes writes that are lost until it is told, unless it is set up to refuse them without a replica.
      args: kind === 'refused' ? ['--min-replicas-to-write', '1', '--min-replicas-max-lag', '2'] : [],
      async happen({ sentinel }) {
        const old = await sentinel.primary()
        await sentinel.sentinelServers[0]!.cli('SENTINEL', 'FAILOVER', sentinel.masterName)
        await sentinel.movedFrom(old)
        await sentinel.settled()
      },
    }),
  ),
  ...(['none', 'replica'] as const).map(
    (durability): Disturbance => ({
      ...{ name: 'one of three primaries killed', store: 'cluster', durability },
      async happen({ cluster }) {
        const [old] = await cluster.primaries()
        await old!.kill()
        await delay(WAKES_AFTER_MS)
        await old!.restart()
        await cluster.settled()
      },
    }),
  ),
  {
    ...{ name: 'one of three primaries hangs, and goes on later', store: 'cluster', durability: 'none' },
    async happen({ cluster }) {
      const [old] = await cluster.primaries()
      old!.pause()
      await delay(WAKES_AFTER_MS)
      old!.resume()
      await cluster.settled()
    },
  },
  {
    ...{ name: `${MOVED_SLOTS} slots moved`, store: 'cluster', durability: 'none' },
    async happen({ cluster }) {
      const keys = (await Promise.all(cluster.nodes.map((node) => node.cli('KEYS', '*')))).flat()
      const used = [...new Set(keys.map(slotOf))]
      const more = Array.from({ length: SLOTS }, (_, slot) => slot)
      for (const slot of [...new Set([...used, ...more])].slice(0, MOVED_SLOTS)) {
        const primaries = await cluster.primaries()
        const owner = await cluster.ownerOfSlot(slot)
        await cluster.moveSlots([slot], primaries.find((node) => node !== owner)!)
      }
    },
  },
]
