import { getHeapStatistics } from 'node:v8'
import { LRUCache } from 'lru-cache'
import { systemClock } from './clock.ts'

/** A map whose entries end by time, and the one used longest ago by number and bytes. */
export type ExpiringMap<K, V> = {
  /** A living entry, which so becomes the one used last. */
  get(key: K): V | undefined
  /** Ms until the entry ends; 0 when there is none. Being asked is no use. */
  expiresInMs(key: K): number
  /** Puts an entry that lives for `lifeMs`, as the one used last. One that takes more than the whole map may is not kept. */
  set(key: K, value: V, lifeMs: number): void
  /** Replaces the value of a living entry; its end stays. */
  update(key: K, value: V): void
  delete(key: K): void
  /** Removes what has ended; happens by itself every `sweepMs`. */
  sweep(): void
  /** The living entries with the ms that each has left, the one used longest ago first. */
  living(): [key: K, value: V, leftMs: number][]
  /** Entries held, those included that have ended and were not swept yet. */
  size(): number
  clear(): void
}

/** Bounds of one map. Whatever users can make grow has all three: a number, bytes, and an end. */
export type ExpiringMapOptions<K, V> = {
  /** A clock that never goes back, in ms: every life here is relative. */
  readonly monotonicNow: () => number
  /** Most entries. */
  readonly max: number
  /** Most bytes, and what an entry takes; without it, all entries count the same. */
  readonly bytes?: { readonly max: number; readonly of: (value: V, key: K) => number }
  /** How often ended entries are removed that are not asked for; 30 s unless given. */
  readonly sweepMs?: number
  /** Told of an entry that had to go before its time. */
  readonly evicted?: (key: K, value: V) => void
  /** Told of every entry that goes, for whatever reason; not of a value that another takes the place of. */
  readonly removed?: (key: K, value: V) => void
}

type Entry<V> = { readonly value: V; readonly endsAt: number }

const SWEEP_MS = 30_000
/** Requests wait meanwhile: 100,000 at once took 30 ms. */
const SWEPT_AT_ONCE = 5_000
const NEXT_PART_MS = 50

/** While the map holds something, a timer that keeps no process alive sweeps it. */
export function createExpiringMap<K extends {}, V>(options: ExpiringMapOptions<K, V>): ExpiringMap<K, V> {
  const { monotonicNow, max, bytes, evicted, removed, sweepMs = SWEEP_MS } = options
  const sweeper = { isPlanned: false, sweep: sweepAgain }
  // One measure for both bounds: a small entry counts as its share of the number. `max` of lru-cache would take the
  // memory of all entries beforehand.
  const share = bytes ? Math.ceil(bytes.max / max) : 1
  const sizeOf = (value: V, key: K) => (bytes ? Math.max(share, Math.ceil(bytes.of(value, key))) : 1)
  const entries = new LRUCache<K, Entry<V>>({
    maxSize: share * max,
    sizeCalculation: ({ value }, key) => sizeOf(value, key),
    noDisposeOnSet: true,
    dispose({ value, endsAt }, key, reason) {
      if (reason === 'evict' && monotonicNow() < endsAt) evicted?.(key, value)
      removed?.(key, value)
    },
  })

  function living(key: K, entry: Entry<V> | undefined): Entry<V> | undefined {
    if (!entry || monotonicNow() < entry.endsAt) return entry
    entries.delete(key)
    return undefined
  }

  function put(key: K, entry: Entry<V>): void {
    entries.set(key, entry)
    if (!sweeper.isPlanned) planSweep(sweeper, sweepMs)
  }

  function sweepAgain(): void {
    const isDone = sweep(SWEPT_AT_ONCE)
    if (entries.size > 0) planSweep(sweeper, isDone ? sweepMs : Math.min(sweepMs, NEXT_PART_MS))
  }

  /** Returns whether nothing is left that has ended. */
  function sweep(most: number): boolean {
    const now = monotonicNow()
    const ended: K[] = []
    entries.forEach(({ endsAt }, key) => {
      if (now >= endsAt && ended.length < most) ended.push(key)
    })
    // Afterwards: lru-cache does not walk on from an entry that is gone.
    for (const key of ended) entries.delete(key)
    return ended.length < most
  }

  return {
    // Some are asked on the hot path, and nearly always empty.
    get: (key) => (entries.size === 0 ? undefined : living(key, entries.get(key))?.value),
    expiresInMs(key) {
      const entry = living(key, entries.peek(key))
      return entry ? entry.endsAt - monotonicNow() : 0
    },
    set: (key, value, lifeMs) => put(key, { value, endsAt: monotonicNow() + lifeMs }),
    update(key, value) {
      const entry = living(key, entries.peek(key))
      if (entry) put(key, { ...entry, value })
    },
    delete: (key) => void entries.delete(key),
    sweep: () => void sweep(Number.POSITIVE_INFINITY),
    living() {
      const now = monotonicNow()
      const held = [...entries.entries()].reverse()
      return held.flatMap(([key, { value, endsAt }]) =>
        now < endsAt ? [[key, value, endsAt - now] as [K, V, number]] : [],
      )
    },
    size: () => entries.size,
    clear: () => entries.clear(),
  }
}

type Sweeper = { isPlanned: boolean; sweep(): void }

/** Keeps neither the process alive nor a map that is no longer used. */
function planSweep(sweeper: Sweeper, afterMs: number): void {
  sweeper.isPlanned = true
  const held = new WeakRef(sweeper)
  const sweepIfHeld = () => {
    const found = held.deref()
    if (!found) return
    found.isPlanned = false
    found.sweep()
  }
  systemClock.after(afterMs, sweepIfHeld).unref()
}

/** A part of the memory that V8 lets this process have (`--max-old-space-size`, else what the container may), in bytes. */
export function heapShare(part: number): number {
  return Math.floor(getHeapStatistics().heap_size_limit * part)
}

/** What V8 needs for an object, a list or an entry, beside what is in it: an estimate, rather too much. */
const OBJECT_BYTES = 64
const MEMBER_BYTES = 32
const TEXT_BYTES = 24

/**
 * About how much of the heap a value of plain data takes, in bytes. Objects with a life of their own, such as errors and
 * promises, are not looked into.
 */
export function heapBytes(value: unknown): number {
  if (typeof value === 'string') return TEXT_BYTES + textBytes(value)
  if (typeof value !== 'object' || value === null) return 8
  let bytes = OBJECT_BYTES
  if (Array.isArray(value)) {
    // Not by its keys, which are texts: that takes eight times as long.
    for (const member of value) bytes += MEMBER_BYTES + heapBytes(member)
  } else if (value instanceof Map) {
    for (const [key, member] of value) bytes += MEMBER_BYTES + heapBytes(key) + heapBytes(member)
  } else {
    for (const key in value) {
      bytes += MEMBER_BYTES + key.length + heapBytes((value as Record<string, unknown>)[key])
    }
  }
  return bytes
}

/** A short text is not looked at, and counts as one of characters that take two bytes each. */
const textBytes = (text: string) => (text.length < 64 ? 2 * text.length : Buffer.byteLength(text))

/**
 * The same text in memory of its own. A part that was cut out of a longer text keeps all of that alive: a session's key
 * the whole Cookie header that it came in.
 */
export function ownText<Text extends string>(text: Text): Text {
  return Buffer.from(text).toString() as Text
}
