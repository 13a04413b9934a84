import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type BodyPace, watchPace } from '../../async/body-pace.ts'
import { systemClock } from '../../async/clock.ts'
import { createThrottledWarning } from '../../async/log-throttle.ts'
import type { ListenerLimits } from '../../config/config.ts'
import type { Logger } from '../../log.ts'
import type { ServerObjects } from './express-objects.ts'
import { endWithAnswer } from './raw-answer.ts'
import { clientNetwork, hasBody, type RequestGuard } from './request-guard.ts'

/** What the public server does with each message, and its limits. */
export type PublicServerDeps = {
  readonly objects: ServerObjects
  readonly limits: ListenerLimits
  /** Checks every message first, under the configuration in use. */
  readonly guard: () => RequestGuard
  readonly request: (req: IncomingMessage, res: ServerResponse) => void
  /** Owns the socket from its first line on. */
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void
  /** Whether the peer is a trusted proxy, which brings many clients. */
  readonly isTrustedPeer: (peer: { readonly socket: Socket }) => boolean
  /** Told of each connection that is closed because too many are open, in all or of its client. */
  readonly observeRefused: (reason: 'limit' | 'client_limit') => void
  readonly log: Logger
}

/** The HTTP/1.1 server of the public listener: nothing is served that the request guard did not admit. */
export function createPublicServer(deps: PublicServerDeps): Server {
  const { objects, limits, guard, request, upgrade } = deps
  const server = createServer({ ...objects, ...serverOptions(limits) })
  server.maxConnections = limits.connections
  // Node would silently drop fields over a limit of its own; the guard counts them.
  server.maxHeadersCount = 0

  const serveInOrder = oneAtATime((req, res) => {
    if (guard().admit(req, res)) request(req, res)
  })
  // The pace is checked once the time that a head may take has passed.
  const pace = { bytesPerSecond: limits.bodyRate, graceMs: limits.headerTimeoutMs }
  function serve(req: IncomingMessage, res: ServerResponse): void {
    if (hasBody(req)) res.once('prefinish', () => limitUnwantedBody(req, pace))
    serveInOrder(req, res)
  }
  server.on('request', serve)
  // RFC 9110 §10.1.1: the reader of the body sends the 100, after every check has passed.
  server.on('checkContinue', serve)
  server.on('checkExpectation', serve)

  function leaveHttp(req: IncomingMessage, stream: Duplex, head: Buffer): void {
    stream.on('error', () => stream.destroy())
    // The client would read the 101 as the answer to a request before it that still has none.
    if (connectionOf(req.socket).pending.length > 0 || req.socket.writableEnded) req.socket.destroy()
    // Node types the socket as a Duplex, which it is only for an upgrade with a body: the guard refuses that.
    else if (guard().admitUpgrade(req)) upgrade(req, stream as Socket, head)
  }
  server.on('upgrade', leaveHttp)
  server.on('connect', leaveHttp)
  server.on('clientError', (error, socket) => answerClientError(error, socket as Socket, guard()))
  server.setTimeout(limits.keepAliveMs, endStalled)
  limitConnections(server, deps)
  return server
}

function serverOptions({ headerSize, headerTimeoutMs, keepAliveMs }: ListenerLimits): ServerOptions {
  return {
    maxHeaderSize: headerSize,
    headersTimeout: headerTimeoutMs,
    // How soon after its time an incomplete head is noticed.
    connectionsCheckingInterval: Math.min(5_000, Math.max(50, headerTimeoutMs / 4)),
    keepAliveTimeout: keepAliveMs,
    // Uploads may take long; an idle one is cut by its route's own timeout.
    requestTimeout: 0,
    joinDuplicateHeaders: false,
    // The guard answers this with a problem.
    requireHostHeader: false,
    // A request without a body is a stream that has ended: nothing waits for its `end` and `close`.
    optimizeEmptyRequests: true,
  }
}

/** What a client's connection still has to answer, and has answered last. */
export type ClientConnection = {
  /** Responses that are not sent yet, in the order of their requests; only the first is being served. */
  readonly pending: ServerResponse[]
  /** When the last answer ended, by `monotonicNow`; undefined before the first. */
  lastAnsweredAt?: number
  /** The last answered request, while the rest of its body is not read. */
  unread?: IncomingMessage | undefined
}

type Serve = (req: IncomingMessage, res: ServerResponse) => void

/** Requests that may wait on one connection. Browsers send none ahead, and each one takes memory before it is checked. */
const MAX_WAITING = 32

const CONNECTION = Symbol('connection')
type WithConnection = Socket & { [CONNECTION]?: ClientConnection }

/** The state of a client's connection; a member of the socket costs less than a WeakMap. */
export function connectionOf(socket: Socket): ClientConnection {
  const holder: WithConnection = socket
  holder[CONNECTION] ??= { pending: [] }
  return holder[CONNECTION]
}

/**
 * Makes a handler that calls `serve` for one request of a connection at a time. Node emits all requests of one packet at
 * once; RFC 9112 §9.3.2 forbids to process an unsafe one beside another, and one connection must not open many towards an
 * upstream. Behind an answer that ends the connection none is served. A connection on which too many wait is cut.
 */
function oneAtATime(serve: Serve): Serve {
  function serveNext(this: ServerResponse): void {
    leave(this)
    const { socket } = this.req
    const [next] = connectionOf(socket).pending
    // Node has ended the socket by now if this answer was the last one.
    if (next && socket.writable) serve(next.req, next)
  }

  return function serveInOrder(req, res) {
    const { socket } = req
    const { pending } = connectionOf(socket)
    pending.push(res)
    if (pending.length > MAX_WAITING + 1) socket.destroy()
    if (!socket.writable) return
    res.on('finish', serveNext)
    if (pending[0] === res) serve(req, res)
  }
}

