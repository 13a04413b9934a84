import type { Socket } from 'node:net'
import { createServer } from 'node:net'
import type { TestContext } from 'node:test'
import { frame, uint32 } from './http2-kit.ts'
import { open } from './sockets.ts'

const PREFACE_BYTES = 24
const ACK = 1
const END_STREAM = 1
const END_HEADERS = 4

/** A frame that arrived. */
export type Frame = { type: number; flags: number; stream: number; payload: Buffer }

/** One request as an upstream of our own making sees it. */
export type FramedRequest = {
  readonly stream: number
  readonly socket: Socket
  /** A body follows. */
  readonly hasBody: boolean
  /** Frames of the stream that came after its head. */
  readonly frames: Frame[]
}

/** `:status` fields as HPACK has them: from the static table, or literal. */
export const status = (code: number) =>
  code === 200 ? Buffer.from([0x88]) : code === 204 ? Buffer.from([0x89]) : literal(':status', String(code))

/** A field that no table is used for. */
export function literal(name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.from([0, name.length]),
    Buffer.from(name, 'latin1'),
    Buffer.from([value.length]),
    Buffer.from(value, 'latin1'),
  ])
}

export const head = (stream: number, fields: Buffer, { isLast = false } = {}) =>
  frame(1, END_HEADERS | (isLast ? END_STREAM : 0), stream, fields)
export const data = (stream: number, text: string, { isLast = false } = {}) =>
  frame(0, isLast ? END_STREAM : 0, stream, Buffer.from(text, 'latin1'))
export const reset = (stream: number, code: number) => frame(3, 0, stream, uint32(code))
export const goAway = (lastStream: number, code: number) =>
  frame(7, 0, 0, Buffer.concat([uint32(lastStream), uint32(code)]))
export const windowUpdate = (stream: number, bytes: number) => frame(8, 0, stream, uint32(bytes))

/** SETTINGS_INITIAL_WINDOW_SIZE: how much of a request's body the upstream takes before it says more. */
const initialWindow = (bytes: number) => Buffer.concat([Buffer.from([0, 4]), uint32(bytes)])

/**
 * An upstream over HTTP/2 that says exactly what it is told to: `onRequest` is called at the head of each request, and
 * `onFrame` for each frame that follows on its stream. It answers settings and pings, and grants no window by itself.
 */
export async function framedUpstream(
  t: TestContext,
  onRequest: (request: FramedRequest) => void,
  {
    window,
    onFrame = () => {},
  }: { window?: number; onFrame?: (request: FramedRequest, frame: Frame) => void } = {},
): Promise<{ origin: string; requests: FramedRequest[] }> {
  const requests: FramedRequest[] = []
  const server = createServer({ noDelay: true }, (socket) => {
    let rest: Buffer = Buffer.alloc(0)
    let skip = PREFACE_BYTES
    socket.write(frame(4, 0, 0, window === undefined ? Buffer.alloc(0) : initialWindow(window)))
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      if (rest.length < skip) return
      rest = rest.subarray(skip)
      skip = 0
      for (let next = takeFrame(); next; next = takeFrame()) onEach(socket, next)
    })
    function takeFrame(): Frame | undefined {
      if (rest.length < 9) return undefined
      const end = 9 + rest.readUIntBE(0, 3)
      if (rest.length < end) return undefined
      const payload = rest.subarray(9, end)
      const taken = { type: rest[3]!, flags: rest[4]!, stream: rest.readUInt32BE(5), payload }
      rest = rest.subarray(end)
      return taken
    }
  })
  function onEach(socket: Socket, one: Frame): void {
    const { type, flags, stream, payload } = one
    if (type === 4 && !(flags & ACK)) socket.write(frame(4, ACK, 0))
    else if (type === 6 && !(flags & ACK)) socket.write(frame(6, ACK, 0, payload))
    else if (type === 1) {
      const request = { stream, socket, hasBody: !(flags & END_STREAM), frames: [] }
      requests.push(request)
      onRequest(request)
      if (flags & END_STREAM) onFrame(request, one)
    } else if (stream > 0) {
      const request = requests.find((known) => known.socket === socket && known.stream === stream)
      request?.frames.push(one)
      if (request) onFrame(request, one)
    }
  }
  const port = await open(t, server)
  return { origin: `http://127.0.0.1:${port}`, requests }
}
