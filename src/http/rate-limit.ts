import type { IncomingMessage } from 'node:http'
import type { RequestHandler } from 'express'
import { createExpiringMap } from '../async/expiring-map.ts'
import type { Config, RateLimit } from '../config/config.ts'
import { BffError } from '../errors.ts'
import { type ClientAddress, clientNetwork } from './server/request-guard.ts'

/** The endpoints whose requests are counted: they use the store or the provider before a user has signed in. */
export type LimitedEndpoint = 'login' | 'callback' | 'logout' | 'frontchannelLogout'
const COUNTED: readonly LimitedEndpoint[] = ['login', 'callback', 'logout', 'frontchannelLogout']
/** The endpoints whose failures are counted. */
export type FailureLimitedEndpoint = Exclude<keyof Config['rateLimits'], LimitedEndpoint>

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
  readonly refused: (endpoint: keyof Config['rateLimits']) => void
}

/** Makes handlers that throw `rate_limited`, before anything else is done, when a client asks more often than it may. */
export function createRateLimits(deps: RateLimitsDeps): RateLimits {
  const { limits, countRequests, clientAddress, nameOf, refused } = deps
  const limitOf = (endpoint: LimitedEndpoint, limit: RateLimit): RequestHandler => {
    const countRequest = countRequests(endpoint, limit)
    return async function limitRate(req, _res, next) {
      const waitMs = await countRequest(nameOf(clientNetwork(clientAddress(req))))
      if (waitMs === 0) return next()
      refused(endpoint)
      throw tooMany(endpoint, waitMs)
    }
  }
  const limited = COUNTED.flatMap((endpoint) => {
    const limit = limits[endpoint]
    return limit ? [[endpoint, limitOf(endpoint, limit)]] : []
  })
  return Object.fromEntries(limited)
}

/** Limits what a client may get wrong at one endpoint. */
export type FailureLimit = {
  /** Throws `rate_limited` while this client has got too much wrong. */
  check(req: IncomingMessage): void
  /** Counts one more failure of this client. Never rejects. */
  failed(req: IncomingMessage): Promise<void>
}

/** Clients that a replica refuses without asking the store: those that failed here last. */
const MAX_REFUSED = 10_000

/**
 * Makes the limit of an endpoint where one client does the work of many users: only what it gets wrong counts, and when
 * that is too much it is refused until the window ends, whatever it sends.
 */
export function createFailureLimit(
  endpoint: FailureLimitedEndpoint,
  { limits, countRequests, clientAddress, nameOf, refused, monotonicNow }: FailureLimitDeps,
): FailureLimit {
  const limit = limits[endpoint]
  if (!limit) return { check() {}, async failed() {} }
  const countFailure = countRequests(endpoint, limit)
  const waiting = createExpiringMap<string, true>({ monotonicNow, max: MAX_REFUSED })
  const clientOf = (req: IncomingMessage) => clientNetwork(clientAddress(req))
  return {
    check(req) {
      const waitMs = waiting.expiresInMs(clientOf(req))
      if (waitMs <= 0) return
      refused(endpoint)
      throw tooMany(endpoint, waitMs)
    },
    async failed(req) {
      const client = clientOf(req)
      const waitMs = await countFailure(nameOf(client))
      if (waitMs > 0) waiting.set(client, true, waitMs)
    },
  }
}

export type FailureLimitDeps = RateLimitsDeps & { readonly monotonicNow: () => number }

function tooMany(endpoint: string, waitMs: number): BffError {
  return new BffError('rate_limited', `too many requests for ${endpoint} from this address`, {
    retryAfterSeconds: Math.ceil(waitMs / 1000),
  })
}
