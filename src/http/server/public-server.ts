import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type BodyPace, watchPace } from '../../async/body-pace.ts'
import { createThrottledWarning } from '../../async/log-throttle.ts'
import type { ListenerLimits } from '../../config/config.ts'
import type { Logger } from '../../log.ts'
import { clientNetwork } from './client-address.ts'
import { answerClientError } from './client-error.ts'
import type { ServerObjects } from './express-objects.ts'
import { hasBody } from './message-checks.ts'
import { inTurn, pendingAnswers } from './pipelining.ts'
import type { Front } from './request-guard.ts'

/** Opens a listening socket and resolves with its port; rejects with the system's error, e.g. EADDRINUSE. */
export function listenOn(server: Server, { host, port }: { host: string; port: number }): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })
}

/**
 * Stops accepting, lets running requests finish for `graceMs`, then cuts what is left. Resolves when no connection is
 * open. Connections that idle in keep-alive are closed as they become idle: Node itself would wait for them.
 */
export function closeServer(server: Server, graceMs: number): Promise<void> {
  if (!server.listening) return Promise.resolve()
  return new Promise((resolve) => {
    const tick = setInterval(() => server.closeIdleConnections(), 50)
    const deadline = setTimeout(() => server.closeAllConnections(), graceMs)
    server.close(() => {
      clearInterval(tick)
      clearTimeout(deadline)
      resolve()
    })
    server.closeIdleConnections()
  })
}

/** What the public server does with each message, and how much of it it takes. */
export type PublicServerDeps = {
  readonly objects: ServerObjects
  readonly limits: ListenerLimits
  /** What every message meets first, under the configuration in use. */
  readonly front: () => Front
  readonly request: (req: IncomingMessage, res: ServerResponse) => void
  /** Owns the socket from its first line on. */
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void
  /** Whether the other end is a proxy of our own, which brings many clients. */
  readonly isTrustedPeer: (peer: { readonly socket: Socket }) => boolean
  /** Told of each connection that is closed because too many are open, in all or of its client. */
  readonly observeRefused: (reason: 'limit' | 'client_limit') => void
  readonly log: Logger
}

/** The HTTP/1.1 server of the public listener: nothing is served that the front did not admit. */
export function createPublicServer(deps: PublicServerDeps): Server {
  const { objects, limits, front, request, upgrade } = deps
  const server = createServer({ ...objects, ...serverOptions(limits) })
  server.maxConnections = limits.connections
  // Node would leave out what is over a limit of its own, and nobody could tell; the front counts them.
  server.maxHeadersCount = 0

  function serveNow(req: IncomingMessage, res: ServerResponse): void {
    if (front().admit(req, res)) request(req, res)
  }
  // A body has the time of a head before its pace is looked at.
  const pace = { bytesPerSecond: limits.bodyRate, graceMs: limits.headerTimeoutMs }
  function serve(req: IncomingMessage, res: ServerResponse): void {
    if (hasBody(req)) res.once('prefinish', () => limitUnwantedBody(req, pace))
    inTurn(req, res, serveNow)
  }
  server.on('request', serve)
  // RFC 9110 §10.1.1: a body is asked for only after every check has passed, by whoever reads it.
  server.on('checkContinue', serve)
  server.on('checkExpectation', serve)

  function leaveHttp(req: IncomingMessage, stream: Duplex, head: Buffer): void {
    stream.on('error', () => stream.destroy())
    // Behind a request that still waits for its answer, the next words on the wire would not be this one's.
    if (pendingAnswers(req.socket) || req.socket.writableEnded) req.socket.destroy()
    // Node types the socket as a Duplex, which it is only for an upgrade with a body: the front refuses that.
    else if (front().admitUpgrade(req)) upgrade(req, stream as Socket, head)
  }
  server.on('upgrade', leaveHttp)
  server.on('connect', leaveHttp)
  server.on('clientError', (error, socket) => answerClientError(error, socket as Socket, front()))
  server.setTimeout(limits.keepAliveMs, endStalled)
  limitConnections(server, deps)
  return server
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
    'connections closed at once: limits.connectionsPerClient of their client are open; a proxy of yours belongs into trustProxy',
  )
  const openOf = new Map<string, number>()

  server.on('drop', () => {
    observeRefused('limit')
    warnOfLimit()
  })
  server.on('connection', (socket: Socket) => {
    // The client may have left already, and has no address any more.
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
 * Ends the connection of a request that has its answer when the rest of its body comes too slowly: Node reads past it
 * to keep the connection, for as long as a byte comes now and then.
 */
function limitUnwantedBody(req: IncomingMessage, pace: BodyPace): void {
  const { socket } = req
  const { bytesRead: before } = socket
  const isOver = () => req.complete || socket.destroyed
  const timer = watchPace(
    pace,
    () => {
      if (isOver()) clearInterval(timer)
      return { isAwaited: true, received: socket.bytesRead - before }
    },
    () => void (isOver() || socket.destroy()),
  )
}

/**
 * Ends a connection on which nothing moved for so long, unless it waits for an answer, or for more of one: these have
 * their route's own times. A client that takes nothing of an answer that is whole on our side would stay for ever.
 */
function endStalled(socket: Socket): void {
  const pending = pendingAnswers(socket)
  if (pending && !pending.current.writableEnded) return
  if (socket.writableLength > 0) socket.resetAndDestroy()
  else socket.destroy()
}

function serverOptions({ headerSize, headerTimeoutMs, keepAliveMs }: ListenerLimits): ServerOptions {
  return {
    maxHeaderSize: headerSize,
    headersTimeout: headerTimeoutMs,
    // How soon after its time a head that is not whole is noticed.
    connectionsCheckingInterval: Math.min(5_000, Math.max(50, headerTimeoutMs / 4)),
    keepAliveTimeout: keepAliveMs,
    // Uploads may take long; an idle one is cut by its route's own timeout.
    requestTimeout: 0,
    joinDuplicateHeaders: false,
    // The front answers this in our own words.
    requireHostHeader: false,
  }
}
