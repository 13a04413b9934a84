import { createExpiringMap, heapBytes, ownText } from '../async/expiring-map.ts'
import { createSingleFlight, type Flight } from '../async/single-flight.ts'
import type { Invalidations, SessionHash } from '../store/port.ts'

/** Copies of what the store holds, kept in this process and trusted for a short while. */
export type SessionCache<V> = {
  /** The copy, if there is one to trust now; never waits. */
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

export type SessionCacheDeps<V> = {
  readonly invalidations: Invalidations
  /** How long a copy is trusted, in ms from the start of its read. */
  readonly trustedMs: number
  /** Most copies, and about the most bytes of the heap that they may take. */
  readonly max: number
  readonly maxBytes: number
  /** A clock that never goes back, in ms: one that is set back must not make seconds of trust into hours. */
  readonly monotonicNow: () => number
  /** Ms after which the value itself is worthless, if that is sooner. */
  readonly lifeMs?: (value: V) => number
}

/**
 * A bounded cache that is right at sign-out: an invalidation drops the copies of its session, and a read that began
 * before it is not kept; while no invalidation could reach us, nothing is trusted and nothing kept.
 */
export function createSessionCache<V extends {}>(deps: SessionCacheDeps<V>): SessionCache<V> {
  const { invalidations, monotonicNow } = deps
  const copies = createCopies<V>(deps)
  const reads = createSingleFlight<V | undefined, SessionHash>()

  const peek = (key: string): V | undefined => (invalidations.isLive() ? copies.get(key) : undefined)

  function drop(hash: SessionHash | undefined): void {
    reads.forget(hash)
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
      const trustedUntil = monotonicNow() + deps.trustedMs
      const readAndKeep = async (flight: Flight) => {
        const value = await read()
        if (value === undefined || flight.isForgotten) return value
        const leftMs = trustedUntil - monotonicNow()
        copies.put(key, { value, hash }, Math.min(leftMs, deps.lifeMs?.(value) ?? leftMs))
        return value
      }
      return reads.share(key, readAndKeep, hash)
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

type Copy<V> = { readonly value: V; readonly hash: SessionHash }

/** The places of a copy in the map and in the index of its session. */
const INDEX_BYTES = 500

/** The copies, and which of them belong to a session. */
function createCopies<V extends {}>({ max, maxBytes, trustedMs, monotonicNow }: SessionCacheDeps<V>) {
  const keysOf = new Map<SessionHash, Set<string>>()
  const copies = createExpiringMap<string, Copy<V>>({
    ...{ monotonicNow, max },
    bytes: { max: maxBytes, of: ({ value }, key) => INDEX_BYTES + heapBytes(value) + heapBytes(key) },
    // A copy that is no longer asked for is removed soon after it is no longer trusted.
    sweepMs: Math.max(1_000, trustedMs),
    removed(key, { hash }) {
      const keys = keysOf.get(hash)
      keys?.delete(key)
      if (keys?.size === 0) keysOf.delete(hash)
    },
  })
  return {
    get: (key: string) => copies.get(key)?.value,
    size: copies.size,
    put(cookie: string, copy: Copy<V>, lifeMs: number): void {
      const key = ownText(cookie)
      // Before the copy itself: one that is too large to be kept is removed at once.
      const keys = keysOf.get(copy.hash)
      if (keys) keys.add(key)
      else keysOf.set(copy.hash, new Set([key]))
      copies.set(key, copy, lifeMs)
    },
    drop(hash: SessionHash | undefined): void {
      if (hash === undefined) copies.clear()
      else for (const key of [...(keysOf.get(hash) ?? [])]) copies.delete(key)
    },
  }
}
