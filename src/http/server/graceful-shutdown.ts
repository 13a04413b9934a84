import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import { every, systemClock } from '../../async/clock.ts'
import { connectionOf } from './public-server.ts'

/**
 * Shuts a server down: resolves when it accepts nothing and no connection is open, `graceMs` after the call at the latest, or
 * as soon as `cut` aborts.
 */
export type GracefulShutdown = (graceMs: number, cut?: AbortSignal) => Promise<void>

const CHECK_EVERY_MS = 50

/**
 * Makes the graceful shutdown of a server that handles upgrades itself; called before it listens. From its begin on, every
 * answer whose head is not sent yet says that the connection ends with it (RFC 9112 §9.6), so that no client sends another
 * request on it. An idle connection is closed when it has idled for `idleGraceMs`, because a request may be on its way;
 * those that have idled for longer already are closed at once. Running answers and tunnels go on meanwhile.
 */
export function createGracefulShutdown(server: Server, idleGraceMs: number): GracefulShutdown {
  const open = new Set<Socket>()
  const tunnels = new WeakSet<Socket>()
  server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  for (const event of ['upgrade', 'connect'])
    server.on(event, ({ socket }: IncomingMessage) => void tunnels.add(socket))

  return function shutDown(graceMs, cut) {
    if (!server.listening) return Promise.resolve()
    for (const event of ['request', 'checkContinue', 'checkExpectation'])
      server.prependListener(event, (_: IncomingMessage, res: ServerResponse) => makeLast(res))
    for (const socket of open) {
      const newest = connectionOf(socket).pending.at(-1)
      // Not those before it: the client waits for every one.
      if (newest && !newest.headersSent) makeLast(newest)
    }
    const idleness = createIdleness(systemClock.monotonicNow(), idleGraceMs)
    const closeIdle = () => {
      for (const socket of open) if (!tunnels.has(socket) && idleness.isOver(socket)) socket.destroy()
    }
    // Right after what has arrived was read: a request that the kernel holds must not be cut off.
    const tick = every(systemClock, CHECK_EVERY_MS, () => setImmediate(closeIdle))
    const cutAll = () => {
      for (const socket of open) socket.destroy()
    }
    const deadline = systemClock.after(graceMs, cutAll)
    cut?.addEventListener('abort', cutAll, { once: true })
    return stopListening(server, closeIdle).finally(() => {
      tick.cancel()
      deadline.cancel()
    })
  }
}

function makeLast(res: ServerResponse): void {
  res.shouldKeepAlive = false
}

/** The HTTP server's own `close` would close idle connections at once; it is called at the end, to clean up. */
function stopListening(server: Server, begun: () => void): Promise<void> {
  return new Promise((resolve) => {
    NetServer.prototype.close.call(server, () => {
      server.close()
      resolve()
    })
    begun()
  })
}

/** Remembers how much was received on each connection, to know for how long it has idled. Times in ms. */
function createIdleness(begunAt: number, idleGraceMs: number) {
  const received = new WeakMap<Socket, { bytes: number; at: number }>()

  return {
    /** Never at the first check: half a head may have come since the last answer. */
    isOver(socket: Socket): boolean {
      const { pending, lastAnsweredAt } = connectionOf(socket)
      if (pending.length > 0) return false
      const { bytesRead: bytes } = socket
      const before = received.get(socket)
      if (before?.bytes !== bytes) {
        const at = before || lastAnsweredAt === undefined ? systemClock.monotonicNow() : begunAt - idleGraceMs
        received.set(socket, { bytes, at })
        return false
      }
      return systemClock.monotonicNow() - Math.max(before.at, lastAnsweredAt ?? 0) >= idleGraceMs
    },
  }
}
