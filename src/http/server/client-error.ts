import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { isAnswered, pendingAnswers, withdrawNewest } from './pipelining.ts'
import { endWithAnswer } from './raw-answer.ts'
import type { Front } from './request-guard.ts'

/** What Node's parser says, as far as another status than 400 says it better. */
const REFUSALS: Readonly<Record<string, { status: number; detail: string }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, detail: 'the head of the request is larger than this server takes' },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, detail: 'too many chunk extensions' },
  HPE_INVALID_VERSION: { status: 505, detail: 'only HTTP/1.1 and HTTP/1.0 are spoken here' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, detail: 'the head of the request did not come in time' },
}
const NO_REQUEST = { status: 400, detail: 'this is no HTTP/1.1 request' }
const URL_TOO_LONG = { status: 414, detail: 'the path and query are longer than this server takes' }

/** An error of Node's HTTP parser, with the bytes it was looking at. */
export type ClientError = Error & { readonly code?: string; readonly rawPacket?: Buffer }

/** Refuses what is no HTTP request with a problem, as everything else is refused, and ends its connection. */
export function answerClientError(error: ClientError, socket: Socket, front: Front): void {
  // The refusal is on its way, and what the client still sends is only read past.
  if (socket.writableEnded && !socket.destroyed) return
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const pending = pendingAnswers(socket)
  const last = pending?.newest.req.complete ? pending.newest : withdrawNewest(socket)
  if (last) endAfter(last, socket)
  // A refusal in the middle of an answer would be taken for a part of it.
  else if (pending?.current.headersSent) socket.destroy()
  // One request has one answer: what is wrong with the rest of it ends the connection.
  else if (!pending && isAnswered(socket)) socket.destroySoon()
  else {
    const { status, detail } = refusalOf(error)
    endWithAnswer(socket, front.refusalOf(status, detail), {
      // RFC 9110 §9.3.2: what answers a HEAD has no body, also when the request's own body is broken.
      withBody: pending?.newest.req.method !== 'HEAD',
    })
    // A request that broke off in its body is over for its upstream at once.
    if (pending) socket.once('finish', () => socket.destroy())
  }
}

/** What is wrong came behind whole requests, or in one behind them: they get their answers, and the connection ends. */
function endAfter(answer: ServerResponse, socket: Socket): void {
  // The client ended its side in the middle of another head: nobody is left to read.
  if (socket.readableEnded) socket.end()
  if (!answer.shouldKeepAlive) return
  answer.shouldKeepAlive = false
  answer.once('finish', () => socket.destroySoon())
}

function refusalOf(error: ClientError) {
  return isOverlongTarget(error) ? URL_TOO_LONG : (REFUSALS[error.code ?? ''] ?? NO_REQUEST)
}

/** The parser counts the whole head; when not even the first line of it was whole, the target was too long. */
function isOverlongTarget({ code, rawPacket }: ClientError): boolean {
  if (code !== 'HPE_HEADER_OVERFLOW' || !rawPacket || rawPacket.includes('\n')) return false
  return /^[A-Z]+ \//.test(rawPacket.toString('latin1', 0, 24))
}
