/*
 * FRAGILE: everything in `proxy/` that relies on more than undici and Node document. Look at it with each new version of
 * either. `undocumented.test.ts` fails when one of these no longer holds, and says which.
 */
import type { ClientHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type ResponseParser = {
  headers: (Buffer | string)[]
  onHeadersComplete(status: number, isUpgrade: boolean, isKept: boolean): number
}

/**
 * RFC 9110 §15.2.1: a client passes over a `100 Continue` that it did not ask for. undici has no setting for that and ends
 * the connection. It keeps the connection's parser under a symbol on the socket; this parser is told of 102 instead, which
 * no handler looks at. Without it, such an upstream cannot be reached at all; it costs one call for each response.
 *
 * The same call makes text of the fields of a response, which undici keeps as bytes and decodes for itself alone: so they
 * are decoded once.
 */
export function readResponses(socket: Socket): void {
  const key = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'parser')
  const parser = key && (socket as unknown as Record<symbol, ResponseParser | null>)[key]
  if (!parser) return
  const { onHeadersComplete } = parser
  parser.onHeadersComplete = (status, isUpgrade, isKept) => {
    decode(parser.headers)
    return onHeadersComplete.call(parser, status === 100 ? 102 : status, isUpgrade, isKept)
  }
}

/** Latin-1 keeps every byte (RFC 9110 §5.5). undici, which takes text as well, decodes what it is left with by itself. */
function decode(fields: (Buffer | string)[]): void {
  for (let i = 0; i < fields.length; i += 1) fields[i] = fields[i]!.toString('latin1')
}

/**
 * undici takes the reset of a connection for the end of a body that has no other end, so half a body would look whole. It
 * adds its `error` listener while `connected` runs; ours before and after tell what it does in between. Returns whether
 * it is at that now.
 */
export function noteBreaks(socket: Socket, connected: () => void, isBreaking: (is: boolean) => void): void {
  socket.on('error', () => isBreaking(true))
  connected()
  socket.on('error', () => isBreaking(false))
}

/**
 * A stream that the upstream resets with NO_ERROR ends for its reader like one that ended well, and no event or property
 * tells them apart. Node calls `push(null)` at either end; at a reset the stream is `closed` by then. Without it, half a
 * body would look whole.
 */
export function noteStreamEnd(stream: ClientHttp2Stream, ended: (isWhole: boolean) => void): void {
  const { push } = stream
  stream.push = (chunk: unknown, encoding?: BufferEncoding) => {
    if (chunk === null) ended(!stream.closed)
    return push.call(stream, chunk, encoding)
  }
}

/** Bytes of bodies between two collections; each costs about a millisecond. */
const COLLECT_EVERY = 8_388_608

/**
 * Told of each piece of a body, it has V8 collect the young generation after every 8 MiB. Each piece arrives in a buffer
 * of its own, and V8 lets 64 MB of them pile up before it collects by itself: 2 GiB either way added 82 MB to the memory
 * of the process, and add 17 MB with this (`test/endurance/transfer.test.ts` allows 40 MB). Of 2 GiB in pieces of 64 KiB,
 * 98 MB of buffers are alive at most without it and 21 MB with it, in no more CPU time (264 and 188 ms).
 */
export function createBufferCollector(): (bytes: number) => void {
  const collect = youngCollection()
  let passed = 0
  return function bodyPassed(bytes) {
    passed += bytes
    if (passed < COLLECT_EVERY) return
    passed = 0
    collect?.({ type: 'minor' })
  }
}

/** V8 hands its collector to contexts that are made while it is exposed, and to no other. */
export function youngCollection(): ((options: { type: 'minor' }) => void) | undefined {
  setFlagsFromString('--expose-gc')
  try {
    return runInNewContext('globalThis.gc')
  } finally {
    setFlagsFromString('--no-expose-gc')
  }
}
