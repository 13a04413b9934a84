import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

const NEWEST = Symbol('newest answer')

/** Members of Node's that say what a connection still has to send; it keeps no public sign of either. */
type Connection = Socket & {
  [NEWEST]?: Answer | undefined
  /** The answer being sent now. */
  readonly _httpMessage?: Answer | null
}
type Answer = ServerResponse & {
  /** The connection ends with this answer. */
  readonly _last?: boolean
}

/**
 * Whether a request came behind an answer that ends the connection, so that nobody would ever answer it: in the same
 * packet, which Node takes apart at once, or while that answer is on its way. Called once for each request.
 */
export function isBehindTheLast({ socket }: IncomingMessage, res: ServerResponse): boolean {
  const connection: Connection = socket
  if (connection.writableEnded || connection[NEWEST]?._last === true) return true
  connection[NEWEST] = res
  res.on('finish', forget)
  return false
}

/** The answers that a connection still has to send: the one being sent, and the last; undefined when there is none. */
export function pendingAnswers(
  socket: Socket,
): { current: ServerResponse; newest: ServerResponse } | undefined {
  const { _httpMessage: current, [NEWEST]: newest } = socket as Connection
  return current ? { current, newest: newest ?? current } : undefined
}

/** An idle connection must not keep its last request in memory. */
function forget(this: ServerResponse): void {
  const connection: Connection = this.req.socket
  if (connection[NEWEST] === this) connection[NEWEST] = undefined
}
