import type { ErrorCode } from '../../errors.ts'
import { SECONDS } from '../metric-definitions.ts'
import { NO_CODE } from '../metric-labels.ts'
import type { MetricSeries, Metrics } from '../metrics.ts'

export type Circuit = 'closed' | 'half-open' | 'open'
const CIRCUITS: readonly Circuit[] = ['closed', 'half-open', 'open']

/** Counts since the start of the process, and how long what is counted took. */
export type Totals = {
  readonly count: number
  /** Server errors, the upstream's and our own, or failed calls. */
  readonly failed: number
  /** Those of the failed that are the upstream's: its own 5xx, or no answer of it. */
  readonly upstreamFailed: number
  /** Refused by Cloakroom as the client's fault: answered with a 4xx that has a problem code. */
  readonly refused: number
  /** In each bucket of `SECONDS` and no smaller one; the last has what is beyond. */
  readonly buckets: readonly number[]
}

export const NOTHING: Totals = {
  ...{ count: 0, failed: 0, upstreamFailed: 0, refused: 0 },
  buckets: SECONDS.map(() => 0).concat(0),
}

/** What the metrics count, at one moment. */
export type Reading = {
  readonly requests: Totals
  readonly routes: ReadonlyMap<string, Totals>
  /** By route: how long its upstream took. */
  readonly upstreams: ReadonlyMap<string, Totals>
  readonly provider: Totals
  readonly store: Totals
  /** By resource, then by outcome. */
  readonly refreshes: Counts
  /** By route, then by reason. */
  readonly upstreamErrors: Counts
  /** By kind. */
  readonly storeErrors: Counts
  /** By outcome, and those that failed by step, then by error. */
  readonly signIns: Counts
  readonly signInFailures: Counts
  /** Requests without a session, by reason. */
  readonly missingSessions: Counts
}

/** Counts that are not 0, by two labels; by one and the same where there is one. */
export type Counts = ReadonlyMap<string, Readonly<Record<string, number>>>

export const NOTHING_READ: Reading = {
  ...{ requests: NOTHING, routes: new Map(), upstreams: new Map(), provider: NOTHING, store: NOTHING },
  ...{ refreshes: new Map(), upstreamErrors: new Map(), storeErrors: new Map(), signIns: new Map() },
  ...{ signInFailures: new Map(), missingSessions: new Map() },
}

/** The gauges of one moment, and what is counted since the start. */
export type Gauges = {
  readonly requestsInFlight: number
  /** Open WebSockets and event streams. */
  readonly streamsInFlight: number
  readonly providerInFlight: number
  readonly providerQueue: number
  readonly circuits: { readonly tokens: Circuit; readonly code: Circuit; readonly par: Circuit }
  readonly configFaults: readonly { readonly resource: string; readonly error: string }[]
  readonly configHash: string
  /** Seconds, by resource. */
  readonly tokenLifetimes: ReadonlyMap<string, number>
  /** Ends of client certificates, in epoch ms, by who is shown them. */
  readonly certificateEnds: ReadonlyMap<string, number>
  readonly droppedLogLines: number
  readonly sessions: { readonly started: number; readonly ended: number }
  /** By outcome. */
  readonly signIns: Readonly<Record<string, number>>
}

type Source = Pick<Metrics, 'series'>

/** Reads what is counted. */
export async function readTotals({ series }: Source): Promise<Reading> {
  const [requests, firstBytes, provider, store, refreshes, upstreamErrors, upstreams] = await Promise.all([
    ...[series('requests'), series('firstBytes'), series('providerCalls'), series('storeCommands')],
    ...[series('refreshes'), series('upstreamErrors'), series('upstreamResponses')],
  ] as const)
  const routes = routeTotals(requests, firstBytes)
  return {
    ...{ requests: sumOf([...routes.values()]), routes },
    upstreams: routeTotals([], upstreams),
    // Of the provider's answers only its own failures count: a refusal of one user is an answer.
    provider: callTotals(provider, (outcome) => outcome === 'fault'),
    store: callTotals(store, (outcome) => outcome !== 'ok'),
    refreshes: countsOf(refreshes, 'resource', 'outcome'),
    upstreamErrors: countsOf(upstreamErrors, 'route', 'reason'),
    storeErrors: countsOf(await series('storeErrors'), 'kind', 'kind'),
    signIns: countsOf(await series('signIns'), 'outcome', 'outcome'),
    signInFailures: countsOf(await series('signInFailures'), 'step', 'error'),
    missingSessions: countsOf(await series('missingSessions'), 'reason', 'reason'),
  }
}

