import type { Case } from './case.ts'
import type { Figure, Measured } from './measure.ts'

const spread = ({ median, min, max }: Figure, digits: number) =>
  `${median.toFixed(digits).padStart(7)} (${min.toFixed(digits)}–${max.toFixed(digits)})`.padEnd(26)

/** One case as text for a terminal. */
export function caseTable(
  { title, measures = 'CPU µs a request', budget, unit }: Omit<Case, 'lanes'>,
  all: readonly Measured[],
): string {
  const width = Math.max(...all.map(({ name }) => name.length)) + 2
  const rows = all.map(({ name, cost, ratio, isSettled }, n) =>
    [
      `  ${name.padEnd(width)}`,
      spread(cost, cost.median < 10 ? 2 : 1),
      n === 0 ? '' : spread(ratio, 2),
      isSettled ? '' : ' had not settled after its warm-up',
    ]
      .join('')
      .trimEnd(),
  )
  const inUnits = unit ? `, and in units of ${unit}` : ''
  const head = `${title}: ${measures}${inUnits} (budget of Cloakroom: ${budget})`
  return [head, ...rows].join('\n')
}
