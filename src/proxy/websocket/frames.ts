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
  const header = new Uint8Array(LONGEST_HEADER)
  let headerSize = 0
  let payloadLeft = 0
  let position: FramePosition = 'boundary'

  function readHeader(byte: number): void {
    header[headerSize++] = byte
    position = 'inside'
    if (headerSize < headerLength(header, headerSize)) return
    if (isFrameOf(sender, header)) payloadLeft = payloadLength(header)
    else position = 'lost'
  }

  function isWhole(): boolean {
    return payloadLeft === 0 && headerSize === headerLength(header, headerSize)
  }

  function isOver(): boolean {
    return position === 'closed' || position === 'lost'
  }

  function follow(chunk: Uint8Array, untilBoundary = false): number {
    let at = 0
    while (at < chunk.length && !isOver()) {
      if (payloadLeft === 0) readHeader(chunk[at++]!)
      else {
        const step = Math.min(payloadLeft, chunk.length - at)
        payloadLeft -= step
        at += step
      }
      if (isOver() || !isWhole()) continue
      position = (header[0]! & OPCODE) === CLOSE ? 'closed' : 'boundary'
      headerSize = 0
      if (untilBoundary) break
    }
    return at
  }
  return { follow, position: () => position }
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
