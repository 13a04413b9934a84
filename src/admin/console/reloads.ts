import type { Clock } from '../../async/clock.ts'
import type { ConfigProblem } from '../../config/report/problem.ts'
import { describeError, type ErrorSummary } from '../../errors.ts'

/** How the last reload ended. */
export type ReloadStatus = {
  /** ISO 8601. */
  readonly at: string
  readonly outcome: 'applied' | 'refused'
  /** What is wrong with a file that was refused: the first of them. */
  readonly problems: readonly Pick<ConfigProblem, 'path' | 'message' | 'line' | 'column'>[]
  readonly problemCount: number
  /** Why it failed, when not for its content. */
  readonly error?: ErrorSummary
}

/** What is known of the configuration file. */
export type Reloads = {
  /** When the configuration in use was read, in epoch ms. */
  loadedAt(): number
  /** The changed fields that are not in use yet. */
  restartRequired(): readonly string[]
  /** Undefined: there was none. */
  last(): ReloadStatus | undefined
  applied(restartRequired: readonly string[]): void
  refused(error: unknown): void
}

const MOST_PROBLEMS = 50

/** Remembers how the last reload ended. Begins with a configuration that was read just now. `now`: epoch ms. */
export function createReloads({ now }: Pick<Clock, 'now'>): Reloads {
  let loadedAt = now()
  let waiting: readonly string[] = []
  let last: ReloadStatus | undefined

  return {
    loadedAt: () => loadedAt,
    restartRequired: () => waiting,
    last: () => last,
    applied(restartRequired) {
      loadedAt = now()
      waiting = restartRequired
      last = { at: new Date(loadedAt).toISOString(), outcome: 'applied', problems: [], problemCount: 0 }
    },
    refused(error) {
      const { problems = [] } = error as { problems?: readonly ConfigProblem[] }
      last = {
        ...{
          at: new Date(now()).toISOString(),
          outcome: 'refused',
          problemCount: Math.max(1, problems.length),
        },
        problems: problems
          .slice(0, MOST_PROBLEMS)
          .map(({ path, message, line, column }) => ({ path, message, line, column })),
        ...(problems.length === 0 ? { error: describeError(error) } : {}),
      }
    },
  }
}
