import { createExpiringMap, heapBytes, ownText } from '../async/expiring-map.ts'
import { createRetryAfter } from '../async/retry-after.ts'
import { createSemaphore, mostWaiting } from '../async/semaphore.ts'
import { createSingleFlight, type Flight } from '../async/single-flight.ts'
import { BffError } from '../errors.ts'
import type { Invalidations, SessionHash } from '../store/port.ts'

/** In-process copies of what the store holds of sessions, trusted for a short while. */
export type SessionCache<V> = {
  /** Returns the copy, if there is one to trust now; never waits. */
  peek(key: string): V | undefined
  /** Returns a copy of a session under any key, if there is one to trust now; never waits. */
  peekOf(hash: SessionHash): V | undefined
  /**
   * Returns the copy, or else what `read` gives; concurrent loads of one key share a read. Rejects with store_unavailable
   * while too many reads are waiting.
   *
   * @param hash the session whose change or end makes the copy worthless.
   */
  load(key: string, hash: SessionHash, read: () => Promise<V | undefined>): Promise<V | undefined>
  /** Begins what the next `load` will share, unless there is a copy, or none may be trusted. Never rejects. */
  prefetch(key: string, hash: SessionHash, read: () => Promise<V | undefined>): void
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
  /** A clock that never goes back, in ms: seconds of trust must not become hours because the time of day was set back. */
  readonly monotonicNow: () => number
  /** Ms after which the value itself is worthless, if that is sooner. */
  readonly lifeMs?: (value: V) => number
}

/**
 * Reads that go to the store at a time; the others wait in order of arrival. If thousands went together, each of them, and
 * each command of a refresh, would wait for all, and take longer than the time limit of a command. A part is for sessions
 * that were in use here lately, so that a crowd of others does not keep them out.
 */
const READS_AT_ONCE = { lately: 64, others: 192 }
const WAIT_MS = 1_000
/** About as many as can be read in `WAIT_MS`. */
const MAX_WAITING = mostWaiting(1_000)
const MAX_WAITING_LATELY = Math.floor(MAX_WAITING / 4)
const RETRY_AFTER_SECONDS = 2
/** A session counts as in use for so long after its last read, and for twice as long at most. */
const LATELY_MS = 60_000

/**
 * Makes a bounded cache that is right at sign-out: an invalidation drops the copies of its session, and a read that began
 * before it is not kept. While invalidations cannot reach us, no copy is trusted and none is kept.
 */
