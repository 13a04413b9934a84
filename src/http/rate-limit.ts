import { isIPv6 } from 'node:net'
import type { RequestHandler } from 'express'
import { BffError } from '../errors.ts'
import type { ClientAddress } from './client-address.ts'

/** Those of our endpoints that cost something before anybody has signed in. */
export type LimitedEndpoint = 'login' | 'callback' | 'logout'

/** Counts one more request of a client: 0 when it may pass, else the ms until the next may. */
export type CountRequest = (client: string) => Promise<number>

/** The endpoints that have a limit, each with the handler that enforces it. */
export type RateLimits = Partial<Record<LimitedEndpoint, RequestHandler>>

export type RateLimitsDeps = {
  /** Absent = no limit on that endpoint. */
  readonly counts: Partial<Record<LimitedEndpoint, CountRequest>>
  readonly clientAddress: ClientAddress
  /** What a client is called in the store, which must not know its address. */
  readonly nameOf: (client: string) => string
  readonly refused: (endpoint: LimitedEndpoint) => void
}

/** Makes handlers that answer a client with `rate_limited` when it asks more often than it may, before anything else is done for it. */
export function createRateLimits({ counts, clientAddress, nameOf, refused }: RateLimitsDeps): RateLimits {
  const limit = (endpoint: LimitedEndpoint, count: CountRequest): RequestHandler =>
    async function limitRate(req, _res, next) {
      const waitMs = await count(nameOf(clientNetwork(clientAddress(req))))
      if (waitMs === 0) return next()
      refused(endpoint)
      throw new BffError('rate_limited', `too many requests for ${endpoint} from this address`, {
        retryAfterSeconds: Math.ceil(waitMs / 1000),
      })
    }
  const limited = Object.entries(counts) as [LimitedEndpoint, CountRequest][]
  return Object.fromEntries(limited.map(([endpoint, count]) => [endpoint, limit(endpoint, count)]))
}

/**
 * Who counts as one client: an IPv4 address, or the /64 of an IPv6 address, because whoever has one address of such a
 * network has them all (RFC 6177 §2). Anything else is one client by its text.
 */
export function clientNetwork(address: string): string {
  // A zone says which interface of ours it came by, and nothing about the client.
  const [withoutZone = ''] = address.split('%', 1)
  if (!isIPv6(withoutZone)) return address
  const groups = ipv6Groups(withoutZone)
  const [a = 0, b = 0] = groups.slice(6)
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  if (isMapped) return [a >> 8, a & 255, b >> 8, b & 255].join('.')
  const prefix = groups.slice(0, 4).map((group) => group.toString(16))
  return `${prefix.join(':')}::/64`
}

/** The eight groups of an IPv6 address, in whichever of its spellings. */
function ipv6Groups(address: string): number[] {
  // The host of a URL is in hexadecimal, with at most one `::` (WHATWG URL, IPv6 serializer).
  const [before = '', after = ''] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const [head, tail] = [groupsIn(before), groupsIn(after)]
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

function groupsIn(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
}
