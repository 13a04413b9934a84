import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { BffError } from '../errors.ts'
import type { BffSession } from '../session/bff-session.ts'
import { responseHeaders } from './headers.ts'
import type { LiveConnections } from './live-connections.ts'
import { bodyLength, bodyTooLarge, continueIfExpected, readBody } from './request-body.ts'
import type { OutboundRequest } from './upstream.ts'

/** The upstream's side of an exchange: what its connection lets us steer. */
export type UpstreamControl = {
  /** Names and values of the response as they arrived. */
  readonly rawHeaders?: unknown
  abort(reason: Error): void
  pause(): void
  resume(): void
}

/** What an exchange asks of the connection pool. */
export type Dispatch = {
  /** Sends the request and reports to the exchange's `on…` methods. */
  start(exchange: Exchange, body: Readable | null): void
  /** True while a new connection is being handed to the request that starts. */
  isConnecting(): boolean
  /** The pool's error in our words. */
  failure(error: Error): BffError
  readonly live: LiveConnections
  /** Whether the connection ended without a byte of response. */
  isConnectionLost(error: Error): boolean
}

export type ExchangeParts = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly outbound: OutboundRequest
  readonly pool: Dispatch
  readonly resolve: () => void
  readonly reject: (error: BffError) => void
}

/** RFC 9110 §9.2.2: sending these twice does no more than sending them once. */
const REPEATABLE = new Set(['GET', 'HEAD', 'OPTIONS'])

