import type { RequestHandler } from 'express'
import type { Config, RateLimit } from '../config/config.ts'
import { BffError } from '../errors.ts'
import { type ClientAddress, clientNetwork } from './server/request-guard.ts'

/** The endpoints that use the store or the provider before a user has signed in. */
export type LimitedEndpoint = 'login' | 'callback' | 'logout'

/** The endpoints that have a limit, each with the handler that enforces it. */
export type RateLimits = Partial<Record<LimitedEndpoint, RequestHandler>>

export type RateLimitsDeps = {
  /** Absent = no limit on that endpoint. */
  readonly limits: Config['rateLimits']
  /** Makes the counter of one endpoint, which counts one more request of a client: 0 when it may pass, else the ms until the next may. */
  readonly countRequests: (endpoint: string, limit: RateLimit) => (client: string) => Promise<number>
  readonly clientAddress: ClientAddress
  /** The name of a client in the store, which must not know its address. */
  readonly nameOf: (client: string) => string
  readonly refused: (endpoint: LimitedEndpoint) => void
}

/** Makes handlers that throw `rate_limited`, before anything else is done, when a client asks more often than it may. */
export function createRateLimits({
  limits,
  countRequests,
  clientAddress,
  nameOf,
  refused,
}: RateLimitsDeps): RateLimits {
  const limitOf = (endpoint: LimitedEndpoint, limit: RateLimit): RequestHandler => {
    const countRequest = countRequests(endpoint, limit)
    return async function limitRate(req, _res, next) {
      const waitMs = await countRequest(nameOf(clientNetwork(clientAddress(req))))
      if (waitMs === 0) return next()
      refused(endpoint)
      throw new BffError('rate_limited', `too many requests for ${endpoint} from this address`, {
        retryAfterSeconds: Math.ceil(waitMs / 1000),
      })
    }
  }
  const limited = Object.entries(limits) as [LimitedEndpoint, RateLimit][]
  return Object.fromEntries(limited.map(([endpoint, limit]) => [endpoint, limitOf(endpoint, limit)]))
}
