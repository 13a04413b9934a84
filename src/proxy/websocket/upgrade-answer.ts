import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { RouteConfig } from '../../config/config.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import { isSayable, withoutLength } from '../upstream/response-writer.ts'

/** Writes the 101 that opens a tunnel, with the upstream's other fields. */
export function writeSwitch(
  response: IncomingMessage,
  client: Socket,
  { route, responseHeaders }: Pick<RelayRules, 'route' | 'responseHeaders'>,
): void {
  const fields = responseHeaders(route, rawBytes(response), false)
  writeHead(client, 101, [...fields, 'Connection', 'Upgrade', 'Upgrade', 'websocket'])
}

/** What the relay of a refusal goes by. */
export type RelayRules = {
  readonly route: RouteConfig
  readonly responseHeaders: ResponseHeaders
  readonly isAuthenticated: boolean
  /** Longest pause. */
  readonly idleMs: number
}

/**
 * Passes on the upstream's own answer to a handshake it refuses, by the rules for any response; then the connection
 * ends. Returns what breaks it off: the end of the connection is the end of the body here, so that only a reset says
 * that the rest is missing.
 */
export function relayRefusal(
  response: IncomingMessage,
  client: Socket,
  { route, responseHeaders, isAuthenticated, idleMs }: RelayRules,
): () => void {
  const status = response.statusCode!
  const fields = responseHeaders(route, rawBytes(response), isAuthenticated)
  fields.push('connection', 'close')
  const breakOff = () => void client.resetAndDestroy()
  response.once('error', breakOff)
  client.once('finish', () => client.destroy())
  client.setTimeout(idleMs, breakOff)
  writeHead(client, status, status === 204 ? withoutLength(fields) : fields, response.statusMessage)
  response.pipe(client)
  return breakOff
}

/** Latin-1 both ways keeps every byte (RFC 9110 §5.5). */
function writeHead(socket: Socket, status: number, fields: readonly string[], reason?: string): void {
  let head = `HTTP/1.1 ${status} ${isSayable(reason) ? reason : (STATUS_CODES[status] ?? '')}\r\n`
  for (let i = 0; i < fields.length; i += 2) head += `${fields[i]}: ${fields[i + 1]}\r\n`
  socket.write(`${head}\r\n`, 'latin1')
}

function rawBytes(response: IncomingMessage): Buffer[] {
  return response.rawHeaders.map((text) => Buffer.from(text, 'latin1'))
}
