import { exponentOf, type Point } from './exponent.ts'
import type { Growth } from './points.ts'

const whole = (value: number) => Math.round(value).toLocaleString('en')
const cost = (value: number) =>
  value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : whole(value)

/** What grows, how, with which exponent, and when that was measured, in Markdown. */
export function growthTable(rows: readonly Growth[], date: string): string {
  const lines = rows.map(({ what, measures, points }) => [
    what,
    measures,
    points.map(({ size, cost: each }: Point) => `${whole(size)}: ${cost(each)}`).join(' · '),
    exponentIn(points),
    date,
  ])
  return [HEAD, HEAD.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

const HEAD = ['number of', 'measure', 'size: cost', 'exponent', 'measured']

/** Empty where there is no exponent: with one size, or with a cost of 0. */
function exponentIn(points: readonly Point[]): string {
  const exponent = exponentOf(points)
  return Number.isFinite(exponent) ? exponent.toFixed(2) : ''
}

/** The earlier table with the rows of a new one. A new row replaces the one with the same name, or is added at the end. */
export function mergedGrowth(before: string, table: string): string {
  const fresh = new Map(linesOf(table).map((line) => [nameOf(line), line]))
  const kept = linesOf(before).map((line) => {
    const key = nameOf(line)
    const now = fresh.get(key)
    fresh.delete(key)
    return now ?? line
  })
  const [head, rule] = table.split('\n')
  return [head, rule, ...kept, ...fresh.values()].join('\n')
}

const linesOf = (table: string) => table.split('\n').slice(2)
/** The name of a row without the figures in it, which differ from run to run. */
const nameOf = (line: string) =>
  line
    .split('|')
    .slice(1, 3)
    .join('|')
    .replaceAll(/[\d.,]+/g, '')
