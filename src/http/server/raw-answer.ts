import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { systemClock } from '../../async/clock.ts'

/** An answer of Cloakroom's own for a connection that has left Node's HTTP server. */
export type RawAnswer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** How long a client that still sends may take to read the answer. Milliseconds. */
const LINGER_MS = 1_000

/**
 * Answers, and ends the connection without serving another byte of it. For a moment the rest is still read and dropped:
 * closing with unread bytes resets the connection, and the reset can overtake the answer (RFC 9112 §9.6). An answer to
 * HEAD has no body.
 */
export function endWithAnswer(socket: Socket, answer: RawAnswer, { withBody = true } = {}): void {
  if (socket.destroyed) return
  socket.on('error', () => socket.destroy())
  socket.on('data', () => undefined)
  socket.once('end', () => socket.destroy())
  socket.end(headOf(answer) + (withBody ? answer.body : ''))
  socket.resume()
  const linger = systemClock.after(LINGER_MS, () => socket.destroy()).unref()
  socket.once('close', () => linger.cancel())
}

function headOf({ status, headers, body }: RawAnswer): string {
  const fields = { ...headers, 'content-length': String(Buffer.byteLength(body)), connection: 'close' }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n`
}
