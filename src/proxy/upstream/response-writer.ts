import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { Clock, Timer } from '../../async/clock.ts'
import { addVary } from '../headers/response.ts'
import type { ParsedHeaders, ResponseController } from './dispatcher.ts'

/** The head of a response as the client gets it. */
export type ResponseHead = {
  readonly status: number
  readonly reason: string | undefined
  /** Flat list of names and values. */
  readonly fields: string[]
  /** As the upstream gave them. */
  readonly parsed: ParsedHeaders
}

/** Adds the fields of earlier middleware that join the upstream's own instead of giving way to them. */
export function keepOurs(res: ServerResponse, fields: string[]): void {
  const cookies = res.getHeader('set-cookie')
  if (cookies !== undefined) for (const one of listOf(cookies)) fields.push('set-cookie', one)
  const vary = res.getHeader('vary')
  if (vary !== undefined) {
    addVary(
      fields,
      listOf(vary).flatMap((value) => value.split(/, */)),
    )
  }
}

function listOf(value: number | string | string[]): string[] {
  return Array.isArray(value) ? value : [String(value)]
}

/** Interim (1xx) responses to one request; more is a flood. */
export const MAX_INTERIM = 20

/** Why the head of a final response cannot be passed on; undefined when it can. */
export function defectOf(status: number, parsed: ParsedHeaders): string | undefined {
  if (status > 599) return 'status code out of range'
  // With another coding the body would lose its coding's name, or keep the marks of its chunks (RFC 9112 §6.1).
  const coding = parsed['transfer-encoding']
  const isDecoded = coding === undefined || (typeof coding === 'string' && coding.toLowerCase() === 'chunked')
  return isDecoded ? undefined : 'unsupported transfer coding'
}

/** What the responses of one upstream share. */
type ResponseSource = {
  /** Told of each piece of a body, and its bytes. */
  readonly bodyPassed: (bytes: number) => void
  readonly clock: Pick<Clock, 'after'>
}

/** A response on its way to the client. A class, because thousands live at once and share their methods. */
export class ClientResponse {
  isStarted = false
  isEnded = false
  /** It may never end: its length is not known, or it is an event stream. */
  isEndless = false
  isEventStream = false
  /** Its type says that it has no end of its own. */
  isUnending = false
  /** The client takes no more for the moment, and the upstream is paused. */
  isWaiting = false
  readonly #res: ServerResponse
  readonly #idleMs: number
  readonly #source: ResponseSource
  #bytesWritten = false
  /** Bytes still to come; NaN when their number is not known. */
  #remaining = Number.NaN
  #stalled: Timer | undefined

  /** `idleMs`: the client's connection is cut when it takes nothing for so long; 0 = never. */
  constructor(res: ServerResponse, idleMs: number, source: ResponseSource) {
    this.#res = res
    this.#idleMs = idleMs
    this.#source = source
  }

