import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import { createDeadline } from '../async/deadline.ts'
import { createExpiringMap } from '../async/expiring-map.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { CountRequest, RequestLimit } from './port.ts'

/** Counts one request in a store that all replicas share; resolves with the requests of this window and the ms left of it. */
export type CountShared = (key: string, perMs: number) => Promise<readonly [requests: number, leftMs: number]>

/** Keys a process counts for one limit: what a client with a whole IPv6 network can make it hold is then a few MB. */
const MAX_KEYS = 10_000
/** Time a shared count may take; the store's own timeout would be felt twice, here and by the request behind it. */
const SHARED_COUNT_MS = 200
/** After a shared count that failed, how long it is not tried: else every request of an outage would wait for it. */
const PAUSE_MS = 1_000

/** Counts in this process alone, for at most 10,000 keys: of more, the one that asked longest ago starts again. */
export function countInProcess(limit: RequestLimit, maxKeys = MAX_KEYS): CountRequest {
  const limiter = limiterOver(limit, localCount(maxKeys))
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
  const limiter = limiterOver(
    limit,
    pausing(reportingOutages(count, log)),
    limiterOver(insured, localCount(MAX_KEYS)),
  )
  // The limiter's own list of blocked keys has no bound, and is searched whole for every key above a thousand.
  const refused = createExpiringMap<string, true>({ monotonicNow, max: MAX_KEYS })
  return async function countRequest(key) {
    const leftMs = refused.expiresInMs(key)
    if (leftMs > 0) return Math.ceil(leftMs)
    const wait = await waitMs(limiter.consume(key))
    if (wait > 0) refused.set(key, true, wait)
    return wait
  }
}

const monotonicNow = () => performance.now()

/** One limiter for every place to count in: RateLimiterMemory goes by the time of day, and has no bound. */
function limiterOver(limit: RequestLimit, count: CountShared, insuranceLimiter?: RateLimiterRedis) {
  return new RateLimiterRedis({
    ...{ points: limit.requests, duration: limit.perMs / 1000, keyPrefix: '' },
    // The client that RateLimiterRedis asks for, over a count of ours: it sends but this one command.
    storeClient: { rlflxIncr: ([key]: readonly [string]) => count(key, limit.perMs) },
    ...(insuranceLimiter ? { insuranceLimiter } : {}),
  })
}

/** Counts in a map of this process. */
function localCount(maxKeys: number): CountShared {
  const counts = createExpiringMap<string, { requests: number }>({ monotonicNow, max: maxKeys })
  return async (key, perMs) => {
    const counted = counts.get(key)
    if (counted) return [++counted.requests, Math.ceil(counts.expiresInMs(key))]
    counts.set(key, { requests: 1 }, perMs)
    return [1, perMs]
  }
}

/** Does not try again for a second what has failed. */
function pausing(count: CountShared): CountShared {
  let pausedUntil = 0
  return async (key, perMs) => {
    if (monotonicNow() < pausedUntil) throw new Error('the shared count failed a moment ago')
    try {
      return await count(key, perMs)
    } catch (error) {
      pausedUntil = monotonicNow() + PAUSE_MS
      throw error
    }
  }
}

/** One line when the shared count begins to fail and one when it is back: a store may be there, and refuse just this. */
function reportingOutages(count: CountShared, log: Logger): CountShared {
  let isAway = false
  const deadline = createDeadline(SHARED_COUNT_MS, () => new Error('the shared count takes too long'))
  return async (key, perMs) => {
    try {
      const counted = await deadline.within(() => count(key, perMs))
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
