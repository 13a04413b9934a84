import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Express } from 'express'
import { answerClientError } from './client-error.ts'
import { objectsBornFor } from './express-objects.ts'

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
export function drain(server: Server, graceMs: number): Promise<void> {
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

/** What the public server does with each request and each upgrade. */
export type PublicHandlers = {
  readonly request: Express
  /** Owns the socket from its first line on. */
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void
}

/** Above the idle timeout of the usual load balancers, so that they close first and no request meets a closed socket. */
const KEEP_ALIVE_MS = 75_000
const HEADERS_MS = 30_000

/** The HTTP/1.1 server of the public listener. */
export function createPublicServer({ request, upgrade }: PublicHandlers): Server {
  const server = createServer({
    ...objectsBornFor(request),
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: HEADERS_MS,
    // Uploads may take long; an idle one is cut by its route's own timeout.
    requestTimeout: 0,
    joinDuplicateHeaders: false,
  })
  server.on('request', request)
  // RFC 9110 §10.1.1: a body is asked for only after every check has passed, by whoever reads it.
  server.on('checkContinue', request)
  // Node types the socket as a Duplex, for those who emit the event themselves.
  server.on('upgrade', (req, socket, head) => upgrade(req, socket as Socket, head))
  server.on('clientError', (error, socket) => answerClientError(error, socket as Socket))
  return server
}
