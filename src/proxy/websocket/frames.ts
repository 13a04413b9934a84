import { randomBytes } from 'node:crypto'

/** Who sends the frames: a client masks all of them, a server none (RFC 6455 §5.1). */
export type FrameSender = 'client' | 'server'

/**
 * Where the last byte was in the stream of frames. `closed`: it ended a close frame, and nothing may follow that
 * (§5.5.1). `lost`: the bytes were no frame of this sender, so that no later boundary can be known.
 */
export type FramePosition = 'boundary' | 'inside' | 'closed' | 'lost'

/** Finds where the frames of one direction end. It reads their headers alone. */
export type FrameTracker = {
  /** Follows the next bytes, with `untilBoundary` only up to the next end of a frame; returns how many it followed. */
  follow(chunk: Uint8Array, untilBoundary?: boolean): number
  position(): FramePosition
}

const OPCODE = 0x0f
const CLOSE = 0x8
const CONTROL = 0x8
const FINAL = 0x80
const MASKED = 0x80
const LONGEST_CONTROL_PAYLOAD = 125
const LONGEST_HEADER = 14

/** A frame may be cut into chunks anywhere. Payloads are counted, never read or kept. */
export function createFrameTracker(sender: FrameSender): FrameTracker {
  return new Tracker(sender)
}

/** The header that is being read. All trackers share it, because none waits while it reads one. */
const header = new Uint8Array(LONGEST_HEADER)

/** A class, because an idle WebSocket keeps two for hours: closures would take four times the memory. */
class Tracker implements FrameTracker {
  readonly #sender: FrameSender
  /** The beginning of a header whose rest is in the next chunk. */
  #begun: Uint8Array | undefined
  #payloadLeft = 0
  #isClose = false
  #position: FramePosition = 'boundary'

  constructor(sender: FrameSender) {
    this.#sender = sender
  }

  position(): FramePosition {
    return this.#position
  }

  follow(chunk: Uint8Array, untilBoundary = false): number {
    let at = 0
    while (at < chunk.length && this.#position !== 'closed' && this.#position !== 'lost') {
      if (this.#payloadLeft === 0) at = this.#readHeader(chunk, at)
      else {
        const step = Math.min(this.#payloadLeft, chunk.length - at)
        this.#payloadLeft -= step
        at += step
        if (this.#payloadLeft === 0) this.#endFrame()
      }
      if (untilBoundary && this.#position === 'boundary') break
    }
    return at
  }

  /** Reads a header, or as much of it as the chunk has from `at` on. Returns where it stopped. */
  #readHeader(chunk: Uint8Array, from: number): number {
    let at = from
    let size = this.#begun?.length ?? 0
    if (this.#begun) header.set(this.#begun)
    while (at < chunk.length && size < headerLength(header, size)) header[size++] = chunk[at++]!
    this.#position = 'inside'
    const isWhole = size === headerLength(header, size)
    this.#begun = isWhole ? undefined : header.slice(0, size)
    if (!isWhole) return at
    if (!isFrameOf(this.#sender, header)) {
      this.#position = 'lost'
      return at
    }
    this.#payloadLeft = payloadLength(header)
    this.#isClose = (header[0]! & OPCODE) === CLOSE
    if (this.#payloadLeft === 0) this.#endFrame()
    return at
  }

  #endFrame(): void {
    this.#position = this.#isClose ? 'closed' : 'boundary'
  }
}

/** Length of a header in bytes, as far as its first `size` bytes tell. */
function headerLength(header: Uint8Array, size: number): number {
  if (size < 2) return 2
  const length = header[1]! & 0x7f
  return 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + (header[1]! & MASKED ? 4 : 0)
}

/** A length that is no safe integer cannot be counted, so it is taken for no frame. */
function isFrameOf(sender: FrameSender, header: Uint8Array): boolean {
  const isMasked = (header[1]! & MASKED) !== 0
  if (isMasked !== (sender === 'client')) return false
  const length = payloadLength(header)
  if ((header[0]! & CONTROL) === 0) return Number.isSafeInteger(length)
  // §5.5: a control frame is short and in one piece.
  return (header[0]! & FINAL) !== 0 && length <= LONGEST_CONTROL_PAYLOAD
}

function payloadLength(header: Uint8Array): number {
  const length = header[1]! & 0x7f
  if (length < 126) return length
  const view = new DataView(header.buffer)
  return length === 126 ? view.getUint16(2) : view.getUint32(2) * 2 ** 32 + view.getUint32(6)
}

/** A close frame as this sender must write it (§5.5.1). The reason takes at most 123 bytes. */
export function closeFrame(sender: FrameSender, code: number, reason: string): Buffer {
  const payload = Buffer.concat([Buffer.of(code >> 8, code & 0xff), Buffer.from(reason)])
  if (sender === 'server') return Buffer.concat([Buffer.of(FINAL | CLOSE, payload.length), payload])
  const mask = randomBytes(4)
  for (let i = 0; i < payload.length; i++) payload[i]! ^= mask[i % 4]!
  return Buffer.concat([Buffer.of(FINAL | CLOSE, MASKED | payload.length), mask, payload])
}
