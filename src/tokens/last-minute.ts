const MINUTE_MS = 60_000
const MAX_HELD = 10_000

/** What was noted within the last minute, by key; bounded. */
export type LastMinute<T> = {
  get(key: string): T | undefined
  set(key: string, value: T): void
  delete(key: string): void
}

/** Makes an empty one. @param now epoch ms. */
export function createLastMinute<T>(now: () => number): LastMinute<T> {
  const notes = new Map<string, { readonly at: number; readonly value: T }>()
  const isOver = (at: number) => now() >= at + MINUTE_MS
  return {
    get(key) {
      // On the hot path, and nearly always empty.
      if (notes.size === 0) return undefined
      const note = notes.get(key)
      return note && !isOver(note.at) ? note.value : undefined
    },
    set(key, value) {
      notes.delete(key)
      // Oldest first, as a Map keeps them: nothing outstays its minute by much.
      for (const [oldest, { at }] of notes) {
        if (notes.size < MAX_HELD && !isOver(at)) break
        notes.delete(oldest)
      }
      notes.set(key, { at: now(), value })
    },
    delete: (key) => void notes.delete(key),
  }
}

/** Whether `at` is less than a minute ago; both in epoch ms. */
export function isWithinMinute(at: number | undefined, now: number): boolean {
  return at !== undefined && now < at + MINUTE_MS
}
