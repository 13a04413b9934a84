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

/** None where a cost was nothing at one of the sizes. */
function exponentIn(points: readonly Point[]): string {
  const exponent = exponentOf(points)
  return Number.isFinite(exponent) ? exponent.toFixed(2) : ''
}

/** The table of before with the rows of a new one: in the place of rows of the same, or after all. */
export function mergedGrowth(before: string, table: string): string {
  const fresh = new Map(linesOf(table).map((line) => [sameness(line), line]))
  const kept = linesOf(before).map((line) => {
    const key = sameness(line)
    const now = fresh.get(key)
    fresh.delete(key)
    return now ?? line
  })
  const [head, rule] = table.split('\n')
  return [head, rule, ...kept, ...fresh.values()].join('\n')
}

const linesOf = (table: string) => table.split('\n').slice(2)
/** What a row is about: figures that its name mentions differ from run to run. */
const sameness = (line: string) =>
  line
    .split('|')
    .slice(1, 3)
    .join('|')
    .replaceAll(/[\d.,]+/g, '')
