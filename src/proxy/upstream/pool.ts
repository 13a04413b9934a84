import { lookup as systemLookup } from 'node:dns'
import type { LookupFunction, Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { buildConnector, Client, type Dispatcher, Pool } from 'undici'
import type { RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { createAdmission, type NoAnswer, noConnectionInTime } from './admission.ts'
import { endOldConnections } from './connection-age.ts'
import type { Dispatch } from './dispatch.ts'
import type { Exchange } from './exchange.ts'
import { createHttp2Connections, type Dial, HTTP2_STREAMS } from './http2/connections.ts'
import { refusingLinkLocal, serverNameOf } from './lookup.ts'

export type UpstreamPoolDeps = Pick<
  Dispatch,
  'streams' | 'eventStreams' | 'bodyPassed' | 'bodyPace' | 'responseHeaders'
> & {
  /** Any clock in ms. */
  readonly now: () => number
  /** Told at the beginning and the end of being left alone. */
  readonly observe: (isOpen: boolean) => void
  /** How names are resolved; default: as the system does. */
  readonly lookup?: LookupFunction | undefined
  /** How long a connection takes new requests, in ms; default 60 s. */
  readonly connectionTtlMs?: number | undefined
}

/** The connections to one upstream. */
export type UpstreamPool = Dispatch & {
  /** Resolves when every request in flight has ended; takes no new ones. */
  close(): Promise<void>
  /** Ends every request in flight. */
  destroy(): Promise<void>
}

/** A name may mean other addresses by now: pods come and go (a headless service of Kubernetes). */
const CONNECTION_TTL_MS = 60_000

const MAX_HEAD_BYTES = 65_536

/** Opens the connections of the routes that share this one's upstream; undici's door. */
export function createUpstreamPool(route: RouteConfig, deps: UpstreamPoolDeps): UpstreamPool {
  const { upstream, breaker, connections, http2 } = route
  const { now, observe, connectionTtlMs: ttlMs = CONNECTION_TTL_MS } = deps
  const limit = connections === undefined ? undefined : connections * (http2 ? HTTP2_STREAMS : 1)
  const admission = createAdmission({ breaker, permits: limit, now, observe })
  const { isBreaking, ...connect } = createConnect(route, deps.lookup)
  return {
    admission,
    streams: deps.streams,
    eventStreams: deps.eventStreams,
    bodyPassed: deps.bodyPassed,
    bodyPace: deps.bodyPace,
    responseHeaders: deps.responseHeaders,
    isBreaking,
    failure,
    isConnectionLost,
    noAnswer,
    ...(http2
      ? createHttp2Connections(route, { dial: dialer(upstream, connect.connect), ttlMs })
      : createHttp1Connections(route, { ...connect, ttlMs })),
  }
}

type Connections = Pick<UpstreamPool, 'start' | 'isConnecting' | 'isOpen' | 'close' | 'destroy' | 'limitWait'>

/** What undici's client would tell its connector. */
function dialer(upstream: string, connect: buildConnector.connector): Dial {
  const { host, hostname, protocol, port } = new URL(upstream)
  const address = hostname.replace(/^\[|\]$/g, '')
  return (callback) =>
    connect({ host, hostname: address, protocol, port } as buildConnector.Options, (error, socket) =>
      callback(error, socket as Socket | null),
    )
}

function createHttp1Connections(
  { upstream, connections, timeout }: RouteConfig,
  {
    connect,
    newest,
    isConnecting,
    ttlMs,
  }: { connect: buildConnector.connector; newest: () => Socket; isConnecting: () => boolean; ttlMs: number },
): Connections {
  const lone = createLoneConnections(upstream, { connect, allowH2: false, maxHeaderSize: MAX_HEAD_BYTES })
  const dispatcher = new Pool(upstream, {
    connect,
    allowH2: false,
    pipelining: 1,
    maxHeaderSize: MAX_HEAD_BYTES,
    ...(connections === undefined ? {} : { connections }),
  })
  endOldConnections(dispatcher, { newest, ttlMs })

  function start(exchange: Exchange, body: Readable | Buffer | null, isSecondTry: boolean): void {
    const { req, outbound } = exchange
    const { responseMs, idleMs } = outbound.route.timeout
    const through = isSecondTry && !dispatcher.destroyed ? lone : dispatcher
    through.dispatch(
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
  function limitWait(exchange: Exchange): () => void {
    const waitMs = timeout.connectMs + exchange.outbound.route.timeout.responseMs
    const timer = setTimeout(() => exchange.refuse(noConnectionInTime()), waitMs)
    return () => clearTimeout(timer)
  }
  return {
    start,
    limitWait: connections === undefined ? undefined : limitWait,
    isConnecting,
    isOpen: () => !dispatcher.closed && !dispatcher.destroyed,
    // What is under way in the pool may still need a second try.
    close: () => dispatcher.close().then(lone.idle),
    destroy: () => Promise.all([dispatcher.destroy(), lone.destroy()]).then(() => undefined),
  }
}

/** Connections for one request each: those that idle in a pool may all be dead without a word. */
function createLoneConnections(upstream: string, options: Client.Options) {
  const open = new Map<Client, Promise<void>>()
  function dispatch(request: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    const client = new Client(upstream, options)
    client.dispatch(request, handler)
    const closed = client.close().then(() => void open.delete(client))
    open.set(client, closed)
  }
  const idle = async () => void (await Promise.all(open.values()))
  const destroy = () => Promise.all(Array.from(open.keys(), (client) => client.destroy()))
  return { dispatch, idle, destroy }
}

/** Without TLS nothing is negotiated: the upstream must know HTTP/2 (RFC 9113 §3.3). undici's types do not have it yet. */
function priorKnowledge({ upstream, http2 }: RouteConfig): { useH2c?: boolean } {
  return http2 && upstream.startsWith('http:') ? { useH2c: true } : {}
}

function createConnect(route: RouteConfig, lookup: LookupFunction | undefined) {
  const connector = createConnector(route, refusingLinkLocal(lookup ?? (systemLookup as LookupFunction)))
  const { http2 } = route
  // Of the Host in a request undici would make the name to verify.
  const servername = route.tls?.servername ?? (route.preserveHost ? serverNameOf(route.upstream) : undefined)
  const state: { newest?: Socket; isConnecting: boolean; isBreaking: boolean } = {
    isConnecting: false,
    isBreaking: false,
  }

  function handOver(socket: Socket, callback: buildConnector.Callback): void {
    if (http2 && (socket as TLSSocket).alpnProtocol !== 'h2') {
      socket.destroy()
      callback(new Error('the upstream does not speak HTTP/2'), null)
      return
    }
    // Around undici's own listener, which takes a reset for the end of a body that has no other.
    socket.on('error', () => (state.isBreaking = true))
    state.newest = socket
    state.isConnecting = true
    try {
      callback(null, socket)
    } finally {
      state.isConnecting = false
    }
    socket.on('error', () => (state.isBreaking = false))
    if (!http2) allowContinue(socket)
  }
  const connect: buildConnector.connector = (options, callback) => {
    connector(servername === undefined ? options : { ...options, servername }, (...outcome) => {
      const [, socket] = outcome
      if (socket) handOver(socket, callback)
      else callback(...outcome)
    })
  }
  return {
    connect,
    newest: () => state.newest!,
    isConnecting: () => state.isConnecting,
    isBreaking: () => state.isBreaking,
  }
}

type ResponseParser = { onHeadersComplete(status: number, isUpgrade: boolean, isKept: boolean): number }

/**
 * RFC 9110 §15.2.1: `100 Continue` to a request that did not ask for it is passed over. undici has no setting for that
 * and ends the connection; so its parser is told of another interim status, which nobody looks at.
 */
function allowContinue(socket: Socket): void {
  const key = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'parser')
  const parser = key && (socket as unknown as Record<symbol, ResponseParser | null>)[key]
  if (!parser) return
  const { onHeadersComplete } = parser
  parser.onHeadersComplete = (status, isUpgrade, isKept) =>
    onHeadersComplete.call(parser, status === 100 ? 102 : status, isUpgrade, isKept)
}

/** Built again when the key's file changed. */
function createConnector(route: RouteConfig, lookup: LookupFunction): buildConnector.connector {
  const { tls, timeout, http2 } = route
  const build = (key: string | undefined) =>
    buildConnector({
      timeout: timeout.connectMs,
      allowH2: http2,
      preferH2: http2,
      ...priorKnowledge(route),
      ca: tls?.ca,
      cert: tls?.cert,
      key,
      lookup,
    })
  let key = tls?.key?.reveal()
  let connector = build(key)
  return function connect(options, callback) {
    const current = tls?.key?.reveal()
    if (current !== key) connector = build(current)
    key = current
    connector(options, callback)
  }
}

/** undici's codes, ours over HTTP/2, and the system's. */
const HEADERS_TIMEOUTS = new Set<unknown>(['UND_ERR_HEADERS_TIMEOUT', 'HEADERS_TIMEOUT'])
const BODY_TIMEOUTS = new Set<unknown>(['UND_ERR_BODY_TIMEOUT', 'BODY_TIMEOUT'])
const CONNECTION_LOSSES = new Set<unknown>(['UND_ERR_SOCKET', 'CONNECTION_LOST', 'ECONNRESET', 'EPIPE'])

/** Only the codes are looked at; the cause keeps the rest for the log. */
function failure(error: Error): BffError {
  if (error instanceof BffError) return error
  const isTimeout = isHeadersTimeout(error) || BODY_TIMEOUTS.has(codeOf(error))
  if (isTimeout)
    return new BffError('upstream_timeout', 'the upstream did not answer in time', { cause: error })
  return new BffError('upstream_unreachable', 'the upstream gave no usable answer', { cause: error })
}

function isConnectionLost(error: Error): boolean {
  const code = codeOf(error)
  return CONNECTION_LOSSES.has(code)
}

/** What undici finds wrong with a request, or with its own state, before it looks for a connection. */
const NOT_THE_UPSTREAM = new Set<unknown>([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_ABORTED',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
  'CLOSED',
  'GIVEN_UP',
])

function noAnswer(error: Error, connection: 'none' | 'new' | 'used'): NoAnswer | undefined {
  if (error instanceof BffError) return undefined
  if (connection === 'none') return NOT_THE_UPSTREAM.has(codeOf(error)) ? undefined : 'silence'
  if (isHeadersTimeout(error)) return 'silence'
  return connection === 'new' && isConnectionLost(error) ? 'cut' : undefined
}

function isHeadersTimeout(error: Error): boolean {
  return HEADERS_TIMEOUTS.has(codeOf(error))
}

function codeOf(error: Error): unknown {
  return (error as Error & { code?: unknown }).code
}
