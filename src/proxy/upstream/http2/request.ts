import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2'
import {
  Http2Error,
  type ParsedHeaders,
  type ResponseController,
  type ResponseHandler,
  type UpstreamRequest,
} from '../dispatcher.ts'
import { defectOf } from '../response-writer.ts'
import { noteStreamEnd } from '../undocumented.ts'
import { createReplayableBody, type ReplayableBody } from './body.ts'

/** A connection as its requests see it. */
export type Http2Connection = {
  readonly session: ClientHttp2Session
  /** A request has been on it before. */
  isUsed: boolean
  /** The last stream that the upstream says it looked at (RFC 9113 §6.8); undefined while it has not gone away. */
  lastStreamId: number | undefined
  /** The error code that it went away with. */
  goAwayCode: number | undefined
}

/** What a request asks of the connections. */
export type Http2RequestDeps = {
  /**
   * Told when the upstream provably did not look at the request, and the request can be sent again. `isBehindOthers`: the
   * connection went away after requests that it took, so this one has moved up in the queue.
   */
  readonly onUnseen: (request: Http2Request, isBehindOthers: boolean) => void
  /** A request that waits for a connection is given up. */
  readonly onLeaveQueue: (request: Http2Request) => void
  /** There was no answer in time: the connection may be dead. */
  readonly onSilence: (connection: Http2Connection) => void
}

const { NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL } = constants
/** RFC 9113 §6.2. */
const HEADERS_FRAME = 1

/**
 * One request over HTTP/2: on one stream after the other, until the upstream has looked at it. It reports to its handler
 * as undici does over HTTP/1.1, and ends exactly once.
 */
export class Http2Request implements ResponseController {
  readonly request: UpstreamRequest
  /** How often a connection that took no request at all refused it. */
  refusals = 0
  rawHeaders: string[] | undefined
  readonly #handler: ResponseHandler
  readonly #deps: Http2RequestDeps
  readonly #body: ReplayableBody | undefined
  #stream: ClientHttp2Stream | undefined
  #connection: Http2Connection | undefined
  /** HEADERS were never sent (RFC 9113 §6.8: none after a GOAWAY). */
  #isUnsent = false
  #isAnswered = false
  #isOver = false
  /** Whether the body ended before its stream did; undefined until it ends. */
  #isWhole: boolean | undefined
  /** Reports the head of a response that can have no body. */
  #begin: (() => void) | undefined

  constructor(request: UpstreamRequest, handler: ResponseHandler, deps: Http2RequestDeps) {
    this.request = request
    this.#handler = handler
    this.#deps = deps
    this.#body = request.body === null ? undefined : createReplayableBody(request.body)
  }

  /** Opens a stream for the request. */
  sendOn(connection: Http2Connection, headers: Record<string, string>): ClientHttp2Stream | undefined {
    try {
      this.#handler.onRequestStart(this)
      this.#stream = connection.session.request(headers, { endStream: this.#body === undefined })
    } catch (error) {
      this.#end(() => this.#handler.onResponseError(this, error as Error))
      return undefined
    }
    this.#connection = connection
    this.#isUnsent = false
    this.#isWhole = undefined
    this.#follow(this.#stream)
    this.#body?.sendTo(this.#stream)
    return this.#stream
  }

  #follow(stream: ClientHttp2Stream): void {
    noteStreamEnd(stream, (isWhole) => {
      this.#isWhole ??= isWhole
    })
    const isCurrent = () => this.#stream === stream && !this.#isOver
    stream.setTimeout(this.request.headersTimeout)
    stream.on('timeout', () => isCurrent() && this.#onTimeout())
    stream.on('headers', (headers) => isCurrent() && this.#onInterim(headers))
    stream.on('response', (headers) => isCurrent() && this.#onResponse(stream, headers))
    stream.on('data', (chunk: Buffer) => isCurrent() && this.#handler.onResponseData(this, chunk))
    stream.on('end', () => isCurrent() && this.#onEnd())
    stream.on('frameError', (type) => {
      if (type === HEADERS_FRAME) this.#isUnsent = true
    })
    stream.on('error', (error) => isCurrent() && this.#onFailure(stream, error))
    stream.on('close', () => isCurrent() && this.#onFailure(stream))
  }

  #onTimeout(): void {
    const code = this.#isAnswered ? 'BODY_TIMEOUT' : 'HEADERS_TIMEOUT'
    const connection = this.#connection!
    this.abort(new Http2Error(code, 'the upstream did not answer in time'))
    this.#deps.onSilence(connection)
  }

  #onInterim(headers: IncomingHttpHeaders & { ':status'?: string | number }): void {
    this.#handler.onResponseStarted()
    this.#handler.onResponseStart(this, Number(headers[':status']), {})
  }

  #onResponse(stream: ClientHttp2Stream, headers: IncomingHttpHeaders & { ':status'?: number }): void {
    const { ':status': status = 0, ...fields } = headers
    this.#isAnswered = true
    this.rawHeaders = flatFields(fields)
    this.#handler.onResponseStarted()
    stream.setTimeout(this.request.bodyTimeout)
    const begin = () => this.#handler.onResponseStart(this, status, fields as ParsedHeaders)
    // Reported at its end only, because until then it may turn out to have a body after all.
    const isBodiless = status === 204 || status === 304 || (status >= 200 && this.request.method === 'HEAD')
    if (isBodiless && defectOf(status, fields as ParsedHeaders) === undefined) this.#begin = begin
    else begin()
  }

  #onEnd(): void {
    if (!this.#isAnswered) {
      this.#onFailure(this.#stream!)
      return
    }
    if (!this.#isWhole) {
      this.abort(new Http2Error('STREAM_RESET', 'the upstream reset its answer'))
      return
    }
    try {
      this.#begin?.()
    } catch (error) {
      this.abort(error as Error)
      return
    }
    this.#end(() => this.#handler.onResponseEnd(this))
  }

  #onFailure(stream: ClientHttp2Stream, cause?: Error): void {
    const connection = this.#connection!
    if (!this.#isAnswered && this.#isUnseen(stream, connection)) {
      this.#detach()
      if (this.#body === undefined || this.#body.canReplay()) {
        this.#deps.onUnseen(this, isBehindOthers(stream, connection))
        return
      }
    }
    const isLost = connection.session.destroyed
    const code = isLost ? 'CONNECTION_LOST' : 'STREAM_RESET'
    this.fail(new Http2Error(code, `the upstream ended the ${isLost ? 'connection' : 'stream'}`, { cause }))
  }

  #isUnseen(stream: ClientHttp2Stream, connection: Http2Connection): boolean {
    // Node gives every stream of a connection the code that it went away with.
    const isRefused =
      stream.rstCode === NGHTTP2_REFUSED_STREAM && connection.goAwayCode !== NGHTTP2_REFUSED_STREAM
    return isRefused || this.#isUnsent || stream.id === undefined || isAboveLast(stream, connection)
  }

