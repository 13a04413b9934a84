import type { Member } from './fleet.ts'

/** What must not have happened, as it was found. */
export type Violations = {
  readonly list: readonly string[]
  add(text: string): void
  /** What replicas have said of themselves: anything on standard error, and every log line of level error. */
  inLogs(lives: readonly Member[]): string[]
}

const MOST_KEPT = 500

/** Makes the list, empty and bounded. */
export function createViolations(): Violations {
  const list: string[] = []
  return {
    list,
    add(text) {
      if (list.length < MOST_KEPT) list.push(text)
    },
    inLogs: (lives) =>
      lives.flatMap(({ label, replica }) => [
        ...replica.stderr.map((line) => `${label} on standard error: ${line}`),
        ...replica.stdout.filter(isError).map((line) => `${label} logged: ${line}`),
      ]),
  }
}

function isError(line: string): boolean {
  return line.includes('"level":"error"') || line.includes('"level":"fatal"')
}
