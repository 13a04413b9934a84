import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { BffError } from '../errors.ts'
import { responseHeaders } from './headers.ts'
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
    if (status < 200 || this.#clientLeft) return
    if (status > 599) {
      control.abort(new Error('status code out of range'))
      return
    }
    const { res, outbound } = this
    const fields = responseHeaders(outbound.rules, control.rawHeaders as Buffer[], outbound.isAuthenticated)
    keepOurs(res, fields)
    this.#closeUnlessRead()
    res.writeHead(status, reason !== undefined && PRINTABLE.test(reason) ? reason : '', fields)
    this.#responseStarted = true
    this.#remaining = Number(parsed['content-length'] ?? Number.NaN)
    process.nextTick(flushHeaders, this)
  }

  onResponseData(control: UpstreamControl, chunk: Buffer): void {
    if (this.#clientLeft) return
    this.#bytesWritten = true
    this.#remaining -= chunk.length
    if (this.#remaining === 0) this.#endResponse(chunk)
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

  #endResponse(chunk?: Buffer): void {
    this.#responseEnded = true
    this.res.end(chunk)
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
      control.resume()
    })
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

const PRINTABLE = /^[\x20-\x7e]*$/

function flushHeaders(exchange: Exchange): void {
  exchange.flush()
}

/** Fields that earlier middleware set and that add to the upstream's own instead of giving way to them. */
function keepOurs(res: ServerResponse, fields: string[]): void {
  for (const name of ['vary', 'set-cookie']) {
    const value = res.getHeader(name)
    if (value === undefined) continue
    for (const one of Array.isArray(value) ? value : [String(value)]) fields.push(name, one)
  }
}
