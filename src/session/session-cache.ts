import { createExpiringMap, heapBytes, ownText } from '../async/expiring-map.ts'
import { createSingleFlight, type Flight } from '../async/single-flight.ts'
import type { Invalidations, SessionHash } from '../store/port.ts'

/** In-process copies of what the store holds of sessions, trusted for a short while. */
export type SessionCache<V> = {
  /** Returns the copy, if there is one to trust now; never waits. */
  peek(key: string): V | undefined
  /** Returns a copy of a session under any key, if there is one to trust now; never waits. */
  peekOf(hash: SessionHash): V | undefined
  /**
   * Returns the copy, or else what `read` gives; concurrent loads of one key share a read.
   *
   * @param hash the session whose change or end makes the copy worthless.
   */
  load(key: string, hash: SessionHash, read: ReadAgain<V>): Promise<V | undefined>
  /** Begins what the next `load` will share, unless there is a copy, or none may be trusted. Never rejects. */
  prefetch(key: string, hash: SessionHash, read: ReadAgain<V>): void
  /** Drops every copy of one session. */
  drop(hash: SessionHash): void
  /** Number of copies held, trusted or not. */
  readonly size: number
  close(): void
}

/**
 * Reads a value from the store. `before` is what it gave when it was last asked: good only where the store says now that
 * the text which that was opened from is still the same (`recordDigest`).
 */
export type ReadAgain<V> = (before?: V) => Promise<V | undefined>

export type SessionCacheDeps<V> = {
  readonly invalidations: Invalidations
  /** How long a copy is trusted, in ms from the start of its read. */
  readonly trustedMs: number
  /** How long it is held for the next read to compare with, in ms from the start of its own; a minute unless given. */
  readonly heldMs?: number
  /** Most copies, and about the most bytes of the heap that they may take. */
  readonly max: number
  readonly maxBytes: number
  /** A clock that never goes back, in ms: seconds of trust must not become hours because the time of day was set back. */
  readonly monotonicNow: () => number
  /** Ms after which the value itself is worthless, if that is sooner. */
  readonly lifeMs?: (value: V) => number
}

/**
 * Makes a bounded cache that is right at sign-out: an invalidation drops the copies of its session, and a read that began
 * before it is not kept. While invalidations cannot reach us, no copy is trusted and none is kept.
 */
export function createSessionCache<V extends {}>(deps: SessionCacheDeps<V>): SessionCache<V> {
  const { invalidations, monotonicNow } = deps
  const copies = createCopies<V>(deps)
  const reads = createSingleFlight<V | undefined, SessionHash>()

  const peek = (key: string): V | undefined => (invalidations.isLive() ? copies.trusted(key) : undefined)

  function drop(hash: SessionHash | undefined): void {
    reads.forget(hash)
    copies.drop(hash)
  }

  function load(key: string, hash: SessionHash, read: ReadAgain<V>): Promise<V | undefined> {
    if (!invalidations.isLive()) return read()
    const copy = peek(key)
    if (copy !== undefined) return Promise.resolve(copy)
    const startedAt = monotonicNow()
    const readAndKeep = async (flight: Flight) => {
      const value = await read(copies.held(key))
      if (flight.isForgotten) return value
      if (value === undefined) copies.delete(key)
      else copies.put(key, { value, hash }, startedAt)
      return value
    }
    return reads.share(key, readAndKeep, hash)
  }

  const unsubscribe = invalidations.onInvalidate(drop)
  return {
    peek,
    peekOf: (hash) => (invalidations.isLive() ? copies.trustedOf(hash) : undefined),
    load,
    prefetch(key, hash, read) {
      // Without trust the read would be shared with no one.
      if (invalidations.isLive()) load(key, hash, read).catch(() => undefined)
    },
    drop,
    get size() {
      return copies.size()
    },
    close() {
      unsubscribe()
      drop(undefined)
    },
  }
}

type Copy<V> = { readonly value: V; readonly hash: SessionHash; readonly trustedUntil: number }

/** A user who works asks more often. */
const HELD_MS = 60_000
/** About what a copy takes in the map and in the index of its session. */
const INDEX_BYTES = 500

/** The copies, and which of them belong to a session. */
function createCopies<V extends {}>(deps: SessionCacheDeps<V>) {
  const { max, maxBytes, trustedMs, heldMs = HELD_MS, lifeMs, monotonicNow } = deps
  const keysOf = new Map<SessionHash, Set<string>>()
  const copies = createExpiringMap<string, Copy<V>>({
    ...{ monotonicNow, max },
    bytes: { max: maxBytes, of: ({ value }, key) => INDEX_BYTES + heapBytes(value) + heapBytes(key) },
    // A copy that is not asked for any more is removed soon after its time.
    sweepMs: Math.max(1_000, trustedMs),
    removed(key, { hash }) {
      const keys = keysOf.get(hash)
      keys?.delete(key)
      if (keys?.size === 0) keysOf.delete(hash)
    },
  })

  function trusted(key: string): V | undefined {
    const copy = copies.get(key)
    return copy && monotonicNow() < copy.trustedUntil ? copy.value : undefined
  }

  return {
    trusted,
    trustedOf(hash: SessionHash): V | undefined {
      for (const key of keysOf.get(hash) ?? []) {
        const value = trusted(key)
        if (value !== undefined) return value
      }
      return undefined
    },
    held: (key: string) => copies.get(key)?.value,
    size: copies.size,
    put(cookie: string, { value, hash }: Pick<Copy<V>, 'value' | 'hash'>, readAt: number): void {
      const key = ownText(cookie)
      const now = monotonicNow()
      const endsAt = now + (lifeMs?.(value) ?? Number.POSITIVE_INFINITY)
      // Before the copy itself: one that is too large to be kept is removed at once.
      const keys = keysOf.get(hash)
      if (keys) keys.add(key)
      else keysOf.set(hash, new Set([key]))
      const trustedUntil = Math.min(readAt + trustedMs, endsAt)
      copies.set(key, { value, hash, trustedUntil }, Math.min(readAt + heldMs, endsAt) - now)
    },
    delete: copies.delete,
    drop(hash: SessionHash | undefined): void {
      if (hash === undefined) copies.clear()
      else for (const key of [...(keysOf.get(hash) ?? [])]) copies.delete(key)
    },
  }
}
