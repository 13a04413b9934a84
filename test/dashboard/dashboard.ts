import { readFileSync } from 'node:fs'

/** One query of a panel. */
export type Target = { readonly refId: string; readonly expr: string; readonly legendFormat: string }

/** What is read of a panel; the members are Grafana's. */
export type Panel = {
  readonly id: number
  readonly type: 'row' | 'stat' | 'timeseries'
  readonly title: string
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number }
  readonly targets?: readonly Target[]
  readonly fieldConfig?: {
    readonly defaults: {
      readonly unit?: string
      readonly thresholds?: {
        readonly steps: readonly { readonly color: string; readonly value: number | null }[]
      }
      readonly mappings?: readonly { readonly options: Readonly<Record<string, { readonly text: string }>> }[]
    }
  }
}

/** A variable whose values are those of a label: `label_values(METRIC, LABEL)`. */
export type Variable = {
  readonly name: string
  readonly type: 'datasource' | 'query'
  readonly query: string | { readonly query: string }
}

/** The dashboard of the chart. */
export type Dashboard = {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly Variable[] }
}

const FILE = new URL('../../helm/cloakroom/files/dashboard.json', import.meta.url)

export function readDashboard(): Dashboard {
  return JSON.parse(readFileSync(FILE, 'utf8'))
}

/** Units that the panels use, as Grafana names them. */
const UNITS = new Set(['none', 's', 'bytes', 'reqps', 'ops', 'percentunit'])
const COLUMNS = 24
/** Variables of Grafana's own. */
const BUILT_IN = new Set(['__rate_interval', '__range'])

/** What is wrong with the panels as such, in words; nothing when all is well. */
export function faultsOf({ panels, templating }: Dashboard): string[] {
  const faults: string[] = []
  const twice = (what: string, list: readonly unknown[]) => {
    if (new Set(list).size !== list.length) faults.push(`${what} is not unique`)
  }
  twice(
    'an id',
    panels.map(({ id }) => id),
  )
  const cells = new Map<string, string>()
  for (const { id, type, title, gridPos, targets = [], fieldConfig } of panels) {
    const name = `${id} ${title}`
    const { h, w, x, y } = gridPos
    if (x + w > COLUMNS) faults.push(`${name} is wider than the page`)
    for (let row = y; row < y + h; row += 1) {
      for (let column = x; column < x + w; column += 1) {
        const other = cells.get(`${row} ${column}`)
        if (other !== undefined) faults.push(`${name} lies over ${other}`)
        cells.set(`${row} ${column}`, name)
      }
    }
    if (type === 'row') continue
    const { unit, thresholds } = fieldConfig?.defaults ?? {}
    if (targets.length === 0) faults.push(`${name} asks for nothing`)
    if (!UNITS.has(String(unit))) faults.push(`${name} has no unit that is known: ${unit}`)
    if (type === 'stat' && title !== 'Version' && !thresholds) faults.push(`${name} has no thresholds`)
    twice(
      `a refId of ${name}`,
      targets.map(({ refId }) => refId),
    )
    twice(
      `a legend of ${name}`,
      targets.map(({ legendFormat }) => legendFormat),
    )
    for (const { expr, legendFormat } of targets) {
      for (const [, variable = ''] of expr.matchAll(/\$\{?(\w+)/g)) {
        const isKnown = BUILT_IN.has(variable) || templating.list.some((one) => one.name === variable)
        if (!isKnown) faults.push(`${name}: $${variable} is no variable`)
      }
      if (type === 'timeseries' && legendFormat === '')
        faults.push(`${name} has a query without a legend: ${expr}`)
      for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
        const isKept = !/\bby \(/.test(expr) || new RegExp(`by \\([^)]*\\b${label}\\b`).test(expr)
        if (!isKept) faults.push(`${name}: ${label} of its legend is summed away`)
      }
    }
  }
  return [...new Set(faults)]
}

/** What a variable asks for: the metric whose series have the label. Undefined for one that asks for nothing. */
export function labelQueryOf({ type, query }: Variable): { metric: string; label: string } | undefined {
  if (type !== 'query') return undefined
  const text = typeof query === 'string' ? query : query.query
  const [, metric, label] = /^label_values\((\w+), *(\w+)\)$/.exec(text) ?? []
  if (metric === undefined || label === undefined)
    throw new Error(`no query for the values of a label: ${text}`)
  return { metric, label }
}

/** Times of a query, in seconds. */
export type Times = { readonly scrape: number; readonly step: number; readonly range: number }

/** A query with its variables replaced as Grafana does, where all of their values are chosen one by one. */
export function queryOf(
  { expr }: Target,
  values: ReadonlyMap<string, readonly string[]>,
  { scrape, step, range }: Times,
): string {
  // Grafana: max($__interval + scrape interval, 4 scrape intervals).
  const rate = Math.max(step + scrape, 4 * scrape)
  let query = expr.replaceAll('$__rate_interval', `${rate}s`).replaceAll('$__range', `${range}s`)
  for (const [name, list] of values) query = query.replaceAll(`$${name}`, `(${list.join('|')})`)
  return query
}
