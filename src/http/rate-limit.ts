import type { RequestHandler } from 'express'
import type { Config, RateLimit } from '../config/config.ts'
import { BffError } from '../errors.ts'
import { type ClientAddress, clientNetwork } from './server/client-address.ts'

/** Those of our endpoints that cost something before anybody has signed in. */
export type LimitedEndpoint = 'login' | 'callback' | 'logout'

/** Counts one more request of a client: 0 when it may pass, else the ms until the next may. */
export type CountRequest = (client: string) => Promise<number>

/** The endpoints that have a limit, each with the handler that enforces it. */
export type RateLimits = Partial<Record<LimitedEndpoint, RequestHandler>>

export type RateLimitsDeps = {
  /** Absent = no limit on that endpoint. */
  readonly limits: Config['rateLimits']
  /** Makes the counter of one endpoint. */
  readonly countRequests: (endpoint: string, limit: RateLimit) => CountRequest
  readonly clientAddress: ClientAddress
  /** What a client is called in the store, which must not know its address. */
  readonly nameOf: (client: string) => string
  readonly refused: (endpoint: LimitedEndpoint) => void
}

/** Makes handlers that answer a client with `rate_limited` when it asks more often than it may, before anything else is done for it. */
export function createRateLimits({
  limits,
  countRequests,
  clientAddress,
  nameOf,
  refused,
}: RateLimitsDeps): RateLimits {
  const limit = (endpoint: LimitedEndpoint, count: CountRequest): RequestHandler =>
    async function limitRate(req, _res, next) {
      const waitMs = await count(nameOf(clientNetwork(clientAddress(req))))
      if (waitMs === 0) return next()
      refused(endpoint)
      throw new BffError('rate_limited', `too many requests for ${endpoint} from this address`, {
        retryAfterSeconds: Math.ceil(waitMs / 1000),
      })
    }
  const limited = Object.entries(limits) as [LimitedEndpoint, RateLimit][]
  return Object.fromEntries(
    limited.map(([endpoint, most]) => [endpoint, limit(endpoint, countRequests(endpoint, most))]),
  )
}
