import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type ClientHttp2Stream, constants } from 'node:http2'
import { defectOf } from './client-response.ts'
import type { ParsedHeaders, UpstreamControl } from './dispatch.ts'
import type { Exchange } from './exchange.ts'
import { noConnectionInTime } from './upstream-gate.ts'

const STREAM_CREATED = 'http2.client.stream.created'

/**
 * Names of request fields in lower case (RFC 9113 §8.2.1). node:http2 takes two spellings of a field that may come
 * once for a defect of ours, and ends the connection with everybody's requests on it.
 */
export function http2RequestFields(fields: readonly string[]): string[] {
  return fields.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text))
}

/** Gives exchanges over HTTP/2 the streams that undici opens for them. */
export type Http2Streams = {
  /** What to hand to undici in place of the exchange. */
  follow(exchange: Exchange): Http2Exchange
  close(): void
}

/** Listens for new streams. undici opens one right after it has told the request that it starts. */
export function createHttp2Streams(): Http2Streams {
  let starting: Http2Exchange | undefined
  function onCreated(message: unknown): void {
    if (starting) starting.watch((message as { stream: ClientHttp2Stream }).stream)
    starting = undefined
  }
  const setStarting = (next: Http2Exchange | undefined) => {
    starting = next
  }
  subscribe(STREAM_CREATED, onCreated)
  return {
    follow: (exchange) => new Http2Exchange(exchange, setStarting),
    close: () => void unsubscribe(STREAM_CREATED, onCreated),
  }
}

/**
 * Stands between undici and an exchange over HTTP/2. undici takes a stream that the upstream resets in mid-body for one
 * that ended well, and ends the body of a request that is given up as if it were whole: the stream knows better.
 */
export class Http2Exchange {
  stream: ClientHttp2Stream | undefined
  readonly #exchange: Exchange
  readonly #setStarting: (next: Http2Exchange | undefined) => void
  #control: Http2Control | undefined
  #unopened: NodeJS.Timeout | undefined
  /** Whether the body ended before its stream did; undefined until it ends. */
  #isWhole: boolean | undefined
  /** Tells of an answer that can have no body. */
  #begin: (() => void) | undefined

  constructor(exchange: Exchange, setStarting: (next: Http2Exchange | undefined) => void) {
    this.#exchange = exchange
    this.#setStarting = setStarting
  }

  /** The stream that was opened for it. */
  watch(stream: ClientHttp2Stream): void {
    this.stream = stream
    resetWhenClosed(stream)
    const { push } = stream
    stream.push = (chunk: unknown, encoding?: BufferEncoding) => {
      // The body of a stream that was reset ends, too, but only when the stream is closed. Every body ends twice.
      if (chunk === null && stream === this.stream) this.#isWhole ??= !stream.closed
      return push.call(stream, chunk, encoding)
    }
  }

  onRequestStart(control: UpstreamControl): void {
    this.stream = undefined
    this.#isWhole = undefined
    this.#begin = undefined
    this.#control = new Http2Control(control, () => this.stream)
    this.#exchange.onRequestStart(this.#control)
    this.#setStarting(this)
    this.#limitOpening(this.#control)
  }

  onResponseStart(control: UpstreamControl, status: number, parsed: ParsedHeaders, reason?: string): void {
    clearTimeout(this.#unopened)
    const own = this.#control!
    own.rawHeaders = fieldsAsBytes(control.rawHeaders as Readonly<Record<string, string | string[]>>)
    this.#exchange.onResponseStarted()
    const begin = () => this.#exchange.onResponseStart(own, status, parsed, reason)
    // The client hears of such an answer at its end only, and until then it may turn out to have a body after all.
    const isBodiless =
      status === 204 || status === 304 || (status >= 200 && this.#exchange.req.method === 'HEAD')
    if (isBodiless && defectOf(status, parsed) === undefined) this.#begin = begin
    else begin()
  }

  onResponseData(_: UpstreamControl, chunk: Buffer): void {
    this.#exchange.onResponseData(this.#control!, chunk)
  }

  onResponseEnd(): void {
    try {
      if (!this.#isWhole) throw new Error('the upstream reset its answer')
      this.#begin?.()
    } catch (error) {
      this.#exchange.onResponseError(this.#control, error as Error)
      return
    }
    this.#exchange.onResponseEnd(this.#control!)
  }

  onResponseError(_: UpstreamControl | null | undefined, error: Error): void {
    clearTimeout(this.#unopened)
    this.#setStarting(undefined)
    this.#exchange.onResponseError(this.#control, error)
  }

  /** undici's timeout begins with the stream, which an upstream may refuse, and put off for ever (RFC 9113 §5.1.2). */
  #limitOpening(control: UpstreamControl): void {
    clearTimeout(this.#unopened)
    this.#unopened = setTimeout(() => {
      const { stream } = this
      if (!stream || stream.pending || stream.destroyed) control.abort(noConnectionInTime())
    }, this.#exchange.outbound.route.timeout.responseMs)
  }
}

class Http2Control implements UpstreamControl {
  rawHeaders: unknown
  readonly #control: UpstreamControl
  readonly #stream: () => ClientHttp2Stream | undefined

  constructor(control: UpstreamControl, stream: () => ClientHttp2Stream | undefined) {
    this.#control = control
    this.#stream = stream
  }

  abort(reason: Error): void {
    this.#stream()?.close()
    this.#control.abort(reason)
  }

  pause(): void {
    this.#control.pause()
  }

  resume(): void {
    this.#control.resume()
  }
}

/**
 * undici gives a stream up by closing it, and destroys it then. A mere close waits until the request's body is sent, or
 * is forestalled by whoever hears that it is aborted, so that the reset is never said. nghttp2 then asks a stream that
 * is gone for the rest of its body, without an end: the process never runs another line.
 */
function resetWhenClosed(stream: ClientHttp2Stream): void {
  const { close } = stream
  stream.close = () => {
    if (stream.closed) return
    if (stream.writableEnded) close.call(stream, constants.NGHTTP2_CANCEL)
    // Closed, it would say that the request's body ends here before it says that it does not.
    else stream.destroy(new Error('the request was given up'))
  }
}

/** Names and values as HTTP/1.1 has them; node:http2 gives Latin-1 text. */
function fieldsAsBytes(parsed: Readonly<Record<string, string | string[]>>): Buffer[] {
  const fields: Buffer[] = []
  for (const [name, value] of Object.entries(parsed)) {
    for (const one of Array.isArray(value) ? value : [value])
      fields.push(Buffer.from(name, 'latin1'), Buffer.from(one, 'latin1'))
  }
  return fields
}
