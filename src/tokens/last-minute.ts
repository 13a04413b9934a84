import { createExpiringMap, heapShare } from '../async/expiring-map.ts'

const MINUTE_MS = 60_000
const MAX_HELD = 10_000
/** The part of the heap that one of these may take. */
const SHARE = 1 / 64

/** What was noted within the last minute, by key; bounded. */
export type LastMinute<T> = {
  get(key: string): T | undefined
  set(key: string, value: T): void
  delete(key: string): void
}

/** Makes an empty one. @param monotonicNow ms. @param bytesOf about what a note takes. */
export function createLastMinute<T>(
  monotonicNow: () => number,
  bytesOf: (value: T) => number,
): LastMinute<T> {
  const bytes = { max: heapShare(SHARE), of: bytesOf }
  const notes = createExpiringMap<string, T>({ monotonicNow, max: MAX_HELD, bytes })
  return {
    // On the hot path, and nearly always empty.
    get: (key) => (notes.size() === 0 ? undefined : notes.get(key)),
    set: (key, value) => notes.set(key, value, MINUTE_MS),
    delete: notes.delete,
  }
}

/**
 * Whether `at`, a time of day that another replica may have written, is less than a minute from now; both in epoch ms. A
 * clock that was ahead must not make a minute of an hour.
 */
export function isWithinMinute(at: number | undefined, now: number): boolean {
  return at !== undefined && Math.abs(now - at) < MINUTE_MS
}
