import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { hasBody } from './request-guard.ts'

/** What a client's connection still has to answer, and has answered last. */
export type ClientConnection = {
  /** Responses that are not sent yet, in the order of their requests; only the first is being served. */
  readonly pending: ServerResponse[]
  /** When the last answer ended, by `performance.now()`; undefined before the first. */
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
export function oneAtATime(serve: Serve): Serve {
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
  connection.lastAnsweredAt = performance.now()
  connection.unread = !req.complete && hasBody(req) ? req : undefined
}
