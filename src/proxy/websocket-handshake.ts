import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { BffError } from '../errors.ts'

/** Throws `bad_request` unless the request is a WebSocket opening handshake (RFC 6455 §4.2.1): h2c and others never tunnel. */
export function requireHandshake({ method, httpVersion, headers }: IncomingMessage): void {
  const isHandshake =
    method === 'GET' &&
    httpVersion === '1.1' &&
    headers.upgrade?.trim().toLowerCase() === 'websocket' &&
    /^[A-Za-z0-9+/]{22}==$/.test(headers['sec-websocket-key'] ?? '')
  if (!isHandshake) throw refused('not a WebSocket handshake')
  if (headers['sec-websocket-version'] !== '13')
    throw refused('only version 13 of the WebSocket protocol is served')
  const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0
  if (hasBody) throw refused('a WebSocket handshake has no body')
}

/** Whether a 101 answers this handshake (RFC 6455 §4.1): anything else may be another user's cached answer. */
export function isAccepted(key: string, answer: IncomingMessage): boolean {
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  return (
    answer.headers.upgrade?.toLowerCase() === 'websocket' && answer.headers['sec-websocket-accept'] === accept
  )
}

function refused(why: string): BffError {
  // RFC 6455 §4.4: names the version that is served.
  return new BffError('bad_request', why, { headers: { 'sec-websocket-version': '13' } })
}
