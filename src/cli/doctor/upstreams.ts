import { isIP } from 'node:net'
import { TLSSocket } from 'node:tls'
import { systemClock } from '../../async/clock.ts'
import type { Config, RouteConfig } from '../../config/config.ts'
import { dialUpstream } from '../../proxy/upstream/pool.ts'
import { certificateEnd } from './certificates.ts'
import { causeOf, type Findings, type Found, fail, type Group, ok, warn } from './finding.ts'

/**
 * Connects to each upstream as the proxy does, and ends the connection. No request is sent: what one does is known to its
 * upstream alone.
 */
export async function checkUpstreams(
  group: Group,
  { config, now }: { readonly config: Config; readonly now: () => number },
): Promise<void> {
  const distinct = new Map<string, RouteConfig[]>()
  for (const route of config.routes) {
    const { upstream, tls, http2, preserveHost } = route
    const key = JSON.stringify([upstream, tls?.ca, tls?.cert, tls?.servername, http2, preserveHost])
    distinct.set(key, [...(distinct.get(key) ?? []), route])
  }
  await Promise.all(
    Array.from(distinct.values(), (routes) =>
      group.check(namesOf(routes), () => upstream(routes[0]!, now), {
        ms: Math.min(10_000, routes[0]!.timeout.connectMs + 1_000),
        lateCure: 'look at firewalls and network policies on the way',
      }),
    ),
  )
}

const MOST_NAMES = 3

function namesOf(routes: readonly RouteConfig[]): string {
  const names = routes.slice(0, MOST_NAMES).map(({ id }) => id)
  return routes.length > MOST_NAMES
    ? `${names.join(', ')} and ${routes.length - MOST_NAMES} more`
    : names.join(', ')
}

async function upstream(route: RouteConfig, now: () => number): Promise<Findings> {
  const startedAt = systemClock.monotonicNow()
  const { upstream: url, resource } = route
  try {
    const socket = await dialUpstream(route)
    const took = `${url} accepts connections (${Math.round(systemClock.monotonicNow() - startedAt)} ms)`
    const notAfter =
      socket instanceof TLSSocket ? Date.parse(socket.getPeerCertificate().valid_to) : undefined
    socket.destroy()
    if (notAfter !== undefined) return [ok(took), certificateEnd(url, { notAfter, now: now() })]
    return isTokenInClear(url, resource)
      ? warn(
          `${took}; access tokens go there without TLS`,
          'use https:// where the network is not yours alone',
        )
      : ok(took)
  } catch (error) {
    return failed(url, error)
  }
}

function failed(url: string, error: unknown): Found {
  const { message, cure } = causeOf(error)
  return fail(`${url}: ${message}`, cure?.replace('tls.', 'routes[].tls.'))
}

/** A name without a dot, or of a cluster, is taken for one's own network. */
function isTokenInClear(url: string, resource: string | undefined): boolean {
  const { protocol, hostname } = new URL(url)
  if (protocol !== 'http:' || resource === undefined || isIP(hostname.replace(/^\[|\]$/g, '')) !== 0)
    return false
  return hostname.includes('.') && !/\.(?:svc|local|internal|localhost)$|\.svc\./.test(hostname)
}
