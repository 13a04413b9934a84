import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Clock, systemClock } from '../async/clock.ts'
import { BffError } from '../errors.ts'

/** What a body may be that one of our own endpoints reads whole. */
export type SmallBodyRules = {
  /** The media types that it may have, without parameters and in lower case. */
  readonly types: readonly string[]
  readonly maxBytes: number
  /** What the whole body may take, in ms. */
  readonly withinMs: number
  readonly clock?: Pick<Clock, 'after'>
}

/**
 * Reads a body as text. Rejects before anything is read with `bad_request` for another media type or a content
 * coding, and with `body_too_large` for a length over the limit; later with `body_too_large`, or with `bad_request` for a
 * body that does not come in time (408), stops short or is no UTF-8. What is not read of it ends the connection with the answer.
 */
export async function readSmallBody(
  req: IncomingMessage,
  res: Pick<ServerResponse, 'writeContinue'>,
  { types, maxBytes, withinMs, clock = systemClock }: SmallBodyRules,
): Promise<string> {
  requireType(req, types)
  if (Number(req.headers['content-length'] ?? 0) > maxBytes) throw tooLarge(maxBytes)
  // Without a body the stream has ended before it began.
  if (req.readableEnded) return ''
  if (req.destroyed) throw bad('the body stopped short')
  // RFC 9110 §10.1.1: a client that waits for it sends the body only now, after every check.
  if (req.headers.expect !== undefined && req.httpVersion !== '1.0') res.writeContinue()
  const chunks: Buffer[] = []
  let received = 0
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const timer = clock.after(withinMs, () => reject(bad('the body did not come in time', 408)))
  function onData(chunk: Buffer): void {
    received += chunk.length
    if (received > maxBytes) reject(tooLarge(maxBytes))
    else chunks.push(chunk)
  }
  const onEnd = () => resolve()
  const onClose = () => reject(bad('the body stopped short'))
  req.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose)
  try {
    await promise
  } finally {
    timer.cancel()
    // The listener of errors stays: without one, an error ends the process.
    req.off('data', onData).off('end', onEnd).off('close', onClose)
    req.pause()
  }
  return textOf(Buffer.concat(chunks))
}

/** RFC 9110 §8.3, §8.4: what is sent in another way than the specification of the endpoint says is not read. */
function requireType({ headers }: IncomingMessage, types: readonly string[]): void {
  const [type = ''] = (headers['content-type'] ?? '').toLowerCase().split(';', 1)
  const coding = headers['content-encoding']?.trim().toLowerCase() ?? 'identity'
  if (!types.includes(type.trim())) throw bad(`send a body of type ${types.join(' or ')}`)
  if (coding !== 'identity') throw bad('send the body without a content coding')
}

function textOf(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw bad('the body is no UTF-8 text')
  }
}

function tooLarge(maxBytes: number): BffError {
  return new BffError('body_too_large', `the body is larger than ${maxBytes} bytes`)
}

function bad(why: string, status?: number): BffError {
  return new BffError('bad_request', why, { status })
}
