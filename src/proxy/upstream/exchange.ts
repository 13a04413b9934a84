import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { CircuitPeriod } from '../../async/circuit-breaker.ts'
import type { BffError } from '../../errors.ts'
import type { AccessToken } from '../access-token.ts'
import { replaceAccessToken } from '../headers/request.ts'
import { asksForEventStream } from '../session-end/event-streams.ts'
import type { Dispatch, ExchangeParts, ParsedHeaders, UpstreamControl } from './dispatch.ts'
import { HeldResponse, settleRejection, tokenChallenge } from './rejected-token.ts'
import { acceptedLength, type BodyCopy, openBody } from './request-body.ts'
import { ClientResponse, defectOf, keepOurs, MOST_INTERIM } from './response-writer.ts'
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
  readonly response: ClientResponse
  /** For `session-streams`: where and since when it is noted. */
  place = -1
  round = 0
  /** Bytes of the request's body; undefined when it is chunked. */
  #length: number | undefined
  #period: CircuitPeriod | undefined
  /** Ends the wait for a place, or for a connection. */
  #stopWaiting: (() => void) | undefined
  #control: UpstreamControl | undefined
  #body: Readable | null = null
  #copy: BodyCopy | undefined
  /** The body for sending the request again; null when it has none, undefined when it cannot be sent again. */
  #again: Buffer | null | undefined
  /** How often the connections have it that have not reported its end. */
  #underWay = 0
  #isReused = false
  /** The first byte of an answer has come, interim or not. */
  #isAnswering = false
  #isRetried = false
  #isTokenQuestioned = false
  #held: HeldResponse | undefined
  /** Of a response that was given up for another; what it still reports is nothing to us. */
  #discarded: UpstreamControl | undefined
  /** Resolved or rejected: what the upstream still says is of no interest. */
  #isOver = false
  #interimResponses = 0

  constructor(parts: ExchangeParts) {
    this.req = parts.req
    this.res = parts.res
    this.outbound = parts.outbound
    this.#pool = parts.pool
    this.#resolve = parts.resolve
    this.#reject = parts.reject
    this.response = new ClientResponse(parts.res, parts.outbound.route.timeout.idleMs, parts.pool.bodyPassed)
  }

  start(): void {
    if (this.res.destroyed) {
      this.#resolve()
      return
    }
    const { maxBody, timeout } = this.outbound.route
    this.#length = acceptedLength(this.req, this.res, maxBody)
    this.res.on('close', () => this.giveUp())
    if (this.outbound.session) this.#pool.streams.begin(this)
    if (asksForEventStream(this.req)) this.#pool.eventStreams.add(this)
    if (this.#isOver) return
    this.#stopWaiting = this.#pool.admission.enter(this, timeout.responseMs) ?? this.#stopWaiting
  }

  /** It is let through; its body is asked for only now, because it may have waited. */
  go(period: CircuitPeriod): void {
    this.#period = period
    if (this.#length !== 0)
      ({ body: this.#body, copy: this.#copy } = openBody(this, this.#length, this.#pool))
    this.#send(this.#body)
  }

  /** No more of its body is wanted. */
  endBody(error: BffError): void {
    if (this.giveUp(error) && this.response.isStarted) this.response.cut()
  }

  #send(body: Readable | Buffer | null): void {
    this.#underWay++
    this.#control = undefined
    this.#isAnswering = false
    this.#stopWaiting = this.#pool.limitWait?.(this)
    this.#pool.start(this, body, this.#isRetried)
  }

  onRequestStart(control: UpstreamControl): void {
    this.#stopWaiting?.()
    this.#control = control
    this.#isReused = !this.#pool.isConnecting()
    // Thrown, it ends the request and leaves the connection as it is: nothing was sent on it yet.
    if (this.#isOver) throw new Error('nobody waits for the answer any more')
  }

  onResponseStarted(): void {
    this.#isAnswering = true
  }

  onResponseStart(control: UpstreamControl, status: number, parsed: ParsedHeaders, reason?: string): void {
    if (this.#isOver) return
    if (status < 200) {
      // Between the upstream and us; but each one begins the response timeout again.
      if (++this.#interimResponses > MOST_INTERIM) control.abort(new Error('too many interim responses'))
      return
    }
    this.#pool.admission.answered()
    const defect = defectOf(status, parsed)
    if (defect !== undefined) {
      control.abort(new Error(defect))
      return
    }
    if (status === 401 && !this.#isTokenQuestioned && this.#holdRejection(control, parsed, reason)) return
    this.#copy = undefined
    const { route, session } = this.outbound
    const raw = control.rawHeaders as Buffer[]
    const fields = this.#pool.responseHeaders(route, raw, session !== undefined)
    keepOurs(this.res, fields)
    this.#closeUnlessRead()
    this.response.begin({ status, reason, fields, parsed })
    if (session && this.response.isEventStream) this.#pool.streams.bind(this)
    if (this.response.isUnending) this.#pool.eventStreams.add(this)
  }

  onResponseData(control: UpstreamControl, chunk: Buffer): void {
    if (this.#isOver) return
    if (this.#held) this.#held.add(chunk)
    else this.response.write(chunk, control)
  }

  onResponseEnd(control: UpstreamControl): void {
    if (this.#pool.isBreaking()) {
      this.onResponseError(control, new Error('the connection broke, and the body had no other end'))
      return
    }
    this.#underWay--
    if (this.#isOver) this.#leave()
    else if (this.#held) this.#held.isWhole = true
    else {
      if (!this.response.isEnded) this.response.end()
      this.#finish()
    }
  }

  /** `control` is absent when no connection was made. */
  onResponseError(control: UpstreamControl | null | undefined, error: Error): void {
    this.#underWay--
    if (this.#isOver) this.#leave()
    else if (control && control === this.#discarded) return
    else if (this.#held) this.#held.error = error
    else if (this.response.isEnded) this.#finish()
    else if (this.response.isStarted) {
      this.response.cut()
      this.#finish(this.#pool.failure(error))
    } else if (this.#mayRetry(error)) {
      this.#isRetried = true
      this.#send(null)
    } else {
      const isNew = !this.#isReused && !this.#isAnswering
      const connection = this.#control === undefined ? 'none' : isNew ? 'new' : 'used'
      const noAnswer = this.#pool.noAnswer(error, connection)
      if (noAnswer) this.#pool.admission.failed(this.#period!, noAnswer)
      this.refuse(this.#pool.failure(error))
    }
  }

  /** An idle connection may end in the moment it is used again; that request was never looked at (RFC 9112 §9.3.1). */
  #mayRetry(error: Error): boolean {
    if (this.#isRetried || this.#body !== null || !REPEATABLE.has(this.req.method!)) return false
    return this.#isReused && !this.#isAnswering && this.#pool.isConnectionLost(error)
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
    this.#send(this.#again ?? null)
  }

  /** Ends the hold; false when the client has left meanwhile. */
  release(discarded?: UpstreamControl): boolean {
    this.#held = undefined
    this.#discarded = discarded
    return !this.#isOver
  }

  /** Ends the exchange without a response. */
  refuse(error: BffError): void {
    this.#closeUnlessRead()
    this.#finish(error)
  }

  /** What the client still sends of this request must not be taken for its next one: the connection ends with the answer. */
  #closeUnlessRead(): void {
    if (this.#body !== null && !this.req.complete) this.res.shouldKeepAlive = false
  }

  /** Ends the exchange in the middle: nobody wants the answer any more, or may have it. False when it had ended. */
  giveUp(error?: BffError): boolean {
    this.response.forget()
    if (this.#isOver || this.response.isEnded) return false
    this.#closeUnlessRead()
    this.#finish(error)
    this.#control?.abort(new Error('nobody waits for the answer any more'))
    return true
  }

  /**
   * For a shutdown. Without an answer the connection is cut: to an error response an EventSource gives up, and a load
   * balancer in between asks another replica only when there was none.
   */
  stop(): void {
    const { isStarted, isUnending } = this.response
    if (isStarted && !isUnending) return
    if (!this.giveUp()) return
    if (isStarted) this.response.stop()
    else this.response.cut()
  }

  #finish(error?: BffError): void {
    if (this.#isOver) return
    this.#isOver = true
    if (this.outbound.session) this.#pool.streams.leave(this)
    this.#pool.eventStreams.remove(this)
    this.#stopWaiting?.()
    // Over HTTP/2 nobody else would stop it: the connection outlives the answer.
    this.#body?.destroy()
    if (error) this.#reject(error)
    else this.#resolve()
    this.#leave()
  }

  /** Makes room once no connection has anything more to do with the request. */
  #leave(): void {
    if (this.#underWay > 0 || this.#period === undefined) return
    this.#pool.admission.leave(this.#period)
    this.#period = undefined
  }
}
