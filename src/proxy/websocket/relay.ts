import type { Socket } from 'node:net'
import { systemClock } from '../../async/clock.ts'
import type { EndReason } from '../session-end/live-connections.ts'
import { closeFrame, createFrameTracker, type FrameSender, type FrameTracker } from './frames.ts'

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

/**
 * The relay between two sockets that are piped into each other already. It ends both sockets when one of them ends, and
 * closes the relay when no byte has passed either way for `idleMs`. Returns the function that closes it as RFC 6455 §7
 * asks: it puts a close frame behind the current frame of each direction, and ends the sockets when both sides have
 * answered, or 2 s later.
 */
export function createRelay(client: Socket, upstream: Socket, idleMs: number): (reason: EndReason) => void {
  const relay = new Relay(client, upstream)
  for (const socket of [client, upstream]) socket.setKeepAlive(true, KEEP_ALIVE_MS)
  // One timer is enough, because the bytes of both directions pass through this socket.
  client.setTimeout(idleMs, () => relay.close('idle'))
  return (reason) => relay.close(reason)
}

/** Classes, because thousands of relays may be idle at a time: closures would take three times the memory. */
class Relay {
  readonly #toClient: Direction
  readonly #toUpstream: Direction
  #isClosing = false

  constructor(client: Socket, upstream: Socket) {
    this.#toUpstream = new Direction('client', client, upstream)
    this.#toClient = new Direction('server', upstream, client)
    for (const direction of [this.#toUpstream, this.#toClient]) {
      const { from } = direction
      from.on('data', (chunk: Buffer) => this.#follow(direction, chunk))
      from.on('end', () => this.#fromEnded(direction))
      from.on('close', () => this.#fromClosed(direction))
    }
  }

  close(reason: EndReason | 'idle'): void {
    if (this.#isClosing) return
    this.#isClosing = true
    const [toClient, toUpstream] = [this.#toClient, this.#toUpstream]
    const { code, reason: text } = CLOSES[reason]
    toClient.finish(closeFrame('server', code, text))
    // The upstream is not told the reason: for it, its client goes away.
    toUpstream.finish(closeFrame('client', 1001, ''))
    this.#settle()
    cutAfter(LAST_FRAME_MS, () =>
      [toClient, toUpstream].filter((direction) => !direction.isFinished).map((direction) => direction.to),
    )
    cutAfter(ANSWER_MS, () => [toClient.to, toUpstream.to])
  }

  #follow(direction: Direction, chunk: Buffer): void {
    direction.follow(chunk)
    if (this.#isClosing) this.#settle()
  }

  #settle(): void {
    const [toClient, toUpstream] = [this.#toClient, this.#toUpstream]
    if (toClient.isFinished && toUpstream.hasClosed()) toClient.to.destroySoon()
    if (toUpstream.isFinished && toClient.hasClosed()) toUpstream.to.destroySoon()
  }

  /** A pipe passes on an end but no reset, and a WebSocket is never half open: when one socket ends, so does the other. */
  #fromEnded({ from }: Direction): void {
    if (this.#isClosing) this.#settle()
    else cutAfter(FLUSH_MS, () => [from])
  }

  #fromClosed({ to, isFinished }: Direction): void {
    if (!this.#isClosing) {
      to.destroySoon()
      cutAfter(FLUSH_MS, () => [to])
    } else if (!isFinished) to.destroy()
  }
}

/**
 * One direction of a relay. It follows the frames in a `data` listener beside the one of the pipe: both get the same
 * chunks, and nothing is copied or held back. That must be added after the pipe. Added first, it would start the flow, and
 * take the bytes that the library has put back into the socket before the pipe is there.
 */
class Direction {
  readonly from: Socket
  readonly to: Socket
  /** Whether `to` has been sent its last byte. */
  isFinished = false
  readonly #frames: FrameTracker
  #close: Buffer | undefined

  constructor(sender: FrameSender, from: Socket, to: Socket) {
    this.from = from
    this.to = to
    this.#frames = createFrameTracker(sender)
  }

  /** Whether `from` has sent its close frame. */
  hasClosed(): boolean {
    return this.#frames.position() === 'closed' || this.from.readableEnded
  }

  follow(chunk: Buffer): void {
    if (!this.#close || this.isFinished) this.#frames.follow(chunk)
    else {
      const rest = this.#frames.follow(chunk, true)
      this.#passOn(chunk.subarray(0, rest))
      this.#sendClose(this.#close)
      this.#frames.follow(chunk.subarray(rest))
    }
  }

  /** Passes on the rest of the current frame, then this close frame, and nothing more. */
  finish(close: Buffer): void {
    this.#close = close
    this.from.unpipe(this.to)
    this.#sendClose(close)
    this.from.resume()
  }

  #passOn(rest: Buffer): void {
    const { from, to } = this
    if (!to.writable || to.write(rest)) return
    from.pause()
    to.once('drain', () => from.resume())
  }

  #sendClose(frame: Buffer): void {
    const position = this.#frames.position()
    if (position === 'inside') return
    this.isFinished = true
    if (position === 'lost') this.to.destroy()
    else if (position === 'boundary' && this.to.writable) this.to.write(frame)
  }
}

function cutAfter(ms: number, sockets: () => Socket[]): void {
  const cut = () => {
    for (const socket of sockets()) socket.destroy()
  }
  systemClock.after(ms, cut).unref()
}
