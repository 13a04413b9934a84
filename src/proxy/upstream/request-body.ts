import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { type BodyPace, watchPace } from '../../async/body-pace.ts'
import { BffError } from '../../errors.ts'
import type { OutboundRequest } from './upstream.ts'

/** What is known of a request when its body is asked for. */
type WithBody = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly outbound: OutboundRequest
  /** Told why no more of the body is wanted. The body itself never fails: that would be the upstream's to find out. */
  endBody(error: BffError): void
}

/** What of a body is the same for all. */
type BodyRules = {
  /** Told of each piece that arrives, and its bytes. */
  readonly bodyPassed: (bytes: number) => void
  readonly bodyPace: BodyPace
}

/**
 * Asks for the body of a request, with a copy of it if it may have to be sent again with another token, and announces
 * its `length` to the upstream; undefined = it is chunked.
 */
export function openBody(
  request: WithBody,
  length: number | undefined,
  rules: BodyRules,
): { body: Readable; copy: BodyCopy | undefined } {
  const { headers, accessToken, onRejectedToken } = request.outbound
  if (length !== undefined) headers.push('content-length', String(length))
  const copy = accessToken && onRejectedToken ? bodyCopy(length) : undefined
  return { body: readBody(request, rules, copy), copy }
}

/** Bytes of a body that are kept in case the request must be sent again. */
const MOST_COPIED = 65_536

/** A request body kept while it is streamed; it takes references, so that nothing is copied unless it is needed. */
export type BodyCopy = {
  add(chunk: Buffer): void
  /** The body, once all of it has arrived. */
  whole(): Buffer | undefined
}

/** A copy for a body of this many bytes; undefined when it is too long, or its length is not known. */
function bodyCopy(length: number | undefined): BodyCopy | undefined {
  if (length === undefined || length > MOST_COPIED) return undefined
  const chunks: Buffer[] = []
  let received = 0
  return {
    add(chunk) {
      chunks.push(chunk)
      received += chunk.length
    },
    whole: () => (received === length ? Buffer.concat(chunks) : undefined),
  }
}

/**
 * Length of a request body in bytes: 0 when there is none, undefined when it is chunked (RFC 9112 §6.3).
 * Throws `bad_request` for a transfer coding that would reach the upstream undecoded or undeclared.
 */
function bodyLength(req: IncomingMessage): number | undefined {
  const coding = req.headers['transfer-encoding']
  if (coding !== undefined) {
    // Node decodes the last coding only, and HTTP/1.0 has none: what remains would be misread downstream (RFC 9112 §6.1).
    if (coding.toLowerCase() === 'chunked' && req.httpVersion === '1.1') return undefined
    throw new BffError('bad_request', 'unsupported transfer coding', { headers: { connection: 'close' } })
  }
  const length = req.headers['content-length']
  return length === undefined ? 0 : Number(length)
}

/**
 * The length of a request's body as `bodyLength` tells it. Throws also `body_too_large`, and has the connection closed
 * then, when it declares more than `maxBytes`.
 */
export function acceptedLength(
  req: IncomingMessage,
  res: ServerResponse,
  maxBytes = Number.POSITIVE_INFINITY,
): number | undefined {
  const length = bodyLength(req)
  if (length === undefined || length <= maxBytes) return length
  res.shouldKeepAlive = false
  throw bodyTooLarge()
}

/**
 * The request's body as a stream of its own: the upstream's failure must end the body without ending the client's
 * connection, and the rest of a body that nobody wants must still be read past. Trailers are dropped. Ends the request
 * with `body_too_large` when more arrives than the route allows, and with `bad_request` when it comes too slowly; cuts
 * the client's connection when nothing comes for the route's idle time.
 */
function readBody(request: WithBody, { bodyPassed, bodyPace }: BodyRules, copy?: BodyCopy): Readable {
  const { req, res } = request
  const { maxBody = Number.POSITIVE_INFINITY, timeout } = request.outbound.route
  // RFC 9110 §10.1.1: to a client that waits for it, the body is wanted only now, after every check.
  if (req.headers.expect !== undefined && req.httpVersion !== '1.0') res.writeContinue()
  let received = 0
  let isAwaited = false
  const stalled = timeout.idleMs > 0 ? setTimeout(() => req.socket.destroy(), timeout.idleMs) : undefined
  const pace = watchPace(
    bodyPace,
    () => ({ isAwaited, received }),
    () => request.endBody(tooSlow()),
  )

  function onData(chunk: Buffer): void {
    stalled?.refresh()
    received += chunk.length
    copy?.add(chunk)
    bodyPassed(chunk.length)
    if (received > maxBody) request.endBody(bodyTooLarge())
    else if (!body.push(chunk)) {
      isAwaited = false
      req.pause()
    }
  }
  function stopTimers(): void {
    clearTimeout(stalled)
    clearInterval(pace)
  }
  function onEnd(): void {
    stopTimers()
    body.push(null)
  }

  const body = new Readable({
    read() {
      stalled?.refresh()
      isAwaited = true
      req.resume()
    },
    destroy(error, callback) {
      stopTimers()
      req.off('data', onData).off('end', onEnd)
      req.resume()
      callback(error)
    },
  })
  req.on('data', onData).on('end', onEnd).pause()
  return body
}

/** The refusal of a body over the route's `maxBody`. */
function bodyTooLarge(): BffError {
  return new BffError('body_too_large', 'the request body is larger than the route allows')
}

function tooSlow(): BffError {
  return new BffError('bad_request', 'the request body did not come in time', { status: 408 })
}
