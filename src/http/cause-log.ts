import { type BffError, describeError, type ErrorCode } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createReminders } from '../oidc/reminders.ts'

/** What goes wrong at the provider goes wrong for everybody in the same way. */
const SHARED: ReadonlySet<ErrorCode> = new Set(['provider_rejected', 'provider_unavailable'])

/**
 * Tells the log what is behind a problem, by request. A cause that all requests share is told once, and then at most once
 * a minute with their number since: the line of each request has its id and code anyway.
 */
export function createCauseLog({ log, now }: { log: Logger; now: () => number }) {
  const isDue = createReminders(now)

  return function tellCause(error: BffError, requestId: string): void {
    if (!error.cause) return
    const { code } = error
    const err = describeError(error.cause)
    // Names and codes are few; a message may be made of anything.
    const count = SHARED.has(code) ? isDue.count(`${code} ${err.name} ${err.code} ${err.cause}`) : 1
    if (count !== undefined) log.warn({ requestId, code, count, err }, error.message)
  }
}
