import { systemClock, type Timer } from '../async/clock.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'

/** Whether the store has ever worked since the start, and why not. */
export type StoreReadiness = {
  /** Why the store has not worked yet, for the operator and without secrets; undefined once it has. */
  readonly problem: () => string | undefined
  /** Resolves after the first trial. */
  readonly tried: Promise<void>
  /** Stops trying. */
  close(): void
}

export type StoreReadinessDeps = {
  /** Runs every kind of store command once. Rejects with the first one that does not work. */
  readonly tryOut: () => Promise<void>
  readonly log: Logger
}

const TRY_AGAIN_MS = 1_000

/**
 * Tries the store until it has worked once: a replica with a wrong password, or without a right that is needed only at a
 * sign-in, must get no users. What happens later is an outage, which all replicas have at the same time.
 */
export function createStoreReadiness({ tryOut, log }: StoreReadinessDeps): StoreReadiness {
  let problem: string | undefined = 'the store has not been tried yet'
  let told: string | undefined
  let timer: Timer | undefined
  let isClosed = false

  async function attempt(): Promise<void> {
    try {
      await tryOut()
      if (told !== undefined) log.info({ outcome: 'up' }, 'the store works: ready')
      problem = undefined
    } catch (error) {
      problem = reasonOf(error)
      if (problem !== told) {
        const err = describeError(error instanceof Error && error.cause ? error.cause : error)
        // Not an error yet: a replica that starts while the store is away becomes ready by itself.
        log.warn(
          { outcome: 'down', reason: (error as Error).message, err },
          'not ready: the store has not worked yet',
        )
      }
      told = problem
      if (!isClosed) timer = systemClock.after(TRY_AGAIN_MS, attempt).unref()
    }
  }

  return {
    problem: () => problem,
    tried: attempt(),
    close() {
      isClosed = true
      timer?.cancel()
    },
  }
}

/** What did not work, and what the store said to it. */
export function reasonOf(error: unknown): string {
  const { message } = describeError(error)
  const cause = error instanceof Error && error.cause ? `: ${describeError(error.cause).message}` : ''
  return message + cause
}
