import { lookup as systemLookup } from 'node:dns'
import type { EventEmitter } from 'node:events'
import type { LookupFunction, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { buildConnector, Client, Pool, type Dispatcher as UndiciDispatcher } from 'undici'
import { type CircuitPeriod, createCircuitBreaker } from '../../async/circuit-breaker.ts'
import type { Clock } from '../../async/clock.ts'
import { createSemaphore, type Semaphore } from '../../async/semaphore.ts'
import type { RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import {
  type Dispatcher,
  noConnectionInTime,
  type ResponseHandler,
  type UpstreamRequest,
} from './dispatcher.ts'
import { createHttp2Connections, type Dial } from './http2/connections.ts'
import { refusingLinkLocal, serverNameOf } from './lookup.ts'
import { noteBreaks, readResponses } from './undocumented.ts'

/** The defaults are right outside tests. */
export type DispatcherOptions = {
  /** How names are resolved; as the system does unless given. */
  readonly lookup?: LookupFunction | undefined
  /** How long a connection takes new requests, in ms; 60 s unless given. */
  readonly connectionTtlMs?: number | undefined
  readonly clock: Clock
}

/** A name may mean other addresses by now: pods come and go (a headless service of Kubernetes). */
const CONNECTION_TTL_MS = 60_000

const MAX_HEAD_BYTES = 65_536

/** Makes the connections of the routes that share this one's upstream. The only file that knows undici. */
export function createDispatcher(
  route: RouteConfig,
  { lookup, connectionTtlMs: ttlMs = CONNECTION_TTL_MS, clock }: DispatcherOptions,
): Dispatcher {
  const connect = createConnect(route, lookup)
  return route.http2
    ? createHttp2Connections(route, { dial: dialer(route.upstream, connect.connect), ttlMs, clock })
    : createHttp1Pool(route, { ...connect, ttlMs, clock })
}

/** What undici's client would tell its connector. */
function dialer(upstream: string, connect: buildConnector.connector): Dial {
  const { host, hostname, protocol, port } = new URL(upstream)
  const address = hostname.replace(/^\[|\]$/g, '')
  return (callback) =>
    connect({ host, hostname: address, protocol, port } as buildConnector.Options, (error, socket) =>
      callback(error, socket as Socket | null),
    )
}

/**
 * Opens one connection as requests of this route get theirs: name, addresses, TLS and HTTP version are those of the
 * proxy. Nothing is sent on it; the caller ends it. Rejects with the error of the connection.
 */
export function dialUpstream(route: RouteConfig, lookup?: LookupFunction): Promise<Socket> {
  const dial = dialer(route.upstream, createConnect(route, lookup).connect)
  return new Promise((resolve, reject) => {
    dial((error, socket) => (socket ? resolve(socket) : reject(error ?? noConnectionInTime())))
  })
}

function createHttp1Pool(
  { upstream, connections }: RouteConfig,
  {
    connect,
    newest,
    isConnecting,
    isBreaking,
    ...age
  }: ReturnType<typeof createConnect> & {
    ttlMs: number
    clock: Clock
  },
): Dispatcher {
  const lone = createLoneConnections(upstream, { connect, allowH2: false, maxHeaderSize: MAX_HEAD_BYTES })
  const pool = new Pool(upstream, {
    connect,
    allowH2: false,
    pipelining: 1,
    maxHeaderSize: MAX_HEAD_BYTES,
    ...(connections === undefined ? {} : { connections }),
  })
  endOldConnections(pool, { newest, ...age })

  function dispatch(request: UpstreamRequest, handler: ResponseHandler, isSecondTry: boolean): void {
    const through = isSecondTry && !pool.destroyed ? lone : pool
    through.dispatch(request as UndiciDispatcher.DispatchOptions, handler as UndiciDispatcher.DispatchHandler)
  }
  return {
    dispatch,
    isQueueUntimed: connections !== undefined,
    isConnecting,
    isBreaking,
    isOpen: () => !pool.closed && !pool.destroyed,
    // A request in flight in the pool may still need a second try.
    close: () => pool.close().then(lone.idle),
    destroy: () => Promise.all([pool.destroy(), lone.destroy()]).then(() => undefined),
  }
}

/** One client of a pool, which dials again when its connection has ended. `size`: requests that it has or waits to send. */
type PooledClient = EventEmitter & { readonly stats: { readonly size: number } }

/**
 * Ends each connection that is older than `ttlMs` as soon as it has nothing to do. `newest` is the socket of the
 * connection that the pool just told of.
 */
function endOldConnections(
  pool: Pool,
  { newest, ttlMs, clock }: { newest: () => Socket; ttlMs: number; clock: Clock },
): void {
  pool.on('connect', (_origin, targets) => {
    const client = targets.at(-1) as unknown as PooledClient
    const socket = newest()
    const endIfIdle = () => void (client.stats.size === 0 && socket.destroy())
    const timer = clock.after(ttlMs, () => {
      // First among the listeners: the pool's own may have the next request ready, which goes on the connection to come.
      client.prependListener('drain', endIfIdle)
      endIfIdle()
    })
    timer.unref()
    socket.once('close', () => {
      timer.cancel()
      client.off('drain', endIfIdle)
    })
  })
}

/** Connections for one request each. */
function createLoneConnections(upstream: string, options: Client.Options) {
  const open = new Map<Client, Promise<void>>()
  function dispatch(
    request: UndiciDispatcher.DispatchOptions,
    handler: UndiciDispatcher.DispatchHandler,
  ): void {
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
  // undici would verify the name that the request's Host says.
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
    state.newest = socket
    noteBreaks(socket, handToUndici, (is) => (state.isBreaking = is))
    if (!http2) readResponses(socket)

    function handToUndici(): void {
      state.isConnecting = true
      try {
        callback(null, socket)
      } finally {
        state.isConnecting = false
      }
    }
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

/** Builds the connector again when the key's file changed. */
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

/** `silence`: no connection, or no answer in time. `cut`: a connection was made, and ended without an answer. */
export type NoAnswer = 'silence' | 'cut'

/** A request that asks to be let through to an upstream. */
export type WaitingRequest = {
  /** It is let through; it calls `leave` with this when it is over. */
  go(period: CircuitPeriod): void
  /** It is not let through. */
  refuse(error: BffError): void
}

/** What stands before the connections to one upstream: its circuit breaker, and the limit on requests in flight. */
export type Admission = {
  /**
   * Lets a request go, now or when a permit falls free within `waitMs`, or refuses it with `upstream_unreachable` or
   * `upstream_timeout`. Returns what ends its waiting, if it waits.
   */
  enter(request: WaitingRequest, waitMs: number): (() => void) | undefined
  /** A request that was let through is over. */
  leave(period: CircuitPeriod): void
  /** The upstream answered, whatever it said. */
  answered(): void
  /** The upstream gave no answer. */
  failed(period: CircuitPeriod, noAnswer: NoAnswer): void
  /** Whether the upstream gets no request but a probe now and then. */
  isOpen(): boolean
  /** Ms until the next probe may go; 0 when it may now. */
  openLeftMs(): number
}

export type AdmissionOptions = {
  /** Requests in a row without an answer that open the circuit, 0 = never; and for how long it opens, in ms. */
  readonly breaker: { readonly failures: number; readonly pauseMs: number }
  /** Most requests in flight; no limit when undefined. */
  readonly permits: number | undefined
  /** Told when the circuit opens and when it closes; a probe that fails is neither. */
  readonly observe: (isOpen: boolean) => void
  readonly clock: Pick<Clock, 'monotonicNow' | 'after'>
}

/**
 * Stops asking an upstream that answers no request: one request in each open time finds out whether it is back. Clients
 * choose what they ask for, so one endpoint that hangs or crashes must not speak for the others: only failures count that
 * come when no other request was answered for as long as the circuit would stay open.
 */
export function createAdmission({ breaker, permits, observe, clock }: AdmissionOptions): Admission {
  const circuit = createCircuitBreaker({
    failures: breaker.failures,
    openMs: () => breaker.pauseMs,
    // A probe that hangs must not keep all others waiting for its end.
    probeMs: breaker.pauseMs,
    quietMs: breaker.pauseMs,
    successOutdates: true,
    now: clock.monotonicNow,
    observe(change) {
      if (change !== 'reopened') observe(change === 'opened')
    },
  })
  const semaphore =
    permits === undefined ? undefined : createSemaphore({ permits, refusal: noConnectionInTime, clock })

  function enter(request: WaitingRequest, waitMs: number): (() => void) | undefined {
    if (!circuit.isPassable()) request.refuse(circuitOpen())
    // A request becomes the probe only when it has its permit: a probe that waits in line would keep all others out.
    else if (!semaphore || semaphore.tryAcquire()) request.go(circuit.enter()!)
    else return waitFor(semaphore, request, waitMs)
    return undefined
  }

  function waitFor(permits: Semaphore<BffError>, request: WaitingRequest, waitMs: number): () => void {
    const refuse = (error: BffError) => request.refuse(error)
    return permits.wait({ enter: () => enterFromLine(permits, request), refuse }, waitMs)
  }

  function enterFromLine(permits: Semaphore<BffError>, request: WaitingRequest): void {
    // Others may have found out meanwhile that the upstream does not answer.
    const period = circuit.enter()
    if (period !== undefined) {
      request.go(period)
      return
    }
    permits.release()
    request.refuse(circuitOpen())
  }

  function circuitOpen(): BffError {
    return new BffError(
      'upstream_unreachable',
      'the circuit of the upstream is open, because it does not answer',
      {
        retryAfterSeconds: Math.max(1, Math.ceil(circuit.openLeftMs() / 1000)),
      },
    )
  }

  return {
    enter,
    leave(period) {
      circuit.ended(period)
      semaphore?.release()
    },
    answered: circuit.succeeded,
    failed(period, noAnswer) {
      // Cutting is quick: a client that brings it about again and again could be the probe each time.
      if (noAnswer === 'silence' || !circuit.isOpen()) circuit.failed(period)
    },
    isOpen: circuit.isOpen,
    openLeftMs: circuit.openLeftMs,
  }
}
