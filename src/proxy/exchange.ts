import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { BffError } from '../errors.ts'
import type { BffSession } from '../session/bff-session.ts'
import type { AccessToken } from './access-token-source.ts'
import type { Dispatch, ExchangeParts, ParsedHeaders, UpstreamControl } from './dispatch.ts'
import { isEventStream, keepOurs, replaceAccessToken, responseHeaders } from './headers.ts'
import { HeldResponse, settleRejection, tokenChallenge } from './rejected-token.ts'
import { type BodyCopy, bodyCopy, bodyLength, bodyTooLarge, readBody } from './request-body.ts'
import type { OutboundRequest } from './upstream.ts'

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
  #copy: BodyCopy | undefined
  /** The body for sending the request again; null when it has none, undefined when it cannot be sent again. */
  #again: Buffer | null | undefined
  #isReused = false
  #isRetried = false
  #isTokenQuestioned = false
  #held: HeldResponse | undefined
  /** Of a response that was given up for another; what it still reports is nothing to us. */
  #discarded: UpstreamControl | undefined
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
    if (status === 401 && !this.#isTokenQuestioned && this.#holdRejection(control, parsed, reason)) return
    this.#copy = undefined
    const { res } = this
    const { rules, session } = this.outbound
    const fields = responseHeaders(rules, control.rawHeaders as Buffer[], session !== undefined)
    keepOurs(res, fields)
    this.#closeUnlessRead()
    res.writeHead(status, reason !== undefined && PRINTABLE.test(reason) ? reason : '', fields)
    this.#responseStarted = true
    this.#remaining = Number(parsed['content-length'] ?? Number.NaN)
    if (session && isEventStream(parsed)) this.#endWithSession(session.hash)
    process.nextTick(flushHeaders, this)
  }

  onResponseData(control: UpstreamControl, chunk: Buffer): void {
    if (this.#clientLeft) return
    if (this.#held) {
      this.#held.add(chunk)
      return
    }
    const isFirst = !this.#bytesWritten
    this.#bytesWritten = true
    this.#remaining -= chunk.length
    if (this.#remaining === 0) this.#endResponse(chunk, isFirst)
    else if (!this.res.write(chunk)) this.#waitForClient(control)
  }

  onResponseEnd(): void {
    if (this.#held) this.#held.isWhole = true
    else {
      if (!this.#responseEnded && !this.#clientLeft) this.#endResponse()
      this.#resolve()
    }
  }

  /** `control` is absent when no connection was made. */
  onResponseError(control: UpstreamControl | null | undefined, error: Error): void {
    if (control && control === this.#discarded) return
    if (this.#held) this.#held.error = error
    else if (this.#clientLeft || this.#responseEnded) this.#resolve()
    else if (this.#responseStarted) this.#truncate(error)
    else if (this.#mayRetry(error)) {
      this.#isRetried = true
      this.#pool.start(this, null)
    } else this.refuse(this.#pool.failure(error))
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

  /** Holds back a 401 that refuses our token until it is known what becomes of it; false when it is any other. */
  #holdRejection(control: UpstreamControl, parsed: ParsedHeaders, reason?: string): boolean {
    const challenge = tokenChallenge(this.outbound, parsed)
    if (!challenge) return false
    this.#isTokenQuestioned = true
    // The connection answered, so what may fail from here on is not its idle end.
    this.#isReused = false
    this.#again = this.#body === null ? null : this.#copy?.whole()
    this.#held = new HeldResponse(control, parsed, reason)
    settleRejection(this, this.#held, challenge)
    return true
  }

  /** Whether the request can be sent again now that its response is held back. */
  canResend(): boolean {
    return this.#again !== undefined && this.#pool.isOpen()
  }

  /** Sends the request again, with another token. */
  resend(token: AccessToken): void {
    replaceAccessToken(this.outbound.headers, token.value)
    this.#pool.start(this, this.#again ?? null)
  }

  /** Ends the hold; false when the client has left meanwhile. */
  release(discarded?: UpstreamControl): boolean {
    this.#held = undefined
    this.#discarded = discarded
    return !this.#clientLeft
  }

  /** Ends the exchange without a response. */
  refuse(error: BffError): void {
    this.#closeUnlessRead()
    this.#reject(error)
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
    if (this.outbound.accessToken && this.outbound.onRejectedToken) this.#copy = bodyCopy(length)
    this.#body = readBody(this.req, this.res, { maxBytes: maxBody, idleMs: timeout.idleMs, copy: this.#copy })
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
