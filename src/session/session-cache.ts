import { LRUCache } from 'lru-cache'
import type { Invalidations, SessionHash } from '../store/port.ts'

/** Copies of what the store holds, kept in this process and believed for a short while. */
export type BelievedCache<V> = {
  /** The copy, if there is one to believe now; never waits. */
  peek(key: string): V | undefined
  /**
   * The copy, or else what `read` gives; concurrent loads of one key share a read.
   *
   * @param hash the session whose change or end makes the copy worthless.
   */
  load(key: string, hash: SessionHash, read: () => Promise<V | undefined>): Promise<V | undefined>
  /** Drops every copy of one session. */
  drop(hash: SessionHash): void
  /** Number of copies held. */
  readonly size: number
  close(): void
}

export type BelievedCacheDeps<V> = {
  readonly invalidations: Invalidations
  /** How long a copy is believed, in ms from the start of its read. */
  readonly believeMs: number
  readonly max: number
  readonly now: () => number
  /** Epoch ms after which the value itself is worthless, if that is sooner. */
  readonly expiresAt?: (value: V) => number
}

type Copy<V> = { readonly value: V; readonly until: number; readonly hash: SessionHash }

/**
 * A bounded cache that is right at logout: an invalidation drops the copies of its session, and a read that began
 * before it is not kept; while no invalidation could reach us, nothing is believed and nothing kept.
 */
export function createBelievedCache<V extends {}>(deps: BelievedCacheDeps<V>): BelievedCache<V> {
  const { invalidations, now } = deps
  const copies = createCopies<V>(deps.max)
  const readings = createReadings<V>()

  function peek(key: string): V | undefined {
    if (!invalidations.isLive()) return undefined
    const copy = copies.get(key)
    if (copy === undefined) return undefined
    if (now() < copy.until) return copy.value
    copies.delete(key)
    return undefined
  }

  function drop(hash: SessionHash | undefined): void {
    readings.outdate(hash)
    copies.drop(hash)
  }

  const unsubscribe = invalidations.onInvalidate(drop)
  return {
    peek,
    drop,
    load(key, hash, read) {
      if (!invalidations.isLive()) return read()
      const copy = peek(key)
      if (copy !== undefined) return Promise.resolve(copy)
      const believedUntil = now() + deps.believeMs
      return readings.share(key, hash, read, (value) => {
        const until = Math.min(believedUntil, deps.expiresAt?.(value) ?? believedUntil)
        copies.put(key, { value, hash, until })
      })
    },
    get size() {
      return copies.size()
    },
    close() {
      unsubscribe()
      drop(undefined)
    },
  }
}

/** The copies, bounded by number, and which of them belong to a session. */
function createCopies<V extends {}>(max: number) {
  const keysOf = new Map<SessionHash, Set<string>>()
  const copies = new LRUCache<string, Copy<V>>({
    max,
    dispose({ hash }, key) {
      const keys = keysOf.get(hash)
      keys?.delete(key)
      if (keys?.size === 0) keysOf.delete(hash)
    },
    // A copy put in the place of another is no removal: its key stays in the index.
    noDisposeOnSet: true,
  })
  return {
    get: (key: string) => copies.get(key),
    delete: (key: string) => copies.delete(key),
    size: () => copies.size,
    put(key: string, copy: Copy<V>): void {
      copies.set(key, copy)
      const keys = keysOf.get(copy.hash)
      if (keys) keys.add(key)
      else keysOf.set(copy.hash, new Set([key]))
    },
    drop(hash: SessionHash | undefined): void {
      if (hash === undefined) copies.clear()
      else for (const key of [...(keysOf.get(hash) ?? [])]) copies.delete(key)
    },
  }
}

type Reading<V> = { readonly hash: SessionHash; readonly result: Promise<V | undefined>; outdated: boolean }

/** The reads in flight: one per key, shared until an invalidation makes it a read from before. */
function createReadings<V extends {}>() {
  const readings = new Map<string, Reading<V>>()
  return {
    share(
      key: string,
      hash: SessionHash,
      read: () => Promise<V | undefined>,
      keep: (value: V) => void,
    ): Promise<V | undefined> {
      const running = readings.get(key)
      if (running) return running.result
      const result = read().then((value) => {
        if (value !== undefined && !reading.outdated) keep(value)
        return value
      })
      const reading: Reading<V> = { hash, result, outdated: false }
      readings.set(key, reading)
      const finished = () => {
        if (readings.get(key) === reading) readings.delete(key)
      }
      result.then(finished, finished)
      return result
    },
    outdate(hash: SessionHash | undefined): void {
      for (const [key, reading] of readings) {
        if (hash !== undefined && reading.hash !== hash) continue
        reading.outdated = true
        readings.delete(key)
      }
    },
  }
}
