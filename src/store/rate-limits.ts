import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createExpiringMap } from './memory/expiring-map.ts'
import type { CountRequest, RequestLimit } from './port.ts'

/** Counts one request in a store that all replicas share; resolves with the requests of this window and the ms left of it. */
export type CountShared = (key: string, perMs: number) => Promise<readonly [requests: number, leftMs: number]>

/** Keys a process counts for one limit: what a client with a whole IPv6 network can make it hold is then a few MB. */
const MAX_KEYS = 10_000
/** Time a shared count may take; the store's own timeout would be felt twice, here and by the request behind it. */
const SHARED_COUNT_MS = 200
/** After a shared count that failed, how long it is not tried: else every request of an outage would wait for it. */
const PAUSE_MS = 1_000

/** Counts in this process alone, for at most 10,000 keys: of more, the one that began longest ago starts again. */
export function countInProcess(limit: RequestLimit, maxKeys = MAX_KEYS): CountRequest {
  const limiter = new BoundedLimiter(limit, maxKeys)
  return (key) => waitMs(limiter.consume(key))
}

/**
 * Counts where all replicas see it. While that place is away, each process allows half of the limit by itself: nobody
 * waits for a dead store, and it opens no door.
 */
export function countOverReplicas(
  limit: RequestLimit,
  { count, log }: { count: CountShared; log: Logger },
): CountRequest {
  const insured = { ...limit, requests: Math.ceil(limit.requests / 2) }
  const limiter = new RateLimiterRedis({
    ...optionsOf(limit),
    storeClient: sharedClient(limit, reportingOutages(count, log)),
    insuranceLimiter: new BoundedLimiter(insured, MAX_KEYS),
  })
  // The limiter's own list of blocked keys has no bound, and is searched whole for every key above a thousand.
  const refused = createExpiringMap<string, true>({ now: () => performance.now(), max: MAX_KEYS })
  return async function countRequest(key) {
    const leftMs = refused.expiresInMs(key)
    if (leftMs > 0) return Math.ceil(leftMs)
    const wait = await waitMs(limiter.consume(key))
    if (wait > 0) refused.set(key, true, wait)
    return wait
  }
}

/** RateLimiterMemory holds a key for as long as its window lasts, however many there are. */
class BoundedLimiter extends RateLimiterMemory {
  readonly #perMs: number
  readonly #keys: ReturnType<typeof createExpiringMap<string, true>>

  constructor(limit: RequestLimit, max: number) {
    super(optionsOf(limit))
    this.#perMs = limit.perMs
    const evicted = (key: string) => void super.delete(key)
    this.#keys = createExpiringMap({ now: () => performance.now(), max, evicted })
  }

  override consume(key: string): Promise<RateLimiterRes> {
    if (!this.#keys.get(key)) this.#keys.set(key, true, this.#perMs)
    return super.consume(key)
  }
}

function optionsOf({ requests, perMs }: RequestLimit) {
  return { points: requests, duration: perMs / 1000, keyPrefix: '' }
}

/** The client that RateLimiterRedis asks for, over a count of ours: it sends but this one command. */
function sharedClient({ perMs }: RequestLimit, count: CountShared) {
  let pausedUntil = 0
  return {
    async rlflxIncr([key]: readonly [string]): Promise<readonly [number, number]> {
      if (performance.now() < pausedUntil) throw new Error('the shared count failed a moment ago')
      try {
        return await count(key, perMs)
      } catch (error) {
        pausedUntil = performance.now() + PAUSE_MS
        throw error
      }
    },
  }
}

/** One line when the shared count begins to fail and one when it is back: a store may be there, and refuse just this. */
function reportingOutages(count: CountShared, log: Logger): CountShared {
  let isAway = false
  return async (key, perMs) => {
    try {
      const counted = await within(SHARED_COUNT_MS, count(key, perMs))
      if (isAway) log.info({ outcome: 'up' }, 'rate limits are counted over all replicas')
      isAway = false
      return counted
    } catch (error) {
      if (!isAway)
        log.warn(
          { outcome: 'down', err: describeError(error) },
          'rate limits are counted by each replica for itself',
        )
      isAway = true
      throw error
    }
  }
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  const tooLate = Promise.withResolvers<never>()
  const giveUp = () => tooLate.reject(new Error('the shared count takes too long'))
  // After a pause of this process its timers come first: what has arrived meanwhile is read before giving up.
  const timer = setTimeout(() => setImmediate(giveUp), ms)
  try {
    return await Promise.race([work, tooLate.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** The limiter resolves a request that may pass, and rejects one that may not, with what it knows. */
async function waitMs(consumed: Promise<RateLimiterRes>): Promise<number> {
  try {
    await consumed
    return 0
  } catch (refusal) {
    if (refusal instanceof RateLimiterRes) return Math.max(1, refusal.msBeforeNext)
    throw refusal
  }
}
