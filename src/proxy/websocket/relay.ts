import type { Socket } from 'node:net'
import type { EndReason } from '../session-end/live-connections.ts'
import { closeFrame, createFrameTracker, type FrameSender } from './frames.ts'

/** RFC 6455 §7.4.1: 1008 is a policy violation, 1001 an endpoint that goes away. */
const FAREWELLS: Readonly<Record<EndReason | 'idle', { code: number; reason: string }>> = {
  session_over: { code: 1008, reason: 'session ended' },
  shutdown: { code: 1001, reason: 'shutting down' },
  idle: { code: 1001, reason: 'idle for too long' },
}

/** How long a frame that is on its way may take to its end when the tunnel is to close. */
const LAST_FRAME_MS = 1_000
/** How long both sides may take, counted from the same moment, to answer the close frame. */
const ANSWER_MS = 2_000
/** How long the second socket of a tunnel may take to send what it still holds when the first has closed. */
const LAST_WORDS_MS = 2_000
/** First probe of a silent connection: a peer that vanished without a word is noticed by the system then. */
const KEEP_ALIVE_MS = 30_000

/** One direction of a tunnel. */
type Leg = {
  readonly to: Socket
  /** Passes nothing on any more but the rest of the frame that is on its way, and the farewell after it. */
  finish(farewell: Buffer): void
  /** Whether `to` has had its last byte. */
  isFinished(): boolean
  /** Whether `from` has sent its close frame. */
  hasClosed(): boolean
}

/**
 * Looks after the two sockets of an open tunnel, which are piped into each other already: they end together, also when
 * no byte has passed either way for `idleMs`. Returns what closes the tunnel in WebSocket's own way: a close frame to
 * each side, at the end of a frame, and the sockets when both have answered, or 2 s later.
 */
export function pairSockets(client: Socket, upstream: Socket, idleMs: number): (reason: EndReason) => void {
  let isClosing = false
  const toUpstream = createLeg('client', client, upstream, settle)
  const toClient = createLeg('server', upstream, client, settle)
  const legs = [toClient, toUpstream]

  function close(reason: EndReason | 'idle'): void {
    if (isClosing) return
    isClosing = true
    const { code, reason: text } = FAREWELLS[reason]
    toClient.finish(closeFrame('server', code, text))
    // For the upstream its client goes away; why is not its business.
    toUpstream.finish(closeFrame('client', 1001, ''))
    settle()
    cutAfter(LAST_FRAME_MS, () => legs.filter((leg) => !leg.isFinished()).map((leg) => leg.to))
    cutAfter(ANSWER_MS, () => [client, upstream])
  }

  function settle(): void {
    if (!isClosing) return
    if (toClient.isFinished() && toUpstream.hasClosed()) client.destroySoon()
    if (toUpstream.isFinished() && toClient.hasClosed()) upstream.destroySoon()
  }

  endTogether(client, upstream, () => isClosing)
  for (const socket of [client, upstream]) socket.setKeepAlive(true, KEEP_ALIVE_MS)
  // The HTTP server's own listener would cut it without a word. This socket sees the bytes of both directions.
  client.removeAllListeners('timeout').setTimeout(idleMs, () => close('idle'))
  return close
}

/** To be made after the pipe: as the only listener it would swallow what the library puts back into the socket. */
function createLeg(sender: FrameSender, from: Socket, to: Socket, onChange: () => void): Leg {
  const frames = createFrameTracker(sender)
  let farewell: Buffer | undefined
  let isFinished = false

  function follow(chunk: Buffer): void {
    if (!farewell || isFinished) frames.follow(chunk)
    else {
      const rest = frames.follow(chunk, true)
      passOn(chunk.subarray(0, rest))
      sayFarewell(farewell)
      frames.follow(chunk.subarray(rest))
    }
    if (farewell) onChange()
  }

  function passOn(rest: Buffer): void {
    if (!to.writable || to.write(rest)) return
    from.pause()
    to.once('drain', () => from.resume())
  }

  function sayFarewell(frame: Buffer): void {
    const position = frames.position()
    if (position === 'inside') return
    isFinished = true
    if (position === 'lost') to.destroy()
    else if (position === 'boundary' && to.writable) to.write(frame)
  }

  from.on('data', follow)
  from.once('end', onChange)
  from.once('close', () => {
    if (farewell && !isFinished) to.destroy()
  })
  return {
    to,
    finish(frame) {
      farewell = frame
      from.unpipe(to)
      sayFarewell(frame)
      from.resume()
    },
    isFinished: () => isFinished,
    hasClosed: () => frames.position() === 'closed' || from.readableEnded,
  }
}

function cutAfter(ms: number, sockets: () => Socket[]): void {
  setTimeout(() => {
    for (const socket of sockets()) socket.destroy()
  }, ms).unref()
}

/** A pipe does not hand on a reset, and a WebSocket is never half open: what ends one socket ends the other. */
function endTogether(client: Socket, upstream: Socket, isClosing: () => boolean): void {
  for (const [one, other] of [
    [client, upstream],
    [upstream, client],
  ] as const) {
    one.once('end', () => {
      if (!isClosing()) cutAfter(LAST_WORDS_MS, () => [one])
    })
    one.once('close', () => {
      if (isClosing()) return
      other.destroySoon()
      cutAfter(LAST_WORDS_MS, () => [other])
    })
  }
}
