import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ListenerLimits } from '../config/config.ts'
import type { Logger } from '../log.ts'
import { answerClientError } from './client-error.ts'
import type { ServerObjects } from './express-objects.ts'
import type { Front } from './front.ts'
import { inTurn, pendingAnswers } from './pending-answers.ts'

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
  readonly log: Logger
}

/** The HTTP/1.1 server of the public listener: nothing is served that the front did not admit. */
export function createPublicServer(deps: PublicServerDeps): Server {
  const { objects, limits, front, request, upgrade, log } = deps
  const server = createServer({ ...objects, ...serverOptions(limits) })
  server.maxConnections = limits.connections
  // Node would leave out what is over a limit of its own, and nobody could tell; the front counts them.
  server.maxHeadersCount = 0

  function serveNow(req: IncomingMessage, res: ServerResponse): void {
    if (front().admit(req, res)) request(req, res)
  }
  const serve = (req: IncomingMessage, res: ServerResponse) => inTurn(req, res, serveNow)
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
  server.on('drop', createDropLog(log))
  return server
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

const DROPS_LOGGED_EVERY_MS = 60_000

/** Tells of connections that were closed because too many are open: the first at once, then their number each minute. */
function createDropLog(log: Logger): () => void {
  let unsaid = 0
  let isQuiet = false

  function say(): void {
    isQuiet = unsaid > 0
    if (!isQuiet) return
    log.warn({ count: unsaid }, 'connections closed at once: limits.connections are open')
    unsaid = 0
    setTimeout(say, DROPS_LOGGED_EVERY_MS).unref()
  }
  return function countDrop() {
    unsaid += 1
    if (!isQuiet) say()
  }
}