/** Reads the gauges. */
export async function readGauges(source: Source): Promise<Gauges> {
  const list = async (...[name]: Parameters<Source['series']>) => await source.series(name)
  const values = async (name: Parameters<Source['series']>[0], label: string) =>
    new Map((await list(name)).map(({ labels, value = 0 }) => [labels[label] ?? '', value] as const))
  const first = async (name: Parameters<Source['series']>[0]) => (await list(name))[0]?.value ?? 0
  const [signInCircuits, certificates, clientCertificate, sessions, streams] = await Promise.all([
    ...[values('signInBreaker', 'call'), values('tlsCertificateEnds', 'peer'), first('certificateEnd')],
    ...[list('sessions'), list('streamsInFlight')],
  ] as const)
  const circuitOf = (state = 0) => CIRCUITS[state] ?? 'closed'
  const ends = [...certificates, ['provider (client authentication)', clientCertificate] as const]
  const of = (event: string) => total(sessions.filter(({ labels }) => labels.event === event))
  return {
    ...{ requestsInFlight: await first('requestsInFlight'), streamsInFlight: total(streams) },
    ...{ providerInFlight: await first('providerInFlight'), providerQueue: await first('providerQueue') },
    circuits: {
      tokens: circuitOf(await first('providerBreaker')),
      ...{ code: circuitOf(signInCircuits.get('code')), par: circuitOf(signInCircuits.get('par')) },
    },
    configFaults: (await list('configFaults'))
      .filter(({ value }) => value === 1)
      .map(({ labels: { resource = '', error = '' } }) => ({ resource, error })),
    configHash: (await list('configInfo'))[0]?.labels.hash ?? '',
    tokenLifetimes: await values('tokenLifetimes', 'resource'),
    certificateEnds: new Map(ends.filter(([, end]) => end > 0).map(([peer, end]) => [peer, end * 1000])),
    droppedLogLines: await first('droppedLogLines'),
    sessions: { started: of('started'), ended: of('ended') },
    signIns: Object.fromEntries(await values('signIns', 'outcome')),
  }
}

function total(list: readonly MetricSeries[]): number {
  return list.reduce((sum, { value = 0 }) => sum + value, 0)
}

/** Problems of an upstream that gave no answer. */
const UPSTREAM_CODES: ReadonlySet<string> = new Set<ErrorCode>(['upstream_unreachable', 'upstream_timeout'])

/** Counts come from whole requests; times are those to the first byte, because a long download is no slow answer. */
function routeTotals(
  requests: readonly MetricSeries[],
  firstBytes: readonly MetricSeries[],
): Map<string, Totals> {
  const building = new Map<string, Building>()
  const of = (route = 'none'): Building => {
    const known = building.get(route) ?? { ...NOTHING, buckets: [...NOTHING.buckets] }
    building.set(route, known)
    return known
  }
  for (const { labels, counts = [] } of requests) {
    const route = of(labels.route)
    const count = sum(counts)
    route.count += count
    const { status = '', code = NO_CODE } = labels
    if (status.startsWith('5')) {
      route.failed += count
      if (code === NO_CODE || UPSTREAM_CODES.has(code)) route.upstreamFailed += count
    }
    // Who left before the answer (499) is no refusal.
    if (status.startsWith('4') && code !== NO_CODE) route.refused += count
  }
  for (const { labels, counts = [] } of firstBytes) addTo(of(labels.route).buckets, counts)
  return building
}

type Building = { -readonly [Member in keyof Totals]: Totals[Member] } & { readonly buckets: number[] }

