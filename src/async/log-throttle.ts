import type { LogFields, Logger } from '../log.ts'
import { type Clock, systemClock } from './clock.ts'

/** Keeps a line that many requests give reason for from being written for each of them. */
export type LogThrottle = {
  /**
   * Counts one reason for the line of `key`. Returns how many there were since the last line, this one included, if a line
   * is due now: at once, and then once a minute.
   */
  count(key: string): number | undefined
  /** How many reasons there were since the last line; undefined when there was none. The next line is due in a minute. */
  take(key: string): number | undefined
  /** The next reason is a new beginning. */
  forget(key: string): void
}

const EVERY_MS = 60_000

/** Makes a throttle that has written no line. Each key takes memory until it is forgotten, so there must be few. */
export function createLogThrottle({ monotonicNow }: Pick<Clock, 'monotonicNow'>): LogThrottle {
  const lines = new Map<string, { quietUntil: number; count: number }>()

  function written(key: string): void {
    lines.set(key, { quietUntil: monotonicNow() + EVERY_MS, count: 0 })
  }

  return {
    count(key) {
      const line = lines.get(key) ?? { quietUntil: Number.NEGATIVE_INFINITY, count: 0 }
      const count = line.count + 1
      if (monotonicNow() < line.quietUntil) {
        lines.set(key, { ...line, count })
        return undefined
      }
      written(key)
      return count
    },
    take(key) {
      const count = lines.get(key)?.count
      if (!count) return undefined
      written(key)
      return count
    },
    forget: (key) => void lines.delete(key),
  }
}

/** A log that writes nothing, for work whose outcome is told otherwise. */
export const silentLog: Logger = { info() {}, warn() {}, error() {} }

const LINE = 'line'

/**
 * Makes a warning for what may happen thousands of times a second: the first is written at once, then each minute how many
 * there were since, with the fields of the last. Unlike `count` above it needs no further reason to write the rest.
 */
export function createThrottledWarning(
  log: Pick<Logger, 'warn'>,
  message: string,
  clock: Pick<Clock, 'monotonicNow' | 'after'> = systemClock,
) {
  const throttle = createLogThrottle(clock)
  let last: LogFields = {}

  function write(count: number | undefined): void {
    if (count === undefined) return
    log.warn({ ...last, count }, message)
    clock.after(EVERY_MS, writeRest).unref()
  }

  function writeRest(): void {
    const count = throttle.take(LINE)
    if (count === undefined) throttle.forget(LINE)
    write(count)
  }

  return function warn(fields: LogFields = {}): void {
    last = fields
    write(throttle.count(LINE))
  }
}
