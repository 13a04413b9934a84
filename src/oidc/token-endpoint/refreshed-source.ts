import { singleFlight } from '../../async/single-flight.ts'

const LIFE_MS = 3_600_000
const RETRY_MIN_MS = 500
const RETRY_MAX_MS = 30_000

/**
 * Loads a value on first use and again every hour. Once loaded it is always there: a later failure leaves the last
 * good one in use. Failures are repeated to callers for 0.5 s, doubling to 30 s, before the next attempt.
 */
export function createRefreshedSource<T>(
  load: () => Promise<T>,
  monotonicNow: () => number,
): () => Promise<T> {
  let current: { value: T; until: number } | undefined
  let failed: { error: unknown; until: number; waitMs: number } | undefined

  const loadOnce = singleFlight(async () => {
    try {
      const value = await load()
      current = { value, until: monotonicNow() + LIFE_MS }
      failed = undefined
      return value
    } catch (error) {
      const waitMs = failed ? Math.min(failed.waitMs * 2, RETRY_MAX_MS) : RETRY_MIN_MS
      failed = { error, until: monotonicNow() + waitMs, waitMs }
      throw error
    }
  })

  return async function refreshedValue() {
    const isBackingOff = failed !== undefined && monotonicNow() < failed.until
    if (current) {
      if (monotonicNow() >= current.until && !isBackingOff) {
        loadOnce().catch(() => undefined)
      }
      return current.value
    }
    if (isBackingOff) throw failed?.error
    return loadOnce()
  }
}
