import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'
import { lastAnsweredAt, pendingAnswers } from './pipelining.ts'

/** Ends a server: resolves when it accepts nothing and no connection is open, `graceMs` after the call at the latest. */
export type Drain = (graceMs: number) => Promise<void>

const LOOK_EVERY_MS = 50

/**
 * Makes the drain of a server that handles upgrades itself; called before it listens. Whoever asks while it drains, or
 * waits for an answer, is told that the connection ends with it (RFC 9112 §9.6), so that no client sends another request
 * on one that is about to close. An idle connection is closed when it has idled for `idleGraceMs`, because a request may
 * be on its way; those that idle for longer already are closed at once. Running answers and tunnels go on meanwhile.
 */
export function createDrain(server: Server, idleGraceMs: number): Drain {
  const open = new Set<Socket>()
  const tunnels = new WeakSet<Socket>()
  server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  for (const event of ['upgrade', 'connect'])
    server.on(event, ({ socket }: IncomingMessage) => void tunnels.add(socket))

  return function drain(graceMs) {
    if (!server.listening) return Promise.resolve()
    for (const event of ['request', 'checkContinue', 'checkExpectation'])
      server.prependListener(event, (_: IncomingMessage, res: ServerResponse) => makeLast(res))
    for (const socket of open) {
      const newest = pendingAnswers(socket)?.newest
      // Not those before it: the client waits for every one.
      if (newest && !newest.headersSent) makeLast(newest)
    }
    const looks = createLooks(performance.now(), idleGraceMs)
    const closeIdle = () => {
      for (const socket of open) if (!tunnels.has(socket) && looks.hasIdled(socket)) socket.destroy()
    }
    // Right after what has arrived was read: a request in the kernel's hands must not be cut off.
    const tick = setInterval(() => setImmediate(closeIdle), LOOK_EVERY_MS)
    const deadline = setTimeout(() => {
      for (const socket of open) socket.destroy()
    }, graceMs)
    return stopListening(server, closeIdle).finally(() => {
      clearInterval(tick)
      clearTimeout(deadline)
    })
  }
}

function makeLast(res: ServerResponse): void {
  res.shouldKeepAlive = false
}

/** Not by the HTTP server's own `close`, which at once closes what idles; it only cleans up in the end. */
function stopListening(server: Server, begun: () => void): Promise<void> {
  return new Promise((resolve) => {
    NetServer.prototype.close.call(server, () => {
      server.close()
      resolve()
    })
    begun()
  })
}

/** Remembers what was heard on connections, to know for how long nothing was; times in ms. */
function createLooks(begunAt: number, idleGraceMs: number) {
  const heard = new WeakMap<Socket, { bytes: number; at: number }>()

  return {
    /** Never at the first look: half a head may have come since the last answer. */
    hasIdled(socket: Socket): boolean {
      if (pendingAnswers(socket)) return false
      const answeredAt = lastAnsweredAt(socket)
      const { bytesRead: bytes } = socket
      const before = heard.get(socket)
      if (before?.bytes !== bytes) {
        const at = before || answeredAt === undefined ? performance.now() : begunAt - idleGraceMs
        heard.set(socket, { bytes, at })
        return false
      }
      return performance.now() - Math.max(before.at, answeredAt ?? 0) >= idleGraceMs
    },
  }
}
