/*
 * Longer than most files, because one exchange is one story: whatever may happen between a request and the end of its
 * answer is told here in the order in which it happens.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import type { BodyPace } from '../../async/body-pace.ts'
import type { CircuitPeriod } from '../../async/circuit-breaker.ts'
import type { Clock } from '../../async/clock.ts'
import type { RouteConfig } from '../../config/config.ts'
import { BffError, withLogged } from '../../errors.ts'
import type { BffSession } from '../../session/session.ts'
import type { AccessToken } from '../../tokens/record/sealing.ts'
import type { TokenChallenge } from '../../tokens/rejected-token.ts'
import { inTime } from '../access-token.ts'
import { replaceAccessToken } from '../headers/request.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import type { LongAnswer, LongAnswers } from '../session-end/live-connections.ts'
import {
  type Dispatcher,
  failureOf,
  isConnectionLost,
  noAnswerOf,
  noConnectionInTime,
  type ParsedHeaders,
  type ResponseController,
  type ResponseHandler,
  refusalOf,
  type UpstreamFailure,
} from './dispatcher.ts'
import type { Admission, WaitingRequest } from './pool.ts'
import { BufferedResponse, type SentToken, tokenChallenge } from './rejected-token.ts'
import {
  arrivedBody,
  type BodyCopy,
  bodyTooLarge,
  createBodyCopy,
  mayHaveArrived,
  readBody,
} from './request-body.ts'
import { ClientResponse, defectOf, keepOurs, MAX_INTERIM } from './response-writer.ts'
import type { TokenProofs } from './token-proofs.ts'

/** One request as it goes to its upstream. */
export type OutboundRequest = SentToken & {
  readonly route: RouteConfig
  /** Path and query, in origin-form. */
  readonly target: string
  /** Flat list of names and values, without `Host` and framing. */
  readonly headers: string[]
}

/** Told how each request to an upstream went, by the id of its route. */
export type UpstreamObserver = {
  /** The head of its answer came so many seconds after the request. */
  readonly upstreamAnswered: (route: string, seconds: number) => void
  readonly upstreamFailed: (route: string, reason: UpstreamFailure) => void
}

/** An upstream as exchanges use it. */
export type Upstream = {
  readonly admission: Admission
  readonly dispatcher: Dispatcher
  readonly longAnswers: LongAnswers
  /** Absent: every access token is sent as a bearer token. */
  readonly tokenProofs?: TokenProofs | undefined
  readonly responseHeaders: ResponseHeaders
  /** Runs work of a request as such, and not as that of the request which opened the connection. */
  readonly runFor: <T>(req: IncomingMessage, work: () => T) => T
  readonly bodyPace: BodyPace
  readonly clock: Clock
  readonly observe?: UpstreamObserver | undefined
  /** Told of each piece of a body, either way, and its bytes. */
  readonly bodyPassed: (bytes: number) => void
}

/** Told once that an exchange is over, and with what it failed. */
export type Over = (error?: BffError) => void

/**
 * Sends a request to its upstream and streams the response to the client; `over` is told when that is over, also when the
 * client left. It fails with `upstream_unreachable`, `upstream_timeout`, `body_too_large` or `bad_request`: nothing was
 * sent to the client then, unless `res.headersSent`, when its connection has been cut to show the truncation. It fails
 * also with what `onRejectedToken` rejected with. Throws `body_too_large` or `bad_request` for a body that is refused
 * beforehand, and `over` is not told then.
 */
export type Send = (req: IncomingMessage, res: ServerResponse, outbound: OutboundRequest, over: Over) => void

/** Sends each request to the upstream of its route. */
export function createSend(upstreams: ReadonlyMap<RouteConfig, Upstream>): Send {
  return function send(req, res, outbound, over) {
    const upstream = upstreams.get(outbound.route)!
    new Exchange({ req, res, outbound, upstream, over }).start()
  }
}

/** What makes an exchange; `over` is told of its end. */
type ExchangeParts = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly outbound: OutboundRequest
  readonly upstream: Upstream
  readonly over: Over
}

