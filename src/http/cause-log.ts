import { type BffError, describeError, type ErrorCode } from '../errors.ts'
import type { Logger } from '../log.ts'

/** What goes wrong at the provider goes wrong for everybody in the same way. */
const SHARED: ReadonlySet<ErrorCode> = new Set(['provider_rejected', 'provider_unavailable'])
const EVERY_MS = 60_000

/**
 * Tells the log what is behind a problem, by request. A cause that all requests share is told once, and then at most once
 * a minute with their number since: the line of each request has its id and code anyway.
 */
export function createCauseLog({ log, now }: { log: Logger; now: () => number }) {
  const shared = new Map<string, { quietUntil: number; count: number }>()

  function countIfDue(key: string): number | undefined {
    const line = shared.get(key) ?? { quietUntil: Number.NEGATIVE_INFINITY, count: 0 }
    const count = line.count + 1
    const isDue = now() >= line.quietUntil
    shared.set(key, isDue ? { quietUntil: now() + EVERY_MS, count: 0 } : { ...line, count })
    return isDue ? count : undefined
  }

  return function tellCause(error: BffError, requestId: string): void {
    if (!error.cause) return
    const { code } = error
    const err = describeError(error.cause)
    // Names and codes are few; a message may be made of anything.
    const count = SHARED.has(code) ? countIfDue(`${code} ${err.name} ${err.code} ${err.cause}`) : 1
    if (count !== undefined) log.warn({ requestId, code, count, err }, error.message)
  }
}
