import { createHash, X509Certificate } from 'node:crypto'
import { createTroubles, type Troubles } from '../admin/console/trouble.ts'
import { createMetrics, type Metrics } from '../admin/metrics.ts'
import { type Clock, systemClock } from '../async/clock.ts'
import { createInFlightWork, type InFlightWork } from '../async/in-flight.ts'
import type { Trace } from '../async/trace.ts'
import type { Config, TlsConfig } from '../config/config.ts'
import { createLogger, droppedLogLines, type Logger, withListener } from '../log.ts'
import type { CertificateMemory } from '../oidc/client-auth/certificates.ts'
import type { OfflineConsentMemory } from '../oidc/sign-in/offline-consent.ts'
import { createLimiters, type Limiters } from '../oidc/token-endpoint/limiter.ts'
import type { ClockMemory } from '../oidc/token-endpoint/provider-fetch.ts'
import { createLiveConnections, type LiveConnections } from '../proxy/session-end/live-connections.ts'
import { createMemoryStore } from '../store/memory/memory-store.ts'
import type { Store, StoreTimes } from '../store/port.ts'
import { version } from '../version.ts'

/** What lives as long as the process, across configurations. */
export type ProcessScope = {
  readonly log: Logger
  readonly clock: Clock
  /** For what sockets and requests take: a test that sets the time of sessions and tokens alone leaves it to the machine. */
  readonly socketClock: Clock
  readonly now: Clock['now']
  readonly monotonicNow: Clock['monotonicNow']
  readonly metrics: Metrics
  /** Absent where nothing is traced. */
  readonly trace?: Trace | undefined
  /** The last refusals, warnings and errors of the log. */
  readonly troubles: Troubles
  readonly store: Store
  /** The open WebSockets of all configurations: the limit of a session counts them together. */
  readonly tunnels: LiveConnections
  /** Names of resources that a reload took away. */
  readonly retiredResources: ReadonlySet<string>
  /** The refreshes in flight. */
  readonly refreshes: InFlightWork
  /** The limiters of calls to the provider, kept as long as their settings stay the same. */
  readonly limiters: Limiters
  /** What has been learned of providers and consent. */
  readonly offlineConsent: OfflineConsentMemory
  /** The certificates that the client has authenticated with. */
  readonly certificates: CertificateMemory
  /** What answers of providers say of their clocks. */
  readonly clocks: ClockMemory
  /** Follows the change from one configuration to the next. */
  changeTo(next: Config, before: Config): void
  /** Names the configuration in use. */
  configHash(): string
  /** Longest time that a provider call may take under any configuration so far, in ms. */
  longestCallMs(): number
}

/** What a test or a development server may put in place of the real thing. */
export type ProcessDeps = {
  readonly trace?: Trace | undefined
  /** The session store; that of the configuration unless given. */
  readonly openStore?: (times: StoreTimes) => Store
  readonly log?: Logger
  /** The machine's unless given, but for what is given beside it. */
  readonly clock?: Clock
  /** Epoch ms. */
  readonly now?: () => number
  /** That of `now` unless given: a test that moves one moves both. */
  readonly monotonicNow?: () => number
}

/** How long the store keeps an ended session, so that the log can tell `expired` from `unknown`. */
const TOLD_APART_MS = 600_000

/** Opens the store and makes what else lives as long as the process. */
export async function openProcessScope(config: Config, deps: ProcessDeps): Promise<ProcessScope> {
  const machine = deps.clock ?? systemClock
  const now = deps.now ?? machine.now
  const monotonicNow = deps.monotonicNow ?? deps.now ?? machine.monotonicNow
  const clock = { ...machine, now, monotonicNow }
  const troubles = createTroubles({ now })
  const log = withListener(deps.log ?? createLogger(), troubles.note)
  const retiredResources = new Set<string>()
  let { idleTimeoutMs, absoluteTimeoutMs } = config.session
  let { timeoutMs: longestCallMs } = config.provider
  let isLive = () => false
  const tunnels = createLiveConnections()
  const metrics = createMetrics({
    ...{ version: version(), isStoreLive: () => isLive(), droppedLogLines, openWebSockets: tunnels.count },
  })
  let hash = ''
  function tellConfig(running: Config): void {
    hash = hashOf(running)
    metrics.configured(running, { hash, at: now(), certificateEnds: certificateEnds(running) })
  }
  tellConfig(config)
  const times: StoreTimes = {
    monotonicNow,
    idleTimeoutMs: () => idleTimeoutMs,
    absoluteTimeoutMs: () => absoluteTimeoutMs + TOLD_APART_MS,
  }
  const store = deps.openStore?.(times) ?? (await openStore(config, { log, metrics, ...times }))
  isLive = store.invalidations.isLive
  const limiters = createLimiters({
    ...{ log, clock, observe: metrics.provider, observeSignIn: metrics.signInLimiters },
  })
  return {
    ...{
      log,
      trace: deps.trace,
      clock,
      socketClock: machine,
      now,
      monotonicNow,
      metrics,
      store,
      limiters,
      retiredResources,
    },
    ...{ tunnels, refreshes: createInFlightWork(), offlineConsent: new Map() },
    ...{ certificates: new Map(), clocks: new Map(), troubles },
    changeTo(next, before) {
      ;({ idleTimeoutMs, absoluteTimeoutMs } = next.session)
      longestCallMs = Math.max(longestCallMs, next.provider.timeoutMs)
      for (const name of Object.keys(before.resources)) retiredResources.add(name)
      for (const name of Object.keys(next.resources)) retiredResources.delete(name)
      tellConfig(next)
    },
    configHash: () => hash,
    longestCallMs: () => longestCallMs,
  }
}

/**
 * Names a configuration: the same on every replica that runs it. Secrets are no part of it, so that they cannot
 * be guessed from the name by somebody who knows the rest.
 */
function hashOf(config: Config): string {
  const text = JSON.stringify(config).replaceAll(/:\/\/[^/@"]*@/g, '://')
  return createHash('sha256').update(text).digest('hex').slice(0, 12)
}

/** When the TLS client certificates end, in epoch ms, by who is shown them. */
function certificateEnds({ provider, session: { store }, routes }: Config): Map<string, number> {
  const shown: [peer: string, tls: Partial<TlsConfig> | undefined][] = [
    ['provider', provider.tls],
    ['store', store.type === 'redis' ? store.tls : undefined],
    ...routes.map(({ upstream, tls }): [string, typeof tls] => [upstream, tls]),
  ]
  const ends = new Map<string, number>()
  for (const [peer, tls] of shown) {
    if (tls?.cert === undefined) continue
    const end = new X509Certificate(tls.cert).validToDate.getTime()
    ends.set(peer, Math.min(end, ends.get(peer) ?? end))
  }
  return ends
}

async function openStore(
  config: Config,
  { log, metrics, ...times }: { log: Logger; metrics: Metrics } & StoreTimes,
): Promise<Store> {
  const { store } = config.session
  if (store.type === 'redis') {
    // Loaded here, because its client is a tenth of what a start costs.
    const { createRedisStore } = await import('../store/redis/redis-store.ts')
    return createRedisStore(store, times, {
      ...{ log, observe: metrics.storeCommand, unreplicated: metrics.storeUnreplicated },
    })
  }
  log.warn({}, 'sessions are kept in memory: for one replica only, and lost when it ends')
  return createMemoryStore(times)
}