  begin({ status, reason, fields, parsed }: ResponseHead): void {
    if (status === 204) withoutLength(fields)
    keepDisposition(fields)
    this.#res.writeHead(status, isSayable(reason) ? reason : (STATUS_CODES[status] ?? ''), fields)
    this.isStarted = true
    this.#remaining = Number(parsed['content-length'] ?? Number.NaN)
    this.isEventStream = isEventStream(parsed)
    this.isUnending = isUnending(parsed)
    this.isEndless = this.isEventStream || Number.isNaN(this.#remaining)
    flushSoon(this)
  }

  write(chunk: Buffer, controller: ResponseController): void {
    const isFirst = !this.#bytesWritten
    this.#bytesWritten = true
    this.#source.bodyPassed(chunk.length)
    this.#remaining -= chunk.length
    if (this.#remaining === 0) this.end(chunk, isFirst)
    else if (this.#remaining <= ONE_WRITE && isFullRead(chunk)) this.#writeWithRest(chunk)
    else if (!this.#res.write(chunk) && !this.#isTaken()) this.#waitForClient(controller)
  }

  /**
   * The read filled its buffer, so the little that is missing is mostly read next, in the same turn of the event loop: both
   * leave in one write. No backpressure, because no more than that can follow.
   */
  #writeWithRest(chunk: Buffer): void {
    this.#res.cork()
    this.#res.write(chunk)
    setImmediate(uncork, this.#res)
  }

  /** Sends what node:http holds back until the next tick. Whether the kernel has all of it: then there is nothing to wait for. */
  #isTaken(): boolean {
    uncork(this.#res)
    return this.#res.writableLength === 0
  }

  end(lastChunk?: Buffer, isWhole = false): void {
    this.isEnded = true
    // As text, a small body leaves in one write with the header; Latin-1 keeps every byte.
    if (lastChunk && isWhole && lastChunk.length <= ONE_WRITE)
      this.#res.end(lastChunk.toString('latin1'), 'latin1')
    else this.#res.end(lastChunk)
  }

  /** Sends the head alone when no byte of the body has come yet: an event stream begins with silence. */
  flush(): void {
    // flushHeaders would write UTF-8, which changes bytes past ASCII.
    if (!this.#bytesWritten && !this.isEnded && !this.#res.destroyed) this.#res.write('', 'latin1')
  }

  /** A clean end would make half a body look whole (RFC 9112 §8), so the client's connection is cut. */
  cut(): void {
    const { req, socket } = this.#res
    uncork(this.#res)
    // HTTP/1.0 has no chunks: there, the end of the connection is the end of the body.
    if (req.httpVersion === '1.0') socket?.resetAndDestroy()
    this.#res.destroy()
  }

  /** Ends in the middle. An event stream may end anywhere; a part of any other body must not look whole. */
  stop(): void {
    const mayEnd = this.isEventStream && Number.isNaN(this.#remaining)
    // A client that reads nothing would not see the end either.
    if (mayEnd && !this.isWaiting) this.end()
    else this.cut()
  }

  /** The client's connection is gone. */
  forget(): void {
    this.#stalled?.cancel()
  }

  /** Backpressure, for as long as the client reads something now and then. */
  #waitForClient(controller: ResponseController): void {
    controller.pause()
    this.isWaiting = true
    if (this.#idleMs > 0) this.#stalled = this.#source.clock.after(this.#idleMs, () => this.#reset())
    this.#res.once('drain', () => {
      this.isWaiting = false
      this.#stalled?.cancel()
      // A drain may come while another response is being parsed, and the pool's parser cannot be entered twice.
      process.nextTick(resume, controller)
    })
  }

  /** A clean end would leave megabytes in the kernel for as long as the client keeps its window shut. */
  #reset(): void {
    this.#res.socket?.resetAndDestroy()
    this.#res.destroy()
  }
}

/** Whether a response is a stream of server-sent events, which has no end of its own. */
function isEventStream(parsed: ParsedHeaders): boolean {
  return EVENT_STREAM.test(String(parsed['content-type']))
}

/** Whether a response has a type without an end of its own: events, or one picture after the other. */
export function isUnending(parsed: ParsedHeaders): boolean {
  return UNENDING.test(String(parsed['content-type']))
}

/** RFC 9110 §8.3.1: types are compared without case. */
const EVENT_STREAM = /^text\/event-stream/i
const UNENDING = /^(?:text\/event-stream|multipart\/x-mixed-replace)/i

/** Removes the length. RFC 9110 §8.6: a 204 has none, and a client may wait for the bytes that it announces. */
export function withoutLength(fields: string[]): string[] {
  for (let i = fields.length - 2; i >= 0; i -= 2) {
    if (fields[i]!.toLowerCase() === 'content-length') fields.splice(i, 2)
  }
  return fields
}

/**
 * Once node:http has seen a length, it reads a Content-Disposition as UTF-8 and writes it as Latin-1, which makes other
 * bytes of it or fails. So the length goes last: the order of fields of different names says nothing (RFC 9110 §5.3).
 */
function keepDisposition(fields: string[]): void {
  let hasBytes = false
  for (let i = 0; i < fields.length; i += 2) {
    const isDisposition = fields[i]!.length === 19 && fields[i]!.toLowerCase() === 'content-disposition'
    if (isDisposition && PAST_ASCII.test(fields[i + 1]!)) hasBytes = true
  }
  if (!hasBytes) return
  const at = fields.findIndex((text, i) => i % 2 === 0 && text.toLowerCase() === 'content-length')
  if (at !== -1) fields.push(...fields.splice(at, 2))
}

const PAST_ASCII = /[\x80-\xff]/

/** Bytes of a body worth copying to save a write. */
const ONE_WRITE = 16_384

/** Bytes of a read that filled its buffer: Node reads sockets into buffers of this size, and keeps those it filled. */
const READ_BYTES = 65_536

function isFullRead({ buffer }: Buffer): boolean {
  return buffer.byteLength === READ_BYTES
}

function uncork(res: ServerResponse): void {
  if (res.writableCorked > 0) res.uncork()
}

/** Whether a reason phrase can be passed on: HTTP/2 has none, and undici has read what is not ASCII as UTF-8. */
export function isSayable(reason: string | undefined): reason is string {
  return reason !== undefined && PRINTABLE.test(reason)
}

const PRINTABLE = /^[\x20-\x7e]+$/

function resume(controller: ResponseController): void {
  controller.resume()
}

/** Responses whose head may have to be sent alone. */
let begun: ClientResponse[] = []

/**
 * Once for all responses that begin in one turn of the event loop: nearly every body follows its head in the same read,
 * and then there is nothing to send.
 */
function flushSoon(response: ClientResponse): void {
  if (begun.push(response) === 1) setImmediate(flushHeads)
}

function flushHeads(): void {
  const responses = begun
  begun = []
  for (const response of responses) response.flush()
}