export function createSessionCache<V extends {}>(deps: SessionCacheDeps<V>): SessionCache<V> {
  const { invalidations, monotonicNow } = deps
  const copies = createCopies<V>(deps)
  const reads = createSingleFlight<V | undefined, SessionHash>()
  const retryAfter = createRetryAfter({ least: RETRY_AFTER_SECONDS })
  const refusal = () => crowded(retryAfter())
  const ofLately = createSemaphore({
    ...{ permits: READS_AT_ONCE.lately, maxWaiting: MAX_WAITING_LATELY, refusal },
  })
  const ofOthers = createSemaphore({
    ...{ permits: READS_AT_ONCE.others, maxWaiting: MAX_WAITING - MAX_WAITING_LATELY, refusal },
  })
  const inUse = createRecentHashes(deps)

  async function readInTurn(hash: SessionHash, read: () => Promise<V | undefined>): Promise<V | undefined> {
    const permits = inUse.has(hash) && !ofLately.isFull() ? ofLately : ofOthers
    const value = await permits.run(read, WAIT_MS)
    inUse.note(hash, value !== undefined)
    return value
  }

  const peek = (key: string): V | undefined => (invalidations.isLive() ? copies.get(key) : undefined)

  function drop(hash: SessionHash | undefined): void {
    reads.forget(hash)
    copies.drop(hash)
  }

  function load(key: string, hash: SessionHash, read: () => Promise<V | undefined>): Promise<V | undefined> {
    if (!invalidations.isLive()) return readInTurn(hash, read)
    const copy = peek(key)
    if (copy !== undefined) return Promise.resolve(copy)
    const trustedUntil = monotonicNow() + deps.trustedMs
    const readAndKeep = async (flight: Flight) => {
      const value = await readInTurn(hash, read)
      if (value === undefined || flight.isForgotten) return value
      const leftMs = trustedUntil - monotonicNow()
      copies.put(key, { value, hash }, Math.min(leftMs, deps.lifeMs?.(value) ?? leftMs))
      return value
    }
    return reads.share(key, readAndKeep, hash)
  }

  const unsubscribe = invalidations.onInvalidate(drop)
  return {
    peek,
    peekOf: (hash) => (invalidations.isLive() ? copies.anyOf(hash) : undefined),
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

function crowded(retryAfterSeconds: number): BffError {
  return new BffError('store_unavailable', 'too many requests wait for the session store', {
    retryAfterSeconds,
  })
}

/** The sessions of the last minute or two: two sets that take turns, because a time for each would take more memory. */
function createRecentHashes({ monotonicNow, max }: Pick<SessionCacheDeps<object>, 'monotonicNow' | 'max'>) {
  let current = new Set<SessionHash>()
  let before = new Set<SessionHash>()
  let turnsAt = 0

  function turn(): void {
    const now = monotonicNow()
    if (now < turnsAt && current.size < max) return
    before = now < turnsAt + LATELY_MS ? current : new Set()
    current = new Set()
    turnsAt = now + LATELY_MS
  }

  return {
    has(hash: SessionHash): boolean {
      turn()
      return current.has(hash) || before.has(hash)
    },
    note(hash: SessionHash, isThere: boolean): void {
      turn()
      if (isThere) current.add(hash)
      else for (const set of [current, before]) set.delete(hash)
    },
  }
}

type Copy<V> = { readonly value: V; readonly hash: SessionHash }

/** About what a copy takes in the map and in the index of its session. */
const INDEX_BYTES = 500

/** The copies, and which of them belong to a session. */
function createCopies<V extends {}>({ max, maxBytes, trustedMs, monotonicNow }: SessionCacheDeps<V>) {
  const index = createKeyIndex()
  const copies = createExpiringMap<string, Copy<V>>({
    ...{ monotonicNow, max },
    bytes: { max: maxBytes, of: ({ value }, key) => INDEX_BYTES + heapBytes(value) + heapBytes(key) },
    // A copy that is not asked for any more is removed soon after its trust ends.
    sweepMs: Math.max(1_000, trustedMs),
    removed: (key, { hash }) => index.remove(hash, key),
  })
  return {
    get: (key: string) => copies.get(key)?.value,
    anyOf(hash: SessionHash): V | undefined {
      for (const key of index.of(hash)) {
        const copy = copies.get(key)
        if (copy) return copy.value
      }
      return undefined
    },
    size: copies.size,
    put(cookie: string, copy: Copy<V>, lifeMs: number): void {
      const key = ownText(cookie)
      // Before the copy itself: one that is too large to be kept is removed at once.
      index.add(copy.hash, key)
      copies.set(key, copy, lifeMs)
    },
    drop(hash: SessionHash | undefined): void {
      if (hash === undefined) copies.clear()
      else for (const key of index.of(hash)) copies.delete(key)
    },
  }
}

/** The keys of the copies of each session. Nearly all sessions have one key, which is stored as itself: a set takes more memory. */
function createKeyIndex() {
  const keysOf = new Map<SessionHash, string | readonly string[]>()
  const of = (hash: SessionHash): readonly string[] => {
    const keys = keysOf.get(hash)
    return typeof keys === 'string' ? [keys] : (keys ?? [])
  }
  return {
    of,
    add(hash: SessionHash, key: string): void {
      const keys = keysOf.get(hash)
      if (keys === undefined || keys === key) keysOf.set(hash, key)
      else if (!of(hash).includes(key)) keysOf.set(hash, [...of(hash), key])
    },
    remove(hash: SessionHash, key: string): void {
      const left = keysOf.get(hash) === key ? [] : of(hash).filter((one) => one !== key)
      if (left.length === 0) keysOf.delete(hash)
      else keysOf.set(hash, left)
    },
  }
}