/** An idle connection must not keep its last request in memory. */
function leave(res: ServerResponse): void {
  const { req } = res
  const connection = connectionOf(req.socket)
  if (connection.pending[0] === res) connection.pending.shift()
  connection.lastAnsweredAt = systemClock.monotonicNow()
  connection.unread = !req.complete && hasBody(req) ? req : undefined
}

/**
 * Closes connections at once, as HAProxy and Envoy do, while too many are open in all, or of one client: upgraded ones
 * count as well. An IPv6 client is its /64, as for the rate limits.
 */
function limitConnections(server: Server, deps: PublicServerDeps): void {
  const { limits, isTrustedPeer, observeRefused, log } = deps
  const warnOfLimit = createThrottledWarning(log, 'connections closed at once: limits.connections are open')
  const warnOfClient = createThrottledWarning(
    log,
    'connections closed at once: limits.connectionsPerClient of their client are open; add it to trustProxy if it is a proxy of yours',
  )
  const openOf = new Map<string, number>()

  server.on('drop', () => {
    observeRefused('limit')
    warnOfLimit()
  })
  server.on('connection', (socket: Socket) => {
    // A client that has left already has no address any more.
    if (socket.remoteAddress === undefined) return
    const client = clientNetwork(socket.remoteAddress)
    const open = (openOf.get(client) ?? 0) + 1
    openOf.set(client, open)
    socket.once('close', () => {
      const left = openOf.get(client)! - 1
      if (left > 0) openOf.set(client, left)
      else openOf.delete(client)
    })
    if (open <= limits.connectionsPerClient || isTrustedPeer({ socket })) return
    observeRefused('client_limit')
    warnOfClient({ clientIp: client })
    socket.destroy()
  })
}

/**
 * Ends the connection of an answered request when the rest of its body comes too slowly. Node reads past that rest to
 * keep the connection, for as long as a byte comes now and then.
 */
function limitUnwantedBody(req: IncomingMessage, pace: BodyPace): void {
  if (req.complete) return
  const { socket } = req
  const { bytesRead: before } = socket
  const isOver = () => req.complete || socket.destroyed
  const timer = watchPace(pace, {
    look() {
      if (isOver()) timer?.cancel()
      return { isAwaited: true, received: socket.bytesRead - before }
    },
    tooSlow: () => void (isOver() || socket.destroy()),
  })
}

/**
 * Ends a connection on which nothing has moved for `keepAliveMs`. One that waits for an answer, or for more of it, is
 * spared: the route's own timeouts apply. A client that reads nothing of a complete answer would otherwise stay for ever.
 */
function endStalled(socket: Socket): void {
  const [current] = connectionOf(socket).pending
  if (current && !current.writableEnded) return
  if (socket.writableLength > 0) socket.resetAndDestroy()
  else socket.destroy()
}

/** Errors of Node's parser that have a better status than 400. */
const REFUSALS: Readonly<Record<string, { status: number; detail: string }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, detail: 'the head of the request is larger than this server takes' },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, detail: 'too many chunk extensions' },
  HPE_INVALID_VERSION: { status: 505, detail: 'only HTTP/1.1 and HTTP/1.0 are spoken here' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, detail: 'the head of the request did not come in time' },
}
const NO_REQUEST = { status: 400, detail: 'this is no HTTP/1.1 request' }
const URL_TOO_LONG = { status: 414, detail: 'the path and query are longer than this server takes' }

/** An error of Node's HTTP parser, with the bytes it was looking at. */
type ClientError = Error & { readonly code?: string; readonly rawPacket?: Buffer }

/** Refuses with a problem what is no HTTP request, and ends its connection. */
function answerClientError(error: ClientError, socket: Socket, guard: RequestGuard): void {
  // The refusal is on its way, and what the client still sends is only read past.
  if (socket.writableEnded && !socket.destroyed) return
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const { pending, unread } = connectionOf(socket)
  // The error is in the body of this request, which must not be served any more; else in what follows it.
  const broken = pending.at(-1)?.req.complete === false ? pending.pop() : undefined
  const last = pending.at(-1)
  if (last) endAfter(last, socket)
  // The client would take a refusal in the middle of an answer for a part of it.
  else if (broken?.headersSent) socket.destroy()
  // The error is in the body of a request that was answered already: one request has one answer.
  else if (!broken && unread?.complete === false) socket.destroySoon()
  else {
    const { status, detail } = refusalFor(error)
    // RFC 9110 §9.3.2: the answer to HEAD has no body.
    endWithAnswer(socket, guard.refusalOf(status, detail, socket), {
      withBody: broken?.req.method !== 'HEAD',
    })
    // A request that broke off in its body is over for its upstream at once.
    if (broken) socket.once('finish', () => socket.destroy())
  }
}

/** The requests before the broken one are complete: they get their answers, and then the connection ends. */
function endAfter(answer: ServerResponse, socket: Socket): void {
  // The client ended its side in the middle of another head and reads no more.
  if (socket.readableEnded) socket.end()
  if (!answer.shouldKeepAlive) return
  answer.shouldKeepAlive = false
  answer.once('finish', () => socket.destroySoon())
}

function refusalFor(error: ClientError) {
  return isOverlongTarget(error) ? URL_TOO_LONG : (REFUSALS[error.code ?? ''] ?? NO_REQUEST)
}

/** The parser counts the whole head. The target was too long if not even the first line fitted. */
function isOverlongTarget({ code, rawPacket }: ClientError): boolean {
  if (code !== 'HPE_HEADER_OVERFLOW' || !rawPacket || rawPacket.includes('\n')) return false
  return /^[A-Z]+ \//.test(rawPacket.toString('latin1', 0, 24))
}
