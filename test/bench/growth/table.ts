import { exponentOf, type Point } from './exponent.ts'
import type { Growth } from './growth.ts'

const whole = (value: number) => Math.round(value).toLocaleString('en')
const cost = (value: number) =>
  value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : whole(value)

/** What grows, how, and with which exponent, in Markdown. */
export function growthTable(rows: readonly Growth[]): string {
  const lines = rows.map(({ what, measures, points }) => [
    what,
    measures,
    points.map(({ size, cost: each }: Point) => `${whole(size)}: ${cost(each)}`).join(' · '),
    exponentOf(points).toFixed(2),
  ])
  return [['number of', 'measure', 'size: cost', 'exponent'], ['---', '---', '---', '---'], ...lines]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}
