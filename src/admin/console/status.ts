import { hostname } from 'node:os'
import { getHeapStatistics } from 'node:v8'
import type { Clock } from '../../async/clock.ts'
import type { Config, ListenAddress, StoreConfig } from '../../config/config.ts'
import type { ProviderStatus } from '../../oidc/provider.ts'
import type { Metrics } from '../metrics.ts'
import type { Readiness } from '../server.ts'
import { findProblems, type Problem } from './problems.ts'
import { type Gauges, readGauges } from './readings.ts'
import type { Reloads } from './reloads.ts'
import { resourceStates } from './resource-states.ts'
import { endpointFigures, figuresOf, pageOfRoutes, type RouteQuery, routeStates } from './route-states.ts'
import { SAMPLE_MS, type Traffic, type Window } from './traffic.ts'
import type { Troubles } from './trouble.ts'

/** The configuration in use, with the live state of its provider and upstreams. */
export type InUse = {
  readonly config: Config
  readonly provider: { status(): ProviderStatus }
  readonly upstreams: { openCircuits(): ReadonlyMap<string, number> }
}

export type StatusDeps = {
  readonly version: string
  readonly metrics: Pick<Metrics, 'series'>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
  readonly readiness: () => Promise<Readiness>
  readonly isInvalidationLive: () => boolean
  readonly inUse: () => InUse
  readonly traffic: Traffic
  readonly troubles: Troubles
  readonly reloads: Reloads
}

/** Makes the document of `/api/status`: everything that the console shows. Holds no token, cookie, secret or claim value. */
export function createStatus(deps: StatusDeps) {
  const { clock, metrics, traffic, troubles, reloads } = deps
  const startedAt = clock.now()
  const startedMonotonic = clock.monotonicNow()
  /** When each problem began, in epoch ms. */
  let since = new Map<string, number>()

  /** Adds to each problem when it began. Called at every sample, so that the beginning is known to 10 s. */
  function problemsOf(list: readonly Problem[]) {
    const keyOf = ({ subject, severity, action }: Problem) => JSON.stringify([subject, severity, action])
    since = new Map(list.map((one) => [keyOf(one), since.get(keyOf(one)) ?? clock.now()]))
    return list.map((one) => ({ ...one, since: isoTime(since.get(keyOf(one))!) }))
  }

  return async function status(query: RouteQuery) {
    const askedAt = clock.monotonicNow()
    const readiness = await deps.readiness()
    const answeredInMs = Math.round((clock.monotonicNow() - askedAt) * 10) / 10
    const { config, provider, upstreams } = deps.inUse()
    const [gauges, now] = await Promise.all([readGauges(metrics), traffic.now()])
    const [window, minute] = [now.window(WINDOW_MINUTES), now.window(1)]
    const openCircuits = upstreams.openCircuits()
    const routes = routeStates({ routes: config.routes, openCircuits, window, recent: minute })
    const resources = resourceStates(config, { gauges, totals: now.totals, window, troubles })
    const providerStatus = providerState(config, provider.status(), { gauges, window, troubles, clock })
    const [lastReload, restartRequired] = [reloads.last(), reloads.restartRequired()]
    const isInvalidationLive = deps.isInvalidationLive()
    const problems = findProblems({
      reading: window.reading,
      idTokenCause: troubles.warnings().find(({ claim }) => claim !== undefined)?.cause,
      ...{ readiness, isInvalidationLive, gauges, routes, resources, restartRequired, lastReload },
      ...{ issuer: config.provider.issuer, providerCause: providerStatus.cause, now: clock.now() },
      clock: {
        offsetSeconds: providerStatus.shown.clockOffsetSeconds,
        toleranceMs: config.provider.clockToleranceMs,
      },
    })
    return {
      ...{ version: deps.version, time: isoTime(clock.now()), startedAt: isoTime(startedAt) },
      uptimeSeconds: secondsSince(startedMonotonic, clock.monotonicNow()),
      process: processFacts(),
      ...{ ready: readiness.ready, draining: readiness.draining },
      problems: problemsOf(problems),
      config: {
        hash: gauges.configHash,
        loadedAt: isoTime(reloads.loadedAt()),
        ageSeconds: secondsSince(reloads.loadedAt(), clock.now()),
        ...{ restartRequired, lastReload: lastReload ?? null },
      },
      traffic: {
        current: {
          seconds: Math.round(minute.seconds),
          ...figuresOf(minute.reading.requests, minute.seconds),
        },
        inFlight: { requests: gauges.requestsInFlight, streams: gauges.streamsInFlight },
        ...{ sessions: gauges.sessions, signIns: gauges.signIns, droppedLogLines: gauges.droppedLogLines },
        sampleSeconds: SAMPLE_MS / 1000,
        samples: now.samples(),
      },
      windowSeconds: Math.round(window.seconds),
      routes: pageOfRoutes(routes, query, traffic),
      endpoints: endpointFigures(window.reading, config.routes, window.seconds),
      resources,
      clientCertificates: Array.from(gauges.certificateEnds, ([shownTo, end]) => ({
        shownTo,
        endsAt: isoTime(end),
      })),
      provider: providerStatus.shown,
      store: {
        ...storeAddress(config.session.store),
        state: readiness.dependencies.store ?? 'unknown',
        answeredInMs,
        ...{ hearsOtherReplicas: isInvalidationLive, reason: readiness.reasons?.store ?? null },
        commands: figuresOf(window.reading.store, window.seconds),
        lastError: troubles.lastOfCode('store_unavailable') ?? null,
      },
      refusals: { total: troubles.refused(), last: troubles.lastRefusals(), causes: troubles.causes() },
      warnings: troubles.warnings(),
    }
  }
}

