import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { BffError } from '../errors.ts'
import { problemAnswer } from './problem.ts'

/** Statuses of Node's own parser errors; every other one is a 400. */
const STATUS_OF_CODE: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
}

/** Refuses what is no HTTP request with a problem, as everything else is refused, and ends its connection. */
export function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET' || isAnswering(socket)) {
    socket.destroy()
    return
  }
  const status = STATUS_OF_CODE[error.code ?? ''] ?? 400
  const { headers, body } = problemAnswer(new BffError('bad_request', 'this is no HTTP/1.1 request'))
  const { 'cloakroom-error': code, ...common } = headers
  const title = STATUS_CODES[status] ?? ''
  const problem = status === 400 ? body : JSON.stringify({ type: 'about:blank', title, status })
  const lines = Object.entries({
    ...common,
    ...(status === 400 ? { 'cloakroom-error': code } : {}),
    'content-length': String(Buffer.byteLength(problem)),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${status} ${title}\r\n${lines.join('')}\r\n${problem}`, () => socket.destroy())
}

/** An error in the middle of an answer must not put a second one into it. Node keeps no public sign of that. */
function isAnswering(socket: Socket): boolean {
  const { _httpMessage: answer } = socket as Socket & { _httpMessage?: { headersSent: boolean } }
  return answer?.headersSent === true
}
