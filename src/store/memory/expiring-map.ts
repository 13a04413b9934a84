/** A map whose entries end by time, and the longest unset one by number. */
export type ExpiringMap<K, V> = {
  get(key: K): V | undefined
  /** Ms until the entry ends; 0 when there is none. */
  expiresInMs(key: K): number
  /** Puts an entry that lives for `lifeMs`, as the youngest. */
  set(key: K, value: V, lifeMs: number): void
  /** Replaces the value of a living entry; its age and end stay. */
  update(key: K, value: V): void
  delete(key: K): void
  /** Removes what has ended. */
  sweep(): void
  /** Entries held, those included that have ended and were not swept yet. */
  size(): number
  clear(): void
}

type Entry<V> = { value: V; readonly expiresAt: number }

/** Makes a map of at most `max` entries; `evicted` hears of an entry that had to go before its time. */
export function createExpiringMap<K, V>(deps: {
  readonly now: () => number
  readonly max: number
  readonly evicted?: (key: K) => void
}): ExpiringMap<K, V> {
  const { now, max, evicted } = deps
  const entries = new Map<K, Entry<V>>()

  function living(key: K): Entry<V> | undefined {
    const entry = entries.get(key)
    if (!entry || now() < entry.expiresAt) return entry
    entries.delete(key)
    return undefined
  }

  function evictOldest(): void {
    // A Map iterates in the order of insertion.
    const oldest = entries.keys().next()
    if (oldest.done) return
    const alive = living(oldest.value) !== undefined
    entries.delete(oldest.value)
    if (alive) evicted?.(oldest.value)
  }

  return {
    get: (key) => living(key)?.value,
    expiresInMs: (key) => (living(key)?.expiresAt ?? now()) - now(),
    set(key, value, lifeMs) {
      entries.delete(key)
      if (entries.size >= max) evictOldest()
      entries.set(key, { value, expiresAt: now() + lifeMs })
    },
    update(key, value) {
      const entry = living(key)
      if (entry) entry.value = value
    },
    delete: (key) => entries.delete(key),
    sweep() {
      for (const key of entries.keys()) living(key)
    },
    size: () => entries.size,
    clear: () => entries.clear(),
  }
}
