/** Keeps a line that many requests give reason for from being written for each of them. */
export type Reminders = {
  /** How often there was reason since the last line with this key, if one is due now: at once, and then once a minute. */
  count(key: string): number | undefined
  /** The next reason is a new beginning. */
  forget(key: string): void
}

const REMIND_EVERY_MS = 60_000

/** Makes an empty memory. The keys are its bound: there must be few. @param monotonicNow ms. */
export function createReminders(monotonicNow: () => number): Reminders {
  const lines = new Map<string, { quietUntil: number; count: number }>()
  return {
    count(key) {
      const line = lines.get(key) ?? { quietUntil: Number.NEGATIVE_INFINITY, count: 0 }
      const count = line.count + 1
      const isDue = monotonicNow() >= line.quietUntil
      lines.set(key, isDue ? { quietUntil: monotonicNow() + REMIND_EVERY_MS, count: 0 } : { ...line, count })
      return isDue ? count : undefined
    },
    forget: (key) => void lines.delete(key),
  }
}
