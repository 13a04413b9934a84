import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RouteConfig } from '../../config/config.ts'
import type { BffSession } from '../../session/bff-session.ts'
import type { AccessToken } from '../access-token.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import { createEventStreams } from '../session-end/event-streams.ts'
import { createLiveConnections } from '../session-end/live-connections.ts'
import { createSessionStreams, type WatchSession } from '../session-end/session-streams.ts'
import { createBufferCollector } from './buffer-collector.ts'
import { Exchange } from './exchange.ts'
import { createUpstreamPool, type UpstreamPool, type UpstreamPoolDeps } from './pool.ts'
import type { OnRejectedToken } from './rejected-token.ts'

/** One request as it goes to its upstream. */
export type OutboundRequest = {
  readonly route: RouteConfig
  /** Path and query, in origin-form. */
  readonly target: string
  /** Flat list of names and values, without `Host` and framing. */
  readonly headers: string[]
  /** The signed-in session it belongs to. */
  readonly session: BffSession | undefined
  /** Ours among the headers, for the route's resource. */
  readonly accessToken?: AccessToken | undefined
  /** Asked when the upstream refuses that token; without it every answer is passed on. */
  readonly onRejectedToken?: OnRejectedToken | undefined
}

/**
 * Sends a request to its upstream and streams the response to the client; resolves when that is over, also when the
 * client left. Rejects with `upstream_unreachable`, `upstream_timeout`, `body_too_large` or `bad_request`: nothing was
 * sent to the client then, unless `res.headersSent`, when its connection has been cut to show the truncation. Rejects
 * also with what `onRejectedToken` rejected with.
 */
export type Send = (req: IncomingMessage, res: ServerResponse, outbound: OutboundRequest) => Promise<void>

/** The connections to all upstreams of one configuration. */
export type Upstreams = {
  readonly send: Send
  /** Ends the answers without an end of their own that a session which ended has open. */
  endSession(session: BffSession['hash']): void
  /** Whether the session has one open. */
  hasSession(session: BffSession['hash']): boolean
  /** Every session that has one. */
  sessions(): BffSession['hash'][]
  /** Ends every answer of a type without an end of its own, and those to come, at shutdown. */
  endEventStreams(): void
  /** Resolves when every request in flight has ended; takes no new ones. */
  close(): Promise<void>
  /** Ends every request in flight. */
  destroy(): Promise<void>
}

/** What the upstreams need; of the look-up and the age of connections, the defaults are right outside tests. */
export type UpstreamsDeps = Pick<UpstreamPoolDeps, 'now' | 'bodyPace' | 'lookup' | 'connectionTtlMs'> & {
  /** Told when an upstream begins to be left alone, and when that ends. */
  readonly observeBreaker: (upstream: string, isOpen: boolean) => void
  /** Asked for each answer that may outlive its session. */
  readonly watch: WatchSession
  readonly responseHeaders: ResponseHeaders
}

/** Opens one connection pool for each distinct upstream, limits and TLS identity among the routes. */
export function createUpstreams(routes: readonly RouteConfig[], deps: UpstreamsDeps): Upstreams {
  const pools = new Map<string, UpstreamPool>()
  const poolOf = new Map<RouteConfig, UpstreamPool>()
  const live = createLiveConnections()
  const streams = createSessionStreams(live, deps.watch)
  const eventStreams = createEventStreams()
  const bodyPassed = createBufferCollector()
  let isClosing = false
  for (const route of routes) {
    const key = poolKey(route)
    const observe = () => observeBreaker(route.upstream)
    const pool =
      pools.get(key) ?? createUpstreamPool(route, { ...deps, streams, eventStreams, bodyPassed, observe })
    pools.set(key, pool)
    poolOf.set(route, pool)
  }

  /** Routes may have breakers of their own for one upstream. */
  function observeBreaker(upstream: string): void {
    // Those that come after these speak for the upstream now.
    if (isClosing) return
    const isOpen = Array.from(poolOf).some(
      ([route, { admission }]) => route.upstream === upstream && admission.isOpen(),
    )
    deps.observeBreaker(upstream, isOpen)
  }

  function send(req: IncomingMessage, res: ServerResponse, outbound: OutboundRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      new Exchange({ req, res, outbound, pool: poolOf.get(outbound.route)!, resolve, reject }).start()
    })
  }

  async function close(): Promise<void> {
    isClosing = true
    await Promise.all(Array.from(pools.values(), (pool) => pool.close()))
  }
  async function destroy(): Promise<void> {
    isClosing = true
    await Promise.all(Array.from(pools.values(), (pool) => pool.destroy()))
  }
  const { hasSession, sessions, endSession } = live
  return { send, hasSession, sessions, endSession, endEventStreams: eventStreams.endAll, close, destroy }
}

/** Routes share a pool unless a client key is involved, which must not serve another route by accident. */
function poolKey({
  id,
  upstream,
  timeout,
  tls,
  http2,
  connections,
  breaker,
  preserveHost,
}: RouteConfig): string {
  const identity = tls && [tls.ca, tls.cert, tls.servername, tls.key && id]
  const limits = [preserveHost, http2, connections, breaker.failures, breaker.pauseMs]
  return JSON.stringify([upstream, timeout.connectMs, identity, limits])
}
