import type { LogFields, Logger } from '../log.ts'

const SAID_EVERY_MS = 60_000

/**
 * Warns of what may happen thousands of times a second: of the first at once, then each minute of how many there were
 * since, with the fields of the last.
 */
export function createThrottledWarning(log: Pick<Logger, 'warn'>, message: string) {
  let unsaid = 0
  let isQuiet = false
  let last: LogFields = {}

  function say(): void {
    isQuiet = unsaid > 0
    if (!isQuiet) return
    log.warn({ ...last, count: unsaid }, message)
    unsaid = 0
    setTimeout(say, SAID_EVERY_MS).unref()
  }
  return function warn(fields: LogFields = {}): void {
    unsaid += 1
    last = fields
    if (!isQuiet) say()
  }
}
