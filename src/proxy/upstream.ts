import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import { buildConnector, type Dispatcher, Pool } from 'undici'
import type { RouteConfig, TlsConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { BffSession } from '../session/bff-session.ts'
import type { AccessToken } from './access-token-source.ts'
import type { Dispatch } from './dispatch.ts'
import { Exchange } from './exchange.ts'
import type { HeaderRules } from './headers.ts'
import { createLiveConnections, type LiveConnections } from './live-connections.ts'
import type { OnRejectedToken } from './rejected-token.ts'

/** One request as it goes to its upstream. */
export type OutboundRequest = {
  readonly route: RouteConfig
  /** Path and query, in origin-form. */
  readonly target: string
  /** Flat list of names and values, without `Host` and framing. */
  readonly headers: string[]
  /** For the way back. */
  readonly rules: HeaderRules
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
  /** Ends the event streams of a session that ended. */
  endSession(session: BffSession['hash']): void
  /** Whether the session has a response open that has no end of its own. */
  hasSession(session: BffSession['hash']): boolean
  /** Resolves when every request in flight has ended; takes no new ones. */
  close(): Promise<void>
  /** Ends every request in flight. */
  destroy(): Promise<void>
}

/** Opens one connection pool for each distinct upstream, connect timeout and TLS identity among the routes. */
export function createUpstreams(routes: readonly RouteConfig[]): Upstreams {
  const pools = new Map<string, UpstreamPool>()
  const poolOf = new Map<RouteConfig, UpstreamPool>()
  const live = createLiveConnections()
  for (const route of routes) {
    const key = poolKey(route)
    const pool = pools.get(key) ?? createPool(route, live)
    pools.set(key, pool)
    poolOf.set(route, pool)
  }

  function send(req: IncomingMessage, res: ServerResponse, outbound: OutboundRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      new Exchange({ req, res, outbound, pool: poolOf.get(outbound.route)!, resolve, reject }).start()
    })
  }

  async function close(): Promise<void> {
    await Promise.all(Array.from(pools.values(), ({ dispatcher }) => dispatcher.close()))
  }
  async function destroy(): Promise<void> {
    await Promise.all(Array.from(pools.values(), ({ dispatcher }) => dispatcher.destroy()))
  }
  return { send, hasSession: live.hasSession, endSession: live.endSession, close, destroy }
}

type UpstreamPool = Dispatch & { readonly dispatcher: Dispatcher }

/** Routes share a pool unless a client key is involved, which must not serve another route by accident. */
function poolKey({ id, upstream, timeout, tls }: RouteConfig): string {
  const identity = tls && [tls.ca, tls.cert, tls.servername, tls.key && id]
  return JSON.stringify([upstream, timeout.connectMs, identity])
}

function createPool({ upstream, timeout, tls }: RouteConfig, live: LiveConnections): UpstreamPool {
  const connectTls = tlsConnector(timeout.connectMs, tls)
  let connecting = false
  const connect: buildConnector.connector = (options, callback) => {
    connectTls(
      tls?.servername === undefined ? options : { ...options, servername: tls.servername },
      (...outcome) => {
        connecting = true
        try {
          callback(...outcome)
        } finally {
          connecting = false
        }
      },
    )
  }
  const dispatcher = new Pool(upstream, { connect, allowH2: false, pipelining: 1, maxHeaderSize: 65_536 })

  function start(exchange: Exchange, body: Readable | Buffer | null): void {
    const { req, outbound } = exchange
    const { responseMs, idleMs } = outbound.route.timeout
    dispatcher.dispatch(
      {
        path: outbound.target,
        method: req.method as Dispatcher.HttpMethod,
        headers: outbound.headers,
        body,
        headersTimeout: responseMs,
        bodyTimeout: idleMs,
      },
      exchange as Dispatcher.DispatchHandler,
    )
  }
  const isOpen = () => !dispatcher.closed && !dispatcher.destroyed
  return { dispatcher, live, start, isOpen, isConnecting: () => connecting, failure, isConnectionLost }
}

/** Builds the connector again when the key's file changed. */
function tlsConnector(timeoutMs: number, tls: TlsConfig | undefined): buildConnector.connector {
  const build = (key: string | undefined) =>
    buildConnector({ timeout: timeoutMs, allowH2: false, ca: tls?.ca, cert: tls?.cert, key })
  let key = tls?.key?.reveal()
  let connector = build(key)
  return function connect(options, callback) {
    const current = tls?.key?.reveal()
    if (current !== key) connector = build(current)
    key = current
    connector(options, callback)
  }
}

/** Only the codes are looked at; the cause keeps the rest for the log. */
function failure(error: Error): BffError {
  if (error instanceof BffError) return error
  const isTimeout = codeOf(error) === 'UND_ERR_HEADERS_TIMEOUT' || codeOf(error) === 'UND_ERR_BODY_TIMEOUT'
  if (isTimeout)
    return new BffError('upstream_timeout', 'the upstream did not answer in time', { cause: error })
  return new BffError('upstream_unreachable', 'the upstream gave no usable answer', { cause: error })
}

function isConnectionLost(error: Error): boolean {
  const code = codeOf(error)
  return code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE'
}

function codeOf(error: Error): unknown {
  return (error as Error & { code?: unknown }).code
}