  /** Ends the request without a response. */
  fail(error: Error): void {
    this.#end(() => this.#handler.onResponseError(this.#connection ? this : undefined, error))
  }

  abort(reason: Error): void {
    if (this.#isOver) return
    if (!this.#stream) this.#deps.onLeaveQueue(this)
    this.fail(reason)
  }

  pause(): void {
    this.#stream?.pause()
    // While the client takes nothing the upstream cannot send.
    this.#stream?.setTimeout(0)
  }

  resume(): void {
    this.#stream?.setTimeout(this.request.bodyTimeout)
    this.#stream?.resume()
  }

  #detach(): void {
    const stream = this.#stream
    this.#stream = undefined
    this.#body?.stop()
    if (stream) giveUp(stream)
  }

  #end(tell: () => void): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#detach()
    tell()
  }
}

/** RFC 9113 §6.8: the largest number announces a goodbye, and says nothing of what was taken. */
const ANY_STREAM = 2 ** 31 - 1

/** A stream that was never opened has no number. */
function isBehindOthers(
  { id = ANY_STREAM }: ClientHttp2Stream,
  { lastStreamId = 0 }: Http2Connection,
): boolean {
  return lastStreamId > 0 && id > lastStreamId
}

function isAboveLast({ id = 0 }: ClientHttp2Stream, { lastStreamId }: Http2Connection): boolean {
  return lastStreamId !== undefined && id > lastStreamId
}

/** Ends a stream that is not wanted any more, without making the request's body look whole. */
function giveUp(stream: ClientHttp2Stream): void {
  stream.setTimeout(0)
  stream.resume()
  if (stream.destroyed || (stream.closed && stream.writableFinished)) return
  if (stream.writableFinished && stream.readableEnded) return
  // A mere close would end the request's body before it says that it is not whole; and of one that is gone with bytes
  // still to send nghttp2 asks for them for ever.
  if (stream.writableEnded && !stream.closed) stream.close(NGHTTP2_CANCEL)
  else stream.destroy(new Http2Error('GIVEN_UP', 'the request was given up'))
}

/** Names and values as HTTP/1.1 has them; node:http2 gives Latin-1 text. */
function flatFields(parsed: IncomingHttpHeaders): string[] {
  const fields: string[] = []
  for (const [name, value] of Object.entries(parsed)) {
    for (const one of Array.isArray(value) ? value : [String(value)]) fields.push(name, one)
  }
  return fields
}

/** Fields that RFC 9113 §8.2.2 forbids; `te` may say `trailers`, which do not cross here. */
const FORBIDDEN = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade', 'te', 'http2-settings'],
])

/**
 * The head of a request as node:http2 takes it: lower-case names (RFC 9113 §8.2.1), one value each. It takes two values
 * of a field that may come once for a defect of ours.
 */
export function http2RequestHead(
  fields: readonly string[],
  { method, path, origin }: { method: string; path: string; origin: URL },
): Record<string, string> {
  const head: Record<string, string> = Object.create(null)
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase()
    const value = fields[i + 1]!
    if (FORBIDDEN.has(name) || name.startsWith(':')) continue
    const before = head[name]
    // RFC 9113 §8.2.3.
    const separator = name === 'cookie' ? '; ' : ', '
    head[name] = before === undefined ? value : before + separator + value
  }
  const { host = origin.host, ...others } = head
  const pseudo = {
    ':method': method,
    ':scheme': origin.protocol.slice(0, -1),
    ':authority': host,
    ':path': path,
  }
  return Object.assign(Object.create(null), pseudo, others)
}