function callTotals(
  list: readonly MetricSeries[],
  isFailed: (outcome: string | undefined) => boolean,
): Totals {
  const totals: Building = { ...NOTHING, buckets: [...NOTHING.buckets] }
  for (const { labels, counts = [] } of list) {
    const count = sum(counts)
    totals.count += count
    if (isFailed(labels.outcome)) totals.failed += count
    addTo(totals.buckets, counts)
  }
  return totals
}

function addTo(buckets: number[], counts: ArrayLike<number>): void {
  for (let at = 0; at < counts.length; at += 1) buckets[at]! += counts[at]!
}

function sum(counts: ArrayLike<number>): number {
  let all = 0
  for (let at = 0; at < counts.length; at += 1) all += counts[at]!
  return all
}

function countsOf(list: readonly MetricSeries[], outer: string, inner: string): Counts {
  const counts = new Map<string, Record<string, number>>()
  for (const { labels, value = 0 } of list) {
    if (value === 0) continue
    const key = labels[outer] ?? ''
    const known = counts.get(key) ?? {}
    known[labels[inner] ?? ''] = (known[labels[inner] ?? ''] ?? 0) + value
    counts.set(key, known)
  }
  return counts
}

/** One count. */
export function countIn(counts: Counts, outer: string, inner = outer): number {
  return counts.get(outer)?.[inner] ?? 0
}

function sumOf(list: readonly Totals[]): Totals {
  return list.reduce((all, one) => combined(all, one, 1), NOTHING)
}

/** What came between two readings. */
export function minusReading(after: Reading, before: Reading): Reading {
  const each = (now: Reading['routes'], then: Reading['routes']) =>
    new Map(
      Array.from(now, ([name, totals]) => [name, combined(totals, then.get(name) ?? NOTHING, -1)] as const),
    )
  return {
    requests: combined(after.requests, before.requests, -1),
    routes: each(after.routes, before.routes),
    upstreams: each(after.upstreams, before.upstreams),
    provider: combined(after.provider, before.provider, -1),
    store: combined(after.store, before.store, -1),
    refreshes: minusCounts(after.refreshes, before.refreshes),
    upstreamErrors: minusCounts(after.upstreamErrors, before.upstreamErrors),
    storeErrors: minusCounts(after.storeErrors, before.storeErrors),
    signIns: minusCounts(after.signIns, before.signIns),
    signInFailures: minusCounts(after.signInFailures, before.signInFailures),
    missingSessions: minusCounts(after.missingSessions, before.missingSessions),
  }
}

function minusCounts(after: Counts, before: Counts): Counts {
  const left = Array.from(after, ([key, counts]) => {
    const entries = Object.entries(counts).map(
      ([name, count]) => [name, count - (before.get(key)?.[name] ?? 0)] as const,
    )
    return [key, Object.fromEntries(entries.filter(([, count]) => count > 0))] as const
  })
  return new Map(left)
}

function combined(a: Totals, b: Totals, sign: 1 | -1): Totals {
  return {
    count: a.count + sign * b.count,
    failed: a.failed + sign * b.failed,
    upstreamFailed: a.upstreamFailed + sign * b.upstreamFailed,
    refused: a.refused + sign * b.refused,
    buckets: a.buckets.map((count, at) => count + sign * b.buckets[at]!),
  }
}

/**
 * The quantile in ms, with an even spread inside a bucket, as Prometheus' `histogram_quantile` has it; the highest bound
 * for what lies beyond. Null when nothing was timed.
 */
export function quantileMs({ buckets }: Pick<Totals, 'buckets'>, share: number): number | null {
  const all = sum(buckets)
  if (all <= 0) return null
  let below = 0
  for (let at = 0; at < SECONDS.length; at += 1) {
    const count = buckets[at]!
    if (below + count >= share * all && count > 0) {
      const from = SECONDS[at - 1] ?? 0
      return rounded((from + ((SECONDS[at]! - from) * (share * all - below)) / count) * 1000)
    }
    below += count
  }
  return SECONDS.at(-1)! * 1000
}

/** To three digits behind the point. */
export function rounded(value: number): number {
  return Math.round(value * 1000) / 1000
}