/**
 * Length of a request body in bytes: 0 when there is none, undefined when it is chunked (RFC 9112 §6.3).
 * Throws `bad_request` for a transfer coding that would reach the upstream undecoded or undeclared.
 */
function bodyLength({ headers, httpVersion }: IncomingMessage): number | undefined {
  const coding = headers['transfer-encoding']
  if (coding !== undefined) {
    // Node decodes the last coding only, and HTTP/1.0 has none: the upstream would misread the rest (RFC 9112 §6.1).
    if (coding.toLowerCase() === 'chunked' && httpVersion === '1.1') return undefined
    throw new BffError('bad_request', 'unsupported transfer coding', { headers: { connection: 'close' } })
  }
  const length = headers['content-length']
  return length === undefined ? 0 : Number(length)
}

/** RFC 9110 §9.2.2: sending these twice does no more than sending them once. */
const REPEATABLE = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * One request and its response:
 *
 * 1. `start`: a body that the route does not take is refused.
 * 2. `admission.enter`: the circuit of the upstream is closed, and a permit is free.
 * 3. `go`: the body is asked for, and the request dispatched to a connection.
 * 4. `onRequestStart`: a connection sends it.
 * 5. `onResponseStart`: the head goes to the client; or it is a 401 that refuses our token, and is buffered.
 * 6. `onResponseData`: the body follows, as fast as the client reads.
 * 7. `onResponseEnd`, or `onResponseError`: the same request again, a cut connection, or a refusal.
 *
 * `giveUp` ends it early at any step. A class, because thousands live at once and share their methods.
 */
class Exchange implements WaitingRequest, ResponseHandler, LongAnswer {
  readonly req: IncomingMessage
  readonly session: BffSession | undefined
  readonly response: ClientResponse
  longAt = 0
  older: LongAnswer | undefined
  newer: LongAnswer | undefined
  readonly #res: ServerResponse
  readonly #outbound: OutboundRequest
  readonly #upstream: Upstream
  readonly #over: Over
  /** Bytes of the request's body; undefined when it is chunked. */
  #length: number | undefined
  /** Of the circuit breaker; undefined unless it was let through. */
  #period: CircuitPeriod | undefined
  /** Ends the wait for a permit, or for a connection. */
  #stopWaiting: (() => void) | undefined
  /** A stream, unless all of it came with the head. */
  #body: Readable | Buffer | null = null
  #bodyCopy: BodyCopy | undefined
  #controller: ResponseController | undefined
  /** Dispatches whose end has not been reported. */
  #inFlight = 0
  #isReused = false
  #sentAt = 0
  /** The first byte of a response has come, interim or not. */
  #isAnswering = false
  #interimResponses = 0
  #isRetried = false
  #isTokenQuestioned = false
  /** The one that is sent, which may have taken the place of the first. */
  #token: AccessToken | undefined
  /** An answer wanted a nonce in the proof. */
  #isProvedAgain = false
  #buffered: BufferedResponse | undefined
  /** Of a response that was given up for another; its further reports are ignored. */
  #discarded: ResponseController | undefined
  /** `over` is told, or will be in a moment. */
  #isOver = false

  constructor({ req, res, outbound, upstream, over }: ExchangeParts) {
    this.req = req
    this.session = outbound.session
    this.#token = outbound.accessToken
    this.response = new ClientResponse(res, outbound.route.timeout.idleMs, upstream)
    this.#res = res
    this.#outbound = outbound
    this.#upstream = upstream
    this.#over = over
  }

