import { createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { type Measured, startMeasured } from '../kit/endurance/kit.ts'
import { openUpstream, requestHead } from '../kit/endurance/raw-http.ts'

const HANDSHAKE = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
}
/** The least that an upstream answers. */
export const SWITCHED =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n'
/** The beginning of a frame of a million bytes, of a server and of a client. */
const BIG_FRAME = Buffer.concat([Buffer.of(0x82, 127, 0, 0, 0, 0, 0, 15, 66, 64), Buffer.alloc(500)])
export const BIG_MASKED_FRAME = Buffer.concat([
  Buffer.of(0x82, 0xff, 0, 0, 0, 0, 0, 15, 66, 64, 1, 2, 3, 4),
  Buffer.alloc(500),
])

/** A Cloakroom in a process of its own, with WebSocket upstreams that play the phase their path names. */
export type Scene = Measured & { /** The upstream's ends that are to vanish. */ readonly doomed: Set<Socket> }

/** Starts all of it; everything ends with the test. */
export async function startScene(t: TestContext): Promise<Scene> {
  const upstream = await openUpstream(t, createServer({ noDelay: true }, playUpstream))
  const closed = await openUpstream(
    t,
    createServer((socket) => socket.resetAndDestroy()),
  )
  const doomed = new Set<Socket>()
  const silent = await openUpstream(
    t,
    createServer({ allowHalfOpen: true }, (socket) => answerAndFallSilent(socket, doomed)),
  )
  const route = { resource: 'chat', websocket: true, breaker: { failures: 0 } }
  const measured = await startMeasured(t, {
    resources: { chat: { resource: 'https://chat.example.com' } },
    limits: { webSocketsPerSession: 5_000 },
    routes: [
      { ...route, path: '/play', upstream: upstream.origin },
      { ...route, path: '/accept', upstream: closed.origin },
      { ...route, path: '/silent', upstream: silent.origin },
      { ...route, path: '/idle', upstream: silent.origin, timeout: { idle: '1s' } },
    ],
  })
  return { ...measured, doomed }
}

/** Plays the phase that the path names. */
function playUpstream(socket: Socket): void {
  socket.on('error', () => undefined)
  let received = ''
  socket.on('data', (chunk) => {
    const wasWhole = received.includes('\r\n\r\n')
    received = (received + chunk.toString('latin1')).slice(0, 4_096)
    if (!received.includes('\r\n\r\n')) return
    const phase = /^GET \/play\/(\S+)/.exec(received)?.[1]
    if (phase === 'dial' || phase === 'lookup') return
    if (phase === 'head') socket.resetAndDestroy()
    else if (wasWhole) onFrames(socket, phase)
    else {
      socket.write(SWITCHED)
      if (phase === 'with-101') socket.resetAndDestroy()
      if (phase === 'client-not-reading') for (let n = 0; n < 40; n++) socket.write(BIG_FRAME)
    }
  })
}

/** The client has sent the beginning of a frame. */
function onFrames(socket: Socket, phase: string | undefined): void {
  if (phase === 'mid-frame') socket.write(BIG_FRAME, () => socket.resetAndDestroy())
  else if (phase === 'not-reading') setTimeout(() => socket.resetAndDestroy(), 5)
  else if (phase === 'client-mid-frame') socket.write(BIG_FRAME)
}

function answerAndFallSilent(socket: Socket, doomed: Set<Socket>): void {
  socket.once('data', (head) => {
    socket.pause()
    if (head.includes('GET /silent/upstream ')) doomed.add(socket)
    socket.write(SWITCHED)
  })
}

/** A handshake of the user who is signed in. */
export function handshakeOf({ fields }: Measured, path: string): string {
  const origin = `http://${fields.host}`
  const { 'x-csrf': _, ...head } = fields
  return requestHead('GET', path, { ...head, origin, ...HANDSHAKE })
}

/** Resolves when so many more bytes have come, or the connection is over. */
export function untilReceived(socket: Socket, bytes: number): Promise<void> {
  return new Promise((resolve) => {
    let left = bytes
    const done = () => {
      socket.off('data', take).off('close', done)
      resolve()
    }
    const take = (chunk: Buffer) => {
      left -= chunk.length
      if (left <= 0) done()
    }
    socket.on('data', take).on('close', done)
    if (socket.closed) done()
  })
}
