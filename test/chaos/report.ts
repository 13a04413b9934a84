import type { Aftermath } from './aftermath.ts'
import type { StoreOutage } from './disturbances.ts'
import type { Finding, Inquest } from './losses.ts'
import type { Presentation } from './refresh-ledger.ts'
import type { ChaosOptions } from './run.ts'

/** Everything one run has shown. */
export type ChaosReport = {
  readonly options: ChaosOptions
  readonly outcomes: Readonly<Record<string, number>>
  readonly latenciesMs: readonly number[]
  readonly presentations: readonly Presentation[]
  readonly faults: Readonly<Record<string, number>>
  readonly inquest: Inquest
  readonly kills: number
  readonly storms: number
  readonly outages: readonly StoreOutage[]
  readonly aftermath: Aftermath
  /** Sessions that are well at the end. */
  readonly present: number
  readonly violations: readonly string[]
}

/** Whatever makes the run a failure, one line each; empty when all is as it must be. */
export function failuresOf({ violations, inquest, options }: ChaosReport): string[] {
  const { reuses, losses } = inquest
  return [
    ...violations,
    ...[...reuses, ...losses].filter(({ explanation }) => !explanation.isExplained).map(story),
    ...(options.reuses === false && reuses.length > 0
      ? [`${reuses.length} refresh tokens came twice, although none may be offered again`]
      : []),
  ]
}

/** What led to each lost session whose cause holds `text`. */
export function timelinesOf({ inquest }: ChaosReport, text: string): string {
  return inquest.losses
    .filter(({ explanation }) => explanation.cause.includes(text))
    .map(story)
    .join('\n')
}

function story({ visitor, explanation, timeline }: Finding): string {
  return [`${visitor.user}: ${explanation.cause}`, ...timeline].join('\n')
}

/** The summary as a table for a terminal. */
export function tableOf(report: ChaosReport): string {
  const { options, inquest, outages, aftermath } = report
  const outage = (kind: StoreOutage['kind']) => outages.filter((one) => one.kind === kind)
  const longest = (kind: StoreOutage['kind']) =>
    Math.max(0, ...outage(kind).map(({ from, to }) => to - from)).toFixed(0)
  const sections: [title: string, rows: Record<string, string | number>][] = [
    ['requests by outcome', report.outcomes],
    ['latency of answers, ms', latencyRows(report.latenciesMs)],
    ['refreshes by outcome', tally(report.presentations.map(refreshOutcome))],
    ['faults at the token endpoint', { ...report.faults, 'times down': report.storms }],
    ['reuse events by cause', tally(inquest.reuses.map(({ explanation }) => explanation.cause))],
    ['lost sessions by cause', tally(inquest.losses.map(({ explanation }) => explanation.cause))],
    [
      'disturbances',
      {
        'replicas killed': report.kills,
        'Redis frozen': `${outage('frozen').length} (longest ${longest('frozen')} ms)`,
        'Redis restarted': `${outage('restarted').length} (longest ${longest('restarted')} ms)`,
      },
    ],
    [
      'afterwards',
      {
        'sessions well': report.present,
        'all served again after, ms': aftermath.recoveredMs.toFixed(0),
        'most heap kept, MiB': (aftermath.heapGrowth / 2 ** 20).toFixed(1),
      },
    ],
  ]
  const head = `chaos: seed ${options.seed}, ${options.seconds} s, ${options.sessions} sessions, ${options.requestsPerSecond} requests/s, reusesRefreshTokens ${options.reuses}`
  return [head, ...sections.map(([title, rows]) => section(title, rows))].join('\n')
}

function section(title: string, rows: Record<string, string | number>): string {
  const entries = Object.entries(rows).sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }))
  const lines = entries.map(([name, value]) => `    ${name.padEnd(96)} ${String(value).padStart(8)}`)
  return [`  ${title}`, ...(lines.length > 0 ? lines : ['    none'])].join('\n')
}

function latencyRows(latenciesMs: readonly number[]): Record<string, string> {
  const sorted = [...latenciesMs].sort((a, b) => a - b)
  const at = (part: number) => (sorted[Math.ceil(sorted.length * part) - 1] ?? 0).toFixed(0)
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}

function refreshOutcome({ verdict, fate }: Presentation): string {
  return verdict === 'rotated' && fate !== 'delivered' ? `rotated, answer ${fate}` : verdict
}

function tally(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1
  return counts
}
