import { type Clock, every } from '../../async/clock.ts'
import type { Metrics } from '../metrics.ts'
import { minusReading, NOTHING_READ, quantileMs, type Reading, readTotals, rounded } from './readings.ts'

/** The last half hour: one array for each figure, the oldest first; per second where nothing else is said. */
export type Samples = {
  /** Epoch ms. */
  readonly at: readonly number[]
  readonly requests: readonly number[]
  readonly refused: readonly number[]
  readonly errors: readonly number[]
  readonly p50Ms: readonly (number | null)[]
  readonly p99Ms: readonly (number | null)[]
  /** In the whole interval. */
  readonly refreshed: readonly number[]
  readonly refreshesFailed: readonly number[]
  readonly providerP99Ms: readonly (number | null)[]
  readonly providerFailed: readonly number[]
  readonly storeP99Ms: readonly (number | null)[]
  readonly storeFailed: readonly number[]
  /** Names of the circuits that were open. */
  readonly open: readonly (readonly string[])[]
}

type Sample = { readonly [Figure in keyof Samples]: Samples[Figure][number] }

/** What came in the last minutes. */
export type Window = {
  /** How long it is: less than wanted after the start, up to a minute more later. */
  readonly seconds: number
  readonly reading: Reading
}

/** The minutes of one route, the oldest first. */
export type RouteHistory = { readonly requests: readonly number[]; readonly errors: readonly number[] }

/** What came until one moment. */
export type TrafficNow = {
  /** Since the start. */
  readonly totals: Reading
  /** The samples, with what came since the last of them. */
  samples(): Samples
  /** What came in the last `minutes`, up to 5. */
  window(minutes: number): Window
}

export type Traffic = {
  now(): Promise<TrafficNow>
  historyOf(route: string): RouteHistory
  close(): void
}

export type TrafficDeps = {
  readonly metrics: Pick<Metrics, 'series'>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow' | 'after'>
  /** Names of the circuits that are open now. */
  readonly openCircuits: () => Promise<readonly string[]>
}

export const SAMPLE_MS = 10_000
const SAMPLES = 180
const SAMPLES_A_MINUTE = 6
const MINUTES = 30
/** Whole readings are kept for so long, for the windows. */
const WINDOW_MINUTES = 5

type Timed = { readonly at: number; readonly reading: Reading; readonly open: readonly string[] }

/**
 * Samples what the metrics count, every ten seconds, so that a page that is opened late still shows what happened. Begins
 * with a process that has counted nothing.
 */
export function createTraffic({ metrics, clock, openCircuits }: TrafficDeps): Traffic {
  const samples: Sample[] = []
  const histories = new Map<string, { requests: number[]; errors: number[] }>()
  let last: Timed = { at: clock.monotonicNow(), reading: NOTHING_READ, open: [] }
  let minutes: readonly Timed[] = [last]
  let taken = 0

  async function read(): Promise<Timed> {
    const [reading, open] = await Promise.all([readTotals(metrics), openCircuits()])
    return { at: clock.monotonicNow(), reading, open }
  }

  function sampleUntil({ at, reading, open }: Timed): Sample {
    const seconds = Math.max(0.001, (at - last.at) / 1000)
    return sampleOf(minusReading(reading, last.reading), { seconds, at: clock.now(), open })
  }

  async function take(): Promise<void> {
    const next = await read()
    samples.push(sampleUntil(next))
    if (samples.length > SAMPLES) samples.shift()
    last = next
    taken += 1
    if (taken % SAMPLES_A_MINUTE === 0) noteMinute(next)
  }

  function noteMinute(next: Timed): void {
    const { routes } = minusReading(next.reading, minutes.at(-1)!.reading)
    minutes = [...minutes, next].slice(-WINDOW_MINUTES - 1)
    for (const [route, { count, failed }] of routes) {
      const history = histories.get(route) ?? { requests: [], errors: [] }
      push(history.requests, count)
      push(history.errors, failed)
      if (history.requests.some((requests) => requests > 0)) histories.set(route, history)
      else histories.delete(route)
    }
  }

  const timer = every(clock, SAMPLE_MS, () => void take()).unref()
  return {
    async now() {
      const next = await read()
      return {
        totals: next.reading,
        samples() {
          const isWorthIt = next.at - last.at >= 1_000 || samples.length === 0
          return columns(isWorthIt ? [...samples, sampleUntil(next)] : samples)
        },
        window(wanted) {
          const from = minutes.findLast(({ at }) => next.at - at >= wanted * 60_000) ?? minutes[0]!
          return {
            seconds: Math.max(1, (next.at - from.at) / 1000),
            reading: minusReading(next.reading, from.reading),
          }
        },
      }
    },
    historyOf: (route) => histories.get(route) ?? { requests: [], errors: [] },
    close: () => timer.cancel(),
  }
}

function push(minutes: number[], count: number): void {
  minutes.push(count)
  if (minutes.length > MINUTES) minutes.shift()
}

function sampleOf(
  { requests, provider, store, refreshes }: Reading,
  { seconds, at, open }: { seconds: number; at: number; open: readonly string[] },
): Sample {
  const perSecond = (count: number) => rounded(count / seconds)
  const { renewed, failed } = refreshesIn([...refreshes.values()])
  return {
    ...{ at, open },
    requests: perSecond(requests.count),
    refused: perSecond(requests.refused),
    errors: perSecond(requests.failed),
    p50Ms: quantileMs(requests, 0.5),
    p99Ms: quantileMs(requests, 0.99),
    ...{ refreshed: renewed, refreshesFailed: failed },
    providerP99Ms: quantileMs(provider, 0.99),
    providerFailed: provider.failed,
    storeP99Ms: quantileMs(store, 0.99),
    storeFailed: store.failed,
  }
}

/** An answer whose ID token was ignored is counted as renewed, too. */
const NO_FAILURES = new Set(['renewed', 'id_token_ignored'])

/** How many refreshes went well, and how many did not. */
export function refreshesIn(list: readonly Readonly<Record<string, number>>[]): {
  readonly renewed: number
  readonly failed: number
} {
  const all = list.flatMap((outcomes) => Object.entries(outcomes))
  const sum = (isCounted: (outcome: string) => boolean) =>
    all.reduce((total, [outcome, count]) => total + (isCounted(outcome) ? count : 0), 0)
  return {
    renewed: sum((outcome) => outcome === 'renewed'),
    failed: sum((outcome) => !NO_FAILURES.has(outcome)),
  }
}

function columns(samples: readonly Sample[]): Samples {
  const column = <Figure extends keyof Sample>(figure: Figure) => samples.map((sample) => sample[figure])
  return {
    ...{ at: column('at'), open: column('open') },
    ...{ requests: column('requests'), refused: column('refused'), errors: column('errors') },
    ...{ p50Ms: column('p50Ms'), p99Ms: column('p99Ms') },
    ...{ refreshed: column('refreshed'), refreshesFailed: column('refreshesFailed') },
    ...{ providerP99Ms: column('providerP99Ms'), providerFailed: column('providerFailed') },
    ...{ storeP99Ms: column('storeP99Ms'), storeFailed: column('storeFailed') },
  }
}
