import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { hasBody } from './message-checks.ts'

const NEWEST = Symbol('newest answer')
const ANSWERED_AT = Symbol('end of the last answer')
const UNREAD = Symbol('answered before its body was whole')
const WAITING = Symbol('requests that wait')
const BEFORE = Symbol('answer that this one waits for')

/** Requests that may wait on one connection. Browsers send none ahead; each one costs memory before it is looked at. */
const MOST_WAITING = 32

/** Members of Node's that say what a connection still has to send; it keeps no public sign of either. */
type Connection = Socket & {
  [NEWEST]?: Answer | undefined
  [ANSWERED_AT]?: number
  [UNREAD]?: IncomingMessage | undefined
  [WAITING]?: number
  /** The answer being sent now. */
  readonly _httpMessage?: Answer | null
}
type Answer = ServerResponse & {
  /** The connection ends with this answer. */
  readonly _last?: boolean
  [BEFORE]?: Answer | undefined
}

type Serve = (req: IncomingMessage, res: ServerResponse) => void

/**
 * Calls `serve` when a request's turn has come: at once, or after the answer to the one before it on its connection.
 * Node hands out at once all requests that arrive in one packet; RFC 9112 §9.3.2 lets nobody work on an unsafe one and
 * its neighbour at the same time, and one connection must not open many towards an upstream. Never calls it behind an
 * answer that ends the connection: nobody would send that request's own. A connection on which too many wait is cut.
 */
export function inTurn(req: IncomingMessage, res: ServerResponse, serve: Serve): void {
  const connection: Connection = req.socket
  const before = connection[NEWEST]
  const isLast = connection.writableEnded || before?._last === true
  if (isLast || before) countWaiting(connection, 1)
  if (isLast || connection.destroyed) return
  connection[NEWEST] = res
  res.on('finish', forget)
  if (!before) {
    serve(req, res)
    return
  }
  const waiting: Answer = res
  waiting[BEFORE] = before
  before.once('finish', () => {
    countWaiting(connection, -1)
    const isWanted = waiting[BEFORE] !== undefined
    waiting[BEFORE] = undefined
    if (isWanted && before._last !== true && !connection.destroyed) serve(req, res)
  })
}

/** Takes back the newest request while it waits for its turn; gives the answer that is the last then. */
export function withdrawNewest(socket: Socket): ServerResponse | undefined {
  const connection: Connection = socket
  const newest = connection[NEWEST]
  const before = newest?.[BEFORE]
  if (!newest || !before) return undefined
  newest[BEFORE] = undefined
  connection[NEWEST] = before
  return before
}

function countWaiting(connection: Connection, change: 1 | -1): void {
  const waiting = (connection[WAITING] ?? 0) + change
  connection[WAITING] = waiting
  if (waiting > MOST_WAITING) connection.destroy()
}

/** The answers that a connection still has to send: the one being sent, and the last; undefined when there is none. */
export function pendingAnswers(
  socket: Socket,
): { current: ServerResponse; newest: ServerResponse } | undefined {
  const { _httpMessage: current, [NEWEST]: newest } = socket as Connection
  return current ? { current, newest: newest ?? current } : undefined
}

/** Whether what arrives now belongs to a request that has its answer already. */
export function isAnswered(socket: Socket): boolean {
  return (socket as Connection)[UNREAD]?.complete === false
}

/** When the last answer on a connection ended, by `performance.now()`; undefined while there was none. */
export function lastAnsweredAt(socket: Socket): number | undefined {
  return (socket as Connection)[ANSWERED_AT]
}

/** An idle connection must not keep its last request in memory. */
function forget(this: ServerResponse): void {
  const connection: Connection = this.req.socket
  connection[ANSWERED_AT] = performance.now()
  if (connection[NEWEST] === this) connection[NEWEST] = undefined
  connection[UNREAD] = !this.req.complete && hasBody(this.req) ? this.req : undefined
}