  /** Steps 1 and 2. */
  start(): void {
    if (this.#res.destroyed) {
      this.#over()
      return
    }
    const { maxBody = Number.POSITIVE_INFINITY, timeout } = this.#outbound.route
    this.#length = bodyLength(this.req)
    if (this.#length !== undefined && this.#length > maxBody) {
      this.#res.shouldKeepAlive = false
      throw bodyTooLarge()
    }
    this.#res.on('close', () => this.giveUp())
    this.#upstream.longAnswers.begin(this)
    if (this.#isOver) return
    this.#stopWaiting = this.#upstream.admission.enter(this, timeout.responseMs) ?? this.#stopWaiting
  }

  /** Step 3. The body is asked for only now, because the request may have waited. */
  go(period: CircuitPeriod): void {
    this.#period = period
    if (this.#length === 0) this.#dispatch(null)
    // What came with the head, or right behind it, is here once the reads of this turn of the event loop are done.
    else if (mayHaveArrived(this.#length)) setImmediate(sendWithBody, this)
    else this.sendWithBody()
  }

  sendWithBody(): void {
    if (this.#isOver) return
    const length = this.#length
    if (length !== undefined) this.#outbound.headers.push('content-length', String(length))
    this.#body = (mayHaveArrived(length) && arrivedBody(this.req, length)) || this.#openBody(length)
    if (this.#body instanceof Buffer) this.#upstream.bodyPassed(this.#body.length)
    this.#dispatch(this.#body)
  }

  #openBody(length: number | undefined): Readable {
    const { route, accessToken, onRejectedToken } = this.#outbound
    this.#bodyCopy = accessToken && onRejectedToken ? createBodyCopy(length) : undefined
    return readBody({
      req: this.req,
      res: this.#res,
      maxBody: route.maxBody,
      idleMs: route.timeout.idleMs,
      pace: this.#upstream.bodyPace,
      passed: this.#upstream.bodyPassed,
      clock: this.#upstream.clock,
      copy: this.#bodyCopy,
      refuse: (error) => {
        if (this.giveUp(error) && this.response.isStarted) this.response.cut()
      },
    })
  }

  #dispatch(body: Readable | Buffer | null): void {
    const { route, target, headers } = this.#outbound
    const { responseMs, idleMs } = route.timeout
    const { tokenProofs } = this.#upstream
    // A proof is for one request, so each try has its own.
    if (tokenProofs && this.#token)
      tokenProofs.prove(headers, { route, target, method: this.req.method!, token: this.#token })
    this.#inFlight++
    this.#sentAt = this.#upstream.clock.monotonicNow()
    this.#controller = undefined
    this.#isAnswering = false
    this.#stopWaiting = this.#upstream.dispatcher.isQueueUntimed ? this.#limitWait() : undefined
    this.#upstream.dispatcher.dispatch(
      {
        method: this.req.method!,
        path: target,
        headers,
        body,
        headersTimeout: responseMs,
        bodyTimeout: idleMs,
      },
      this,
      this.#isRetried,
    )
  }

  #limitWait(): () => void {
    const { connectMs, responseMs } = this.#outbound.route.timeout
    const timer = this.#upstream.clock.after(connectMs + responseMs, () => this.refuse(noConnectionInTime()))
    return () => timer.cancel()
  }

  /** Step 4. */
  onRequestStart(controller: ResponseController): void {
    this.#stopWaiting?.()
    this.#controller = controller
    this.#isReused = !this.#upstream.dispatcher.isConnecting()
    // Thrown, it ends the request and leaves the connection as it is: nothing was sent on it yet.
    if (this.#isOver) throw new Error('the request was given up')
  }

  onResponseStarted(): void {
    this.#isAnswering = true
  }

  /** Step 5. */
  onResponseStart(
    controller: ResponseController,
    status: number,
    parsed: ParsedHeaders,
    reason?: string,
  ): void {
    if (this.#isOver) return
    if (status < 200) {
      // Interim responses concern this hop only. They are counted, because each begins the response timeout again.
      if (++this.#interimResponses > MAX_INTERIM) controller.abort(new Error('too many interim responses'))
      return
    }
    this.#upstream.admission.answered()
    const { clock, observe } = this.#upstream
    observe?.upstreamAnswered(this.#outbound.route.id, (clock.monotonicNow() - this.#sentAt) / 1000)
    const defect = defectOf(status, parsed)
    if (defect !== undefined) {
      controller.abort(new Error(defect))
      return
    }
    const { tokenProofs } = this.#upstream
    const lacksNonce = tokenProofs?.lacksNonce(this.#outbound, { status, headers: parsed })
    if (lacksNonce && this.#provesAgain(new BufferedResponse(controller, parsed, reason))) return
    if (status === 401 && !this.#isTokenQuestioned) {
      const challenge = tokenChallenge(this.#outbound, parsed)
      if (challenge) {
        const buffered = new BufferedResponse(controller, parsed, reason)
        this.#upstream.runFor(this.req, () => this.#question(challenge, buffered))
        return
      }
    }
    this.#bodyCopy = undefined
    const raw = controller.rawHeaders as string[]
    const fields = this.#upstream.responseHeaders(this.#outbound.route, raw, this.session !== undefined)
    keepOurs(this.#res, fields)
    this.#closeUnlessRead()
    this.response.begin({ status, reason, fields, parsed })
    this.#upstream.longAnswers.started(this)
  }

  /** Step 6. */
  onResponseData(controller: ResponseController, chunk: Buffer): void {
    if (this.#isOver) return
    if (this.#buffered) this.#buffered.add(chunk)
    else this.response.write(chunk, controller)
  }

  /** Step 7, when all went well. */
  onResponseEnd(controller: ResponseController): void {
    if (this.#upstream.dispatcher.isBreaking()) {
      const reason = new Error('the connection broke, and the body had no other end')
      this.onResponseError(controller, Object.assign(reason, { code: 'ECONNRESET' }))
      return
    }
    this.#inFlight--
    if (this.#isOver) this.#leave()
    else if (this.#buffered) this.#buffered.isWhole = true
    else {
      if (!this.response.isEnded) this.response.end()
      this.#finish()
    }
  }

  /** Step 7, when something failed. */
  onResponseError(controller: ResponseController | null | undefined, error: Error): void {
    this.#inFlight--
    if (this.#isOver) this.#leave()
    else if (controller && controller === this.#discarded) return
    else if (this.#buffered) this.#buffered.error = error
    else if (this.response.isEnded) this.#finish()
    else if (this.response.isStarted) {
      this.response.cut()
      this.#noteFailure(failureOf(error))
      this.#finish(this.#located(refusalOf(error)))
    } else if (this.#mayRetry(error)) {
      this.#isRetried = true
      this.#dispatch(null)
    } else {
      const isNew = !this.#isReused && !this.#isAnswering
      const connection = this.#controller === undefined ? 'none' : isNew ? 'new' : 'used'
      const noAnswer = noAnswerOf(error, connection)
      if (noAnswer) this.#upstream.admission.failed(this.#period!, noAnswer)
      this.#noteFailure(failureOf(error))
      this.#refuse(this.#located(refusalOf(error)))
    }
  }

  /** Says in the log whose fault it is. */
  #located(error: BffError): BffError {
    const { id: route, upstream } = this.#outbound.route
    return withLogged(error, { route, upstream })
  }

  /** An idle connection may end in the moment it is used again; that request was never looked at (RFC 9112 §9.3.1). */
  #mayRetry(error: Error): boolean {
    if (this.#isRetried || this.#body !== null || !REPEATABLE.has(this.req.method!)) return false
    return this.#isReused && !this.#isAnswering && isConnectionLost(error)
  }

  /**
   * Whether the request is sent again because its proof lacked the upstream's nonce (RFC 9449 §9): once, and with a body
   * that is still whole.
   */
  #provesAgain(buffered: BufferedResponse): boolean {
    const body = this.#wholeBody()
    const isRepeatable = body !== undefined && this.#upstream.dispatcher.isOpen()
    if (this.#isProvedAgain || this.#token?.key === undefined || !isRepeatable) return false
    this.#isProvedAgain = true
    this.#isReused = false
    this.#buffered = buffered
    // Later, because the connection is in the middle of its report.
    queueMicrotask(() => {
      if (this.#discard(buffered)) this.#dispatch(body)
    })
    return true
  }

  /** The buffered 401: asks what becomes of it, and does it. Once for each exchange. */
  async #question(challenge: TokenChallenge, buffered: BufferedResponse): Promise<void> {
    const { session, accessToken, onRejectedToken, route } = this.#outbound
    this.#isTokenQuestioned = true
    // The connection answered, so a later failure is not its idle end.
    this.#isReused = false
    this.#buffered = buffered
    const repeatable = this.#wholeBody()
    const isRepeatable = () => repeatable !== undefined && this.#upstream.dispatcher.isOpen()
    try {
      const rejected = { token: accessToken!, challenge, isRepeatable: isRepeatable() }
      const reaction = await inTime(onRejectedToken!(session!, route.resource!, rejected), {
        timeoutMs: route.timeout.responseMs,
        client: this.#res,
      })
      if (!reaction) this.#discard(buffered)
      // Asked again: the dispatcher may have begun to close.
      else if (reaction.kind === 'relay' || !isRepeatable()) this.#relay(buffered)
      else if (this.#discard(buffered)) this.#resend(repeatable ?? null, reaction.token)
    } catch (error) {
      if (this.#discard(buffered)) this.#refuse(error as BffError)
    }
  }

  /** To send it again; null when there is none, undefined when it is not here as a whole. */
  #wholeBody(): Buffer | null | undefined {
    return this.#body instanceof Readable ? this.#bodyCopy?.whole() : this.#body
  }

  /** False when the client has left meanwhile. */
  #discard(buffered: BufferedResponse): boolean {
    this.#buffered = undefined
    this.#discarded = buffered.controller
    const isWanted = !this.#isOver
    buffered.discard()
    return isWanted
  }

  #relay(buffered: BufferedResponse): void {
    this.#buffered = undefined
    this.#discarded = undefined
    if (!this.#isOver) buffered.replayTo(this, () => !this.response.isWaiting)
  }

  #resend(body: Buffer | null, token: AccessToken): void {
    this.#token = token
    replaceAccessToken(this.#outbound.headers, token.value)
    this.#dispatch(body)
  }

  /** The upstream is not asked: its circuit is open, or no connection fell free. */
  refuse(error: BffError): void {
    this.#noteFailure(error.code === 'upstream_timeout' ? 'no_connection' : 'circuit_open')
    this.#refuse(error)
  }

  #noteFailure(reason: UpstreamFailure | undefined): void {
    if (reason) this.#upstream.observe?.upstreamFailed(this.#outbound.route.id, reason)
  }

  /** Ends the exchange without a response. */
  #refuse(error: BffError): void {
    this.#closeUnlessRead()
    this.#finish(error)
  }

  /** Ends the exchange at any step. False when it had ended. */
  giveUp(error?: BffError): boolean {
    this.response.forget()
    if (this.#isOver || this.response.isEnded) return false
    this.#closeUnlessRead()
    this.#finish(error)
    this.#controller?.abort(new Error('the request was given up'))
    return true
  }

  /** Closes the client's connection after the answer: the unread rest of this body must not be taken for a request. */
  #closeUnlessRead(): void {
    if (this.#body !== null && !this.req.complete) this.#res.shouldKeepAlive = false
  }

  #finish(error?: BffError): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#upstream.longAnswers.leave(this)
    this.#stopWaiting?.()
    // Over HTTP/2 the connection outlives the response, and would go on reading it.
    if (this.#body instanceof Readable) this.#body.destroy()
    // Later, because the failure was found in the middle of something: a parser, a body, a cut connection.
    if (error) queueMicrotask(() => this.#over(error))
    else this.#over()
    this.#leave()
  }

  /** Gives the permit back once no connection has anything more to do with the request. */
  #leave(): void {
    if (this.#inFlight > 0 || this.#period === undefined) return
    this.#upstream.admission.leave(this.#period)
    this.#period = undefined
  }
}

/** An error would end the process here, because what calls this handles none. */
function sendWithBody(exchange: Exchange): void {
  try {
    exchange.sendWithBody()
  } catch (error) {
    exchange.giveUp(error as BffError)
  }
}
