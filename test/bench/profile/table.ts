/** What a request of one kind costs one contender. */
export type Profiled = {
  readonly title: string
  readonly contender: string
  /** CPU µs a request by the kernel, all threads. */
  readonly cpuUs: number
  /** µs of self time of the main thread a request, by part. */
  readonly parts: ReadonlyMap<string, number>
}

/** Less than this in every column is not worth a line. */
const LEAST_US = 2

/** A line for each part, a column for each kind of request and contender, in Markdown. */
export function profileTable(all: readonly Profiled[]): string {
  const most = new Map<string, number>()
  for (const { parts } of all)
    for (const [part, us] of parts) most.set(part, Math.max(us, most.get(part) ?? 0))
  const shown = [...most].filter(([, us]) => us >= LEAST_US).toSorted(([, a], [, b]) => b - a)
  const sum = (values: Iterable<number>) => [...values].reduce((total, us) => total + us, 0)
  const rest = (one: Profiled) =>
    sum([...one.parts].map(([part, us]) => (most.get(part)! < LEAST_US ? us : 0)))
  const row = (name: string, of: (one: Profiled) => number) => [name, ...all.map((one) => cell(of(one)))]
  const rows = [
    ['µs of self time a request', ...all.map(({ title, contender }) => `${title}: ${contender}`)],
    ['---', ...all.map(() => '---:')],
    ...shown.map(([part]) => row(part, ({ parts }) => parts.get(part) ?? 0)),
    row(`parts below ${LEAST_US} µs`, rest),
    row('all of the main thread', ({ parts }) => sum(parts.values())),
    row('CPU time by the kernel, all threads', ({ cpuUs }) => cpuUs),
  ]
  return rows.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

const cell = (us: number) => (us === 0 ? '' : us.toFixed(1))
