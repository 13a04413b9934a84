import type { Socket } from 'node:net'
import { systemClock } from '../../async/clock.ts'
import type { EndReason } from '../session-end/live-connections.ts'
import { closeFrame, createFrameTracker, type FrameSender } from './frames.ts'

/** RFC 6455 §7.4.1: 1008 is a policy violation, 1001 an endpoint that goes away. */
const CLOSES: Readonly<Record<EndReason | 'idle', { code: number; reason: string }>> = {
  session_over: { code: 1008, reason: 'session ended' },
  shutdown: { code: 1001, reason: 'shutting down' },
  idle: { code: 1001, reason: 'idle for too long' },
}

/** How long the sender of a frame may take to finish it once the relay is to close. */
const LAST_FRAME_MS = 1_000
/** How long both sides may take to answer the close frame, counted from the same moment. */
const ANSWER_MS = 2_000
/** How long the second socket may take to send what is buffered for it once the first has closed. */
const FLUSH_MS = 2_000
/** When the system first probes a silent connection: this is how it notices that a peer has vanished. */
const KEEP_ALIVE_MS = 30_000

/** The two sockets of one direction, and who writes its frames. */
type DirectionEnds = { readonly sender: FrameSender; readonly from: Socket; readonly to: Socket }

/** One direction of a relay. */
type Direction = {
  readonly to: Socket
  /** Passes on the rest of the current frame, then this close frame, and nothing more. */
  finish(close: Buffer): void
  /** Whether `to` has been sent its last byte. */
  isFinished(): boolean
  /** Whether `from` has sent its close frame. */
  hasClosed(): boolean
}

/**
 * The relay between two sockets that are piped into each other already. It ends both sockets when one of them ends, and
 * closes the relay when no byte has passed either way for `idleMs`. Returns the function that closes it as RFC 6455 §7
 * asks: it puts a close frame behind the current frame of each direction, and ends the sockets when both sides have
 * answered, or 2 s later.
 */
export function createRelay(client: Socket, upstream: Socket, idleMs: number): (reason: EndReason) => void {
  let isClosing = false
  const toUpstream = createDirection({ sender: 'client', from: client, to: upstream }, settle)
  const toClient = createDirection({ sender: 'server', from: upstream, to: client }, settle)
  const directions = [toClient, toUpstream]

  function close(reason: EndReason | 'idle'): void {
    if (isClosing) return
    isClosing = true
    const { code, reason: text } = CLOSES[reason]
    toClient.finish(closeFrame('server', code, text))
    // The upstream is not told the reason: for it, its client goes away.
    toUpstream.finish(closeFrame('client', 1001, ''))
    settle()
    cutAfter(LAST_FRAME_MS, () =>
      directions.filter((direction) => !direction.isFinished()).map((direction) => direction.to),
    )
    cutAfter(ANSWER_MS, () => [client, upstream])
  }

  function settle(): void {
    if (!isClosing) return
    if (toClient.isFinished() && toUpstream.hasClosed()) client.destroySoon()
    if (toUpstream.isFinished() && toClient.hasClosed()) upstream.destroySoon()
  }

  endTogether(client, upstream, () => isClosing)
  for (const socket of [client, upstream]) socket.setKeepAlive(true, KEEP_ALIVE_MS)
  // One timer is enough, because the bytes of both directions pass through this socket.
  client.setTimeout(idleMs, () => close('idle'))
  return close
}

/**
 * Follows the frames with a `data` listener beside the one of the pipe: both get the same chunks, and nothing is copied
 * or held back. It must be added after the pipe. Added first, it would start the flow, and take the bytes that the
 * library has put back into the socket before the pipe is there.
 */
function createDirection({ sender, from, to }: DirectionEnds, onChange: () => void): Direction {
  const frames = createFrameTracker(sender)
  let close: Buffer | undefined
  let isFinished = false

  function follow(chunk: Buffer): void {
    if (!close || isFinished) frames.follow(chunk)
    else {
      const rest = frames.follow(chunk, true)
      passOn(chunk.subarray(0, rest))
      sendClose(close)
      frames.follow(chunk.subarray(rest))
    }
    if (close) onChange()
  }

  function passOn(rest: Buffer): void {
    if (!to.writable || to.write(rest)) return
    from.pause()
    to.once('drain', () => from.resume())
  }

  function sendClose(frame: Buffer): void {
    const position = frames.position()
    if (position === 'inside') return
    isFinished = true
    if (position === 'lost') to.destroy()
    else if (position === 'boundary' && to.writable) to.write(frame)
  }

  from.on('data', follow)
  from.once('end', onChange)
  from.once('close', () => {
    if (close && !isFinished) to.destroy()
  })
  return {
    to,
    finish(frame) {
      close = frame
      from.unpipe(to)
      sendClose(frame)
      from.resume()
    },
    isFinished: () => isFinished,
    hasClosed: () => frames.position() === 'closed' || from.readableEnded,
  }
}

function cutAfter(ms: number, sockets: () => Socket[]): void {
  const cut = () => {
    for (const socket of sockets()) socket.destroy()
  }
  systemClock.after(ms, cut).unref()
}

/** A pipe passes on an end but no reset, and a WebSocket is never half open: when one socket ends, so does the other. */
function endTogether(client: Socket, upstream: Socket, isClosing: () => boolean): void {
  for (const [one, other] of [
    [client, upstream],
    [upstream, client],
  ] as const) {
    one.once('end', () => {
      if (!isClosing()) cutAfter(FLUSH_MS, () => [one])
    })
    one.once('close', () => {
      if (isClosing()) return
      other.destroySoon()
      cutAfter(FLUSH_MS, () => [other])
    })
  }
}