/** The document of `/api/status`. */
export type StatusDocument = Awaited<ReturnType<ReturnType<typeof createStatus>>>

const WINDOW_MINUTES = 5

function isoTime(epochMs: number): string {
  return new Date(epochMs).toISOString()
}

function secondsSince(before: number, now: number): number {
  return Math.max(0, Math.round((now - before) / 1000))
}

/** Which replica it is, and how full. */
function processFacts() {
  const { rss, heapUsed } = process.memoryUsage()
  const { heap_size_limit: heapLimitBytes } = getHeapStatistics()
  return {
    machine: hostname(),
    node: process.version,
    rssBytes: rss,
    heapUsedBytes: heapUsed,
    heapLimitBytes,
  }
}

type Sources = {
  readonly gauges: Gauges
  readonly window: Window
  readonly troubles: Troubles
}

function providerState(
  { provider }: Config,
  { state, discoveredAt, discoveryError, clockOffsetSeconds, keys }: ProviderStatus,
  { gauges, window, troubles, clock }: Sources & Pick<StatusDeps, 'clock'>,
) {
  const { circuits, configFaults, providerInFlight, providerQueue } = gauges
  const codes = ['provider_unavailable', 'provider_rejected'].flatMap(
    (code) => troubles.lastOfCode(code) ?? [],
  )
  const lastError = codes.toSorted((a, b) => b.at.localeCompare(a.at))[0]
  const discovery = discoveryError && [discoveryError.message, discoveryError.code, discoveryError.cause]
  const cause = discovery?.filter(Boolean).join(' · ') ?? lastError?.cause ?? lastError?.oauthError
  const shown = {
    ...{ issuer: provider.issuer, clientId: provider.clientId, clientAuth: provider.clientAuth.method },
    ...{ resourceDialect: provider.resourceDialect, state },
    discoveredAt: discoveredAt === undefined ? null : isoTime(discoveredAt),
    discoveryAgeSeconds: discoveredAt === undefined ? null : secondsSince(discoveredAt, clock.now()),
    discoveryError: discoveryError ?? null,
    clockOffsetSeconds: clockOffsetSeconds ?? null,
    keys: keys ? { count: keys.count, ageSeconds: Math.round(keys.ageMs / 1000) } : null,
    ...{ circuits, configFaults, inFlight: providerInFlight, waiting: providerQueue },
    calls: figuresOf(window.reading.provider, window.seconds),
    lastError: lastError ?? null,
  }
  return { shown, cause }
}

/** Hosts and ports alone: a URL of Redis may hold a password. */
function storeAddress(store: StoreConfig) {
  if (store.type !== 'redis') return { type: store.type }
  const { keyPrefix, durability } = store
  const listed = (nodes: readonly ListenAddress[]) =>
    nodes.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`).join(', ')
  const of = { type: 'redis', keyPrefix, durability } as const
  if ('cluster' in store)
    return { ...of, mode: 'cluster', address: listed(store.cluster), tls: store.tls !== undefined }
  if ('sentinels' in store) {
    return {
      ...of,
      mode: `sentinel, ${store.masterName}`,
      address: listed(store.sentinels),
      tls: store.tls !== undefined,
    }
  }
  const { host, protocol } = new URL(store.url)
  return { ...of, mode: 'single', address: host, tls: protocol === 'rediss:' }
}
