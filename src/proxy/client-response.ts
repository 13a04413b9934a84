import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { BffSession } from '../session/bff-session.ts'
import type { ParsedHeaders, UpstreamControl } from './dispatch.ts'
import type { LiveConnections } from './live-connections.ts'

/** The head of a response as the client gets it. */
export type ResponseHead = {
  readonly status: number
  readonly reason: string | undefined
  /** Flat list of names and values. */
  readonly fields: string[]
  /** Bytes of body to come; NaN when that is not known. */
  readonly length: number
}

/** What makes the head of a final response one that cannot be passed on; undefined when nothing does. */
export function defectOf(status: number, parsed: ParsedHeaders): string | undefined {
  if (status > 599) return 'status code out of range'
  // Of any other coding the body would lose its name, or keep the marks of its chunks (RFC 9112 §6.1).
  const coding = parsed['transfer-encoding']
  const isDecoded = coding === undefined || (typeof coding === 'string' && coding.toLowerCase() === 'chunked')
  return isDecoded ? undefined : 'unsupported transfer coding'
}

/** Whether a response is a stream of server-sent events, which has no end of its own. */
export function isEventStream(parsed: ParsedHeaders): boolean {
  return String(parsed['content-type']).startsWith('text/event-stream')
}

/** A response on its way to the client. A class, because thousands live at once and share their methods. */
export class ClientResponse {
  isStarted = false
  isEnded = false
  readonly #res: ServerResponse
  readonly #idleMs: number
  #bytesWritten = false
  /** Bytes still to come; NaN when their number is not known. */
  #remaining = Number.NaN
  #stalled: NodeJS.Timeout | undefined

  /** `idleMs`: the client's connection is cut when it takes nothing for so long; 0 = never. */
  constructor(res: ServerResponse, idleMs: number) {
    this.#res = res
    this.#idleMs = idleMs
  }

  begin({ status, reason, fields, length }: ResponseHead): void {
    // RFC 9110 §8.6: with 204 there is no length to speak of, and a client may wait for what it announces.
    if (status === 204) removeField(fields, 'content-length')
    this.#res.writeHead(status, isSayable(reason) ? reason : (STATUS_CODES[status] ?? ''), fields)
    this.isStarted = true
    this.#remaining = length
    process.nextTick(flushHead, this)
  }

  write(chunk: Buffer, control: UpstreamControl): void {
    const isFirst = !this.#bytesWritten
    this.#bytesWritten = true
    this.#remaining -= chunk.length
    if (this.#remaining === 0) this.end(chunk, isFirst)
    else if (!this.#res.write(chunk)) this.#waitForClient(control)
  }

  end(lastChunk?: Buffer, isWhole = false): void {
    this.isEnded = true
    // As text, a small body leaves in one write with the header; Latin-1 keeps every byte.
    if (lastChunk && isWhole && lastChunk.length <= ONE_WRITE)
      this.#res.end(lastChunk.toString('latin1'), 'latin1')
    else this.#res.end(lastChunk)
  }

  /** Sends the head before the body when the body lets us wait: an event stream begins with silence. */
  flush(): void {
    // flushHeaders would write UTF-8, and so change what is not ASCII.
    if (!this.#bytesWritten && !this.isEnded && !this.#res.destroyed) this.#res.write('', 'latin1')
  }

  /** A clean end would make half a body look whole (RFC 9112 §8), so the client's connection is cut. */
  cut(): void {
    const { req, socket } = this.#res
    // HTTP/1.0 has no chunks: there, the end of the connection is the end of the body.
    if (req.httpVersion === '1.0') socket?.resetAndDestroy()
    this.#res.destroy()
  }

  /** An event stream has no end of its own, so it must not outlive the session it was opened for. */
  endWith(session: BffSession['hash'], live: LiveConnections, control: UpstreamControl): void {
    const forget = live.add(session, () => {
      this.end()
      control.abort(new Error('the session ended'))
    })
    this.#res.once('close', forget)
  }

  /** The client's connection is gone. */
  forget(): void {
    clearTimeout(this.#stalled)
  }

  /** Backpressure, for as long as the client takes at least something now and then. */
  #waitForClient(control: UpstreamControl): void {
    control.pause()
    if (this.#idleMs > 0) this.#stalled = setTimeout(() => this.#res.destroy(), this.#idleMs)
    this.#res.once('drain', () => {
      clearTimeout(this.#stalled)
      // A drain may come while another response is being parsed, and the pool's parser cannot be entered twice.
      process.nextTick(resume, control)
    })
  }
}

function removeField(fields: string[], unwanted: string): void {
  for (let i = fields.length - 2; i >= 0; i -= 2) {
    if (fields[i]!.toLowerCase() === unwanted) fields.splice(i, 2)
  }
}

/** Bytes of a body worth copying to save a write. */
const ONE_WRITE = 16_384

/** HTTP/2 has no reason phrase, and undici has read any other as UTF-8. */
function isSayable(reason: string | undefined): reason is string {
  return reason !== undefined && PRINTABLE.test(reason)
}

const PRINTABLE = /^[\x20-\x7e]+$/

function resume(control: UpstreamControl): void {
  control.resume()
}

function flushHead(response: ClientResponse): void {
  response.flush()
}
