import type { Case } from './cases.ts'
import type { Figure, Measured } from './measure.ts'

const spread = ({ median, min, max }: Figure, digits: number) =>
  `${median.toFixed(digits).padStart(7)} (${min.toFixed(digits)}–${max.toFixed(digits)})`.padEnd(26)

/** One case as text for a terminal. */
export function caseTable(
  { title, budget, unit }: Pick<Case, 'title' | 'budget' | 'unit'>,
  all: readonly Measured[],
): string {
  const width = Math.max(...all.map(({ name }) => name.length)) + 2
  const rows = all.map(({ name, us, ratio, isSettled }, n) =>
    [
      `  ${name.padEnd(width)}`,
      spread(us, 1),
      n === 0 ? '' : spread(ratio, 2),
      isSettled ? '' : ' had not settled after its warm-up',
    ]
      .join('')
      .trimEnd(),
  )
  const head = `${title}: CPU µs a request, and in units of ${unit} (budget of Cloakroom: ${budget})`
  return [head, ...rows].join('\n')
}