/** One request and its response. A class, because thousands live at once and share their methods. */
export class Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly outbound: OutboundRequest
  readonly #pool: Dispatch
  readonly #resolve: () => void
  readonly #reject: (error: BffError) => void
  #control: UpstreamControl | undefined
  #body: Readable | null = null
  #isReused = false
  #isRetried = false
  #clientLeft = false
  #responseStarted = false
  #responseEnded = false
  #bytesWritten = false
  #interimResponses = 0
  /** Bytes of the response still to come; NaN when its length is not known. */
  #remaining = Number.NaN
  #stalled: NodeJS.Timeout | undefined

  constructor(parts: ExchangeParts) {
    this.req = parts.req
    this.res = parts.res
    this.outbound = parts.outbound
    this.#pool = parts.pool
    this.#resolve = parts.resolve
    this.#reject = parts.reject
  }

  start(): void {
    if (this.res.destroyed) {
      this.#resolve()
      return
    }
    const length = bodyLength(this.req)
    const { maxBody } = this.outbound.route
    if (length !== undefined && maxBody !== undefined && length > maxBody) {
      this.res.shouldKeepAlive = false
      throw bodyTooLarge()
    }
    if (length !== 0) this.#openBody(length)
    this.res.on('close', () => this.#onClientClose())
    this.#pool.start(this, this.#body)
  }

  onRequestStart(control: UpstreamControl): void {
    this.#control = control
    this.#isReused = !this.#pool.isConnecting()
    if (this.#clientLeft) control.abort(new Error('client left'))
  }

  onResponseStart(control: UpstreamControl, status: number, parsed: ParsedHeaders, reason?: string): void {
    if (this.#clientLeft) return
    if (status < 200) {
      // Between the upstream and us; but each one begins the response timeout again.
      if (++this.#interimResponses > MOST_INTERIM) control.abort(new Error('too many interim responses'))
      return
    }
    if (status > 599) {
      control.abort(new Error('status code out of range'))
      return
    }
    const { res, outbound } = this
    const fields = responseHeaders(
      outbound.rules,
      control.rawHeaders as Buffer[],
      outbound.session !== undefined,
    )
    keepOurs(res, fields)
    this.#closeUnlessRead()
    res.writeHead(status, reason !== undefined && PRINTABLE.test(reason) ? reason : '', fields)
    this.#responseStarted = true
    this.#remaining = Number(parsed['content-length'] ?? Number.NaN)
    if (outbound.session && isEventStream(parsed)) this.#endWithSession(outbound.session)
    process.nextTick(flushHeaders, this)
  }

  onResponseData(control: UpstreamControl, chunk: Buffer): void {
    if (this.#clientLeft) return
    const isFirst = !this.#bytesWritten
    this.#bytesWritten = true
    this.#remaining -= chunk.length
    if (this.#remaining === 0) this.#endResponse(chunk, isFirst)
    else if (!this.res.write(chunk)) this.#waitForClient(control)
  }

  onResponseEnd(): void {
    if (!this.#responseEnded && !this.#clientLeft) this.#endResponse()
    this.#resolve()
  }

  onResponseError(_control: UpstreamControl, error: Error): void {
    if (this.#clientLeft || this.#responseEnded) this.#resolve()
    else if (this.#responseStarted) this.#truncate(error)
    else if (this.#mayRetry(error)) {
      this.#isRetried = true
      this.#pool.start(this, null)
    } else {
      this.#closeUnlessRead()
      this.#reject(this.#pool.failure(error))
    }
  }

  /** Sends the response's header before its body when the body lets us wait: an event stream begins with silence. */
  flush(): void {
    if (!this.#bytesWritten && !this.#responseEnded && !this.#clientLeft) this.res.flushHeaders()
  }

  /** An idle connection may end in the moment it is used again; that request was never looked at (RFC 9112 §9.3.1). */
  #mayRetry(error: Error): boolean {
    const isRepeatable = this.#body === null && REPEATABLE.has(this.req.method!)
    return isRepeatable && this.#isReused && !this.#isRetried && this.#pool.isConnectionLost(error)
  }

  #endResponse(lastChunk?: Buffer, isWhole = false): void {
    this.#responseEnded = true
    // As text, a small body leaves in one write with the header; Latin-1 keeps every byte.
    if (lastChunk && isWhole && lastChunk.length <= ONE_WRITE)
      this.res.end(lastChunk.toString('latin1'), 'latin1')
    else this.res.end(lastChunk)
  }

  #openBody(length: number | undefined): void {
    const { maxBody, timeout } = this.outbound.route
    if (length !== undefined) this.outbound.headers.push('content-length', String(length))
    continueIfExpected(this.req, this.res)
    this.#body = readBody(this.req, { maxBytes: maxBody, idleMs: timeout.idleMs })
  }

  /** Backpressure, for as long as the client takes at least something now and then. */
  #waitForClient(control: UpstreamControl): void {
    const { idleMs } = this.outbound.route.timeout
    control.pause()
    if (idleMs > 0) this.#stalled = setTimeout(() => this.res.destroy(), idleMs)
    this.res.once('drain', () => {
      clearTimeout(this.#stalled)
      // A drain may come while another response is being parsed, and the pool's parser cannot be entered twice.
      process.nextTick(resume, control)
    })
  }

  /** An event stream has no end of its own, so it must not outlive the session it was opened for. */
  #endWithSession(session: BffSession['hash']): void {
    const forget = this.#pool.live.add(session, () => {
      this.#endResponse()
      this.#control?.abort(new Error('the session ended'))
    })
    this.res.once('close', forget)
  }

  /** A clean end would make half a body look whole (RFC 9112 §8), so the client's connection is cut. */
  #truncate(error: Error): void {
    this.#clientLeft = true
    this.res.destroy()
    this.#reject(this.#pool.failure(error))
  }

  /** What the client still sends of this request must not be taken for its next one: the connection ends with the answer. */
  #closeUnlessRead(): void {
    if (this.#body !== null && !this.req.complete) this.res.shouldKeepAlive = false
  }

  #onClientClose(): void {
    clearTimeout(this.#stalled)
    if (this.#responseEnded) return
    this.#clientLeft = true
    this.#control?.abort(new Error('client left'))
    this.#resolve()
  }
}

type ParsedHeaders = Readonly<Record<string, string | string[] | undefined>>

/** Interim (1xx) responses to one request; more is a flood. */
const MOST_INTERIM = 20
/** Bytes of a body worth copying to save a write. */
const ONE_WRITE = 16_384

const PRINTABLE = /^[\x20-\x7e]*$/

function resume(control: UpstreamControl): void {
  control.resume()
}

function flushHeaders(exchange: Exchange): void {
  exchange.flush()
}

function isEventStream(parsed: ParsedHeaders): boolean {
  return String(parsed['content-type']).startsWith('text/event-stream')
}

/** Fields that earlier middleware set and that add to the upstream's own instead of giving way to them. */
function keepOurs(res: ServerResponse, fields: string[]): void {
  for (const name of ['vary', 'set-cookie']) {
    const value = res.getHeader(name)
    if (value === undefined) continue
    for (const one of Array.isArray(value) ? value : [String(value)]) fields.push(name, one)
  }
}
