import { createCircuitBreaker } from '../async/circuit-breaker.ts'
import { systemClock } from '../async/clock.ts'
import { createDeadline } from '../async/deadline.ts'
import { createExpiringMap } from '../async/expiring-map.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { CountRequest, RequestLimit } from './port.ts'

/** Counts one request in a store that all replicas share; resolves with the requests of this window and the ms left of it. */
export type CountShared = (key: string, perMs: number) => Promise<readonly [requests: number, leftMs: number]>

/** Keys that a process counts for one limit: what a client with a whole IPv6 network can make it hold is then a few MB. */
const MAX_KEYS = 10_000
/** Time a shared count may take: the store's own timeout would be felt twice, here and by the request behind it. */
const SHARED_COUNT_MS = 200
/** Time without another shared count after one that failed, so that the requests of an outage do not wait for it. */
const OPEN_MS = 1_000

const { monotonicNow } = systemClock

/** Counts in this process alone, for at most 10,000 keys: of more, the one that asked longest ago starts again. */
export function countInProcess({ requests, perMs }: RequestLimit, maxKeys = MAX_KEYS): CountRequest {
  const counts = createExpiringMap<string, { requests: number }>({ monotonicNow, max: maxKeys })
  return async function countRequest(key) {
    const counted = counts.get(key)
    if (!counted) counts.set(key, { requests: 1 }, perMs)
    else counted.requests += 1
    return (counted?.requests ?? 1) > requests ? Math.ceil(counts.expiresInMs(key)) : 0
  }
}

/**
 * Counts where all replicas see it. While the shared count fails, each process allows half of the limit by itself: a
 * request does not wait for a store that is away, and an outage lifts no limit. A client that is refused is answered
 * from memory until its window ends, and costs no command.
 */
export function countOverReplicas(
  limit: RequestLimit,
  { count, log }: { count: CountShared; log: Logger },
): CountRequest {
  const countAlone = countInProcess({ ...limit, requests: Math.ceil(limit.requests / 2) })
  const countTogether = countShared(limit, { count, log })
  const refused = createExpiringMap<string, true>({ monotonicNow, max: MAX_KEYS })
  return async function countRequest(key) {
    const refusedForMs = refused.expiresInMs(key)
    if (refusedForMs > 0) return Math.ceil(refusedForMs)
    const waitMs = (await countTogether(key)) ?? (await countAlone(key))
    if (waitMs > 0) refused.set(key, true, waitMs)
    return waitMs
  }
}

/** Resolves with undefined when the shared count failed, or did so a moment ago; the log is told when that begins and when it ends. */
function countShared({ requests, perMs }: RequestLimit, { count, log }: { count: CountShared; log: Logger }) {
  const deadline = createDeadline(SHARED_COUNT_MS, () => new Error('the shared count takes too long'))
  let failure: unknown
  const circuit = createCircuitBreaker({
    ...{ failures: 1, openMs: () => OPEN_MS, now: monotonicNow },
    observe(change) {
      const err = describeError(failure)
      if (change === 'opened')
        log.warn({ outcome: 'down', err }, 'rate limits are counted by each replica for itself')
      if (change === 'closed') log.info({ outcome: 'up' }, 'rate limits are counted over all replicas')
    },
  })
  return async function countTogether(key: string): Promise<number | undefined> {
    const period = circuit.enter()
    if (period === undefined) return undefined
    try {
      const [counted, leftMs] = await deadline.within(() => count(key, perMs))
      circuit.succeeded()
      return counted > requests ? Math.max(1, leftMs) : 0
    } catch (error) {
      failure = error
      circuit.failed(period)
      return undefined
    } finally {
      circuit.ended(period)
    }
  }
}
