import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { type BodyPace, watchPace } from '../../async/body-pace.ts'
import type { Clock } from '../../async/clock.ts'
import { BffError } from '../../errors.ts'

/** What a request body is read by. */
export type BodyReading = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  /** Most bytes; no limit unless given. */
  readonly maxBody: number | undefined
  /** The client's connection is cut when nothing comes for so long; 0 = never. */
  readonly idleMs: number
  readonly pace: BodyPace
  readonly clock: Pick<Clock, 'after'>
  /** Told of each piece that arrives, and its bytes. */
  readonly passed: (bytes: number) => void
  /** Keeps what passes, in case the request must be sent again. */
  readonly copy: BodyCopy | undefined
  /** Told why no more of the body is wanted. The body itself never fails, because that would look like the upstream's fault. */
  readonly refuse: (error: BffError) => void
}

/** Bytes of a body that are kept in case the request must be sent again. */
const MAX_COPIED = 65_536

/** A request body kept while it is streamed. It keeps references, so that nothing is copied unless it is needed. */
export type BodyCopy = {
  add(chunk: Buffer): void
  /** The body, once all of it has arrived. */
  whole(): Buffer | undefined
}

/** A copy for a body of this many bytes; undefined when it is too long, or its length is not known. */
export function createBodyCopy(length: number | undefined): BodyCopy | undefined {
  if (length === undefined || length > MAX_COPIED) return undefined
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
 * Whether a body of so many bytes may have come with its head, which is worth waiting for until the reads of this turn of
 * the event loop are done. Undefined: it is chunked.
 */
export function mayHaveArrived(length: number | undefined): length is number {
  return length !== undefined && length <= MAX_COPIED
}

/**
 * The whole of a body that is here already, which needs no stream, no timers and no copy, and leaves in one write with the
 * head. Undefined when some of it is still to come, or its client waits to be asked for it; nothing of it has been read then.
 */
export function arrivedBody(req: IncomingMessage, length: number): Buffer | undefined {
  if (!req.complete || req.readableLength !== length || req.headers.expect !== undefined) return undefined
  // Without a size, one piece of several is read from Node 26 on.
  return req.read(length) ?? undefined
}

/**
 * The request's body as a stream of its own, because a failure of the upstream must not end the client's connection, and
 * the rest of a body that is not wanted must still be read past. Trailers are dropped. Refuses with `body_too_large` when
 * more arrives than the route allows, and with `bad_request` when it comes too slowly.
 */
export function readBody({
  req,
  res,
  idleMs,
  passed,
  copy,
  refuse,
  clock,
  ...limits
}: BodyReading): Readable {
  const { maxBody = Number.POSITIVE_INFINITY } = limits
  // RFC 9110 §10.1.1: a client that waits for it sends the body only now, after every check.
  if (req.headers.expect !== undefined && req.httpVersion !== '1.0') res.writeContinue()
  let received = 0
  let isAwaited = false
  const stalled = idleMs > 0 ? clock.after(idleMs, () => req.socket.destroy()) : undefined
  const look = () => ({ isAwaited, received })
  const pace = watchPace(limits.pace, { look, tooSlow: () => refuse(tooSlow()) }, clock)

  function onData(chunk: Buffer): void {
    stalled?.restart()
    received += chunk.length
    copy?.add(chunk)
    passed(chunk.length)
    if (received > maxBody) refuse(bodyTooLarge())
    else if (!body.push(chunk)) {
      isAwaited = false
      req.pause()
    }
  }
  function stopTimers(): void {
    stalled?.cancel()
    pace?.cancel()
  }
  function onEnd(): void {
    stopTimers()
    body.push(null)
  }

  const body = new Readable({
    read() {
      stalled?.restart()
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
export function bodyTooLarge(): BffError {
  return new BffError('body_too_large', 'the request body is larger than the route allows')
}

function tooSlow(): BffError {
  return new BffError('bad_request', 'the request body did not come in time', { status: 408 })
}
