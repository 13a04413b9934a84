import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { SeededRandom } from '../../chaos/seeded-random.ts'
import type { Measured } from './kit.ts'
import { createTally, inParallel, openSocket, requestHead, untilClosed } from './raw-http.ts'

const AT_ONCE = 48
const BODY = 262_144

const CLIENT_PHASES = [
  'half-head',
  'head',
  'token',
  'thinking',
  'response',
  'upload-length',
  'upload-chunked',
] as const

/** Clients that reset their connection in each phase of a request, in turn; gives how often each was done. */
export async function clientResets(measured: Measured, random: SeededRandom, times: number): Promise<string> {
  const { provider } = measured
  const tally = createTally()
  // A token that lives no longer than the request for it: every request on that route waits for the provider.
  provider.control.accessTokenSeconds = 1
  provider.control.latencyMs = 15
  await inParallel(times, AT_ONCE, async (n) => {
    const phase = CLIENT_PHASES[n % CLIENT_PHASES.length]!
    const socket = await openSocket(measured.port)
    await untilPhase(socket, phase, measured, random)
    const over = untilClosed(socket)
    socket.resetAndDestroy()
    await over
    tally.add(phase)
  })
  provider.control.accessTokenSeconds = 3_600
  provider.control.latencyMs = 0
  return tally.toString()
}

async function untilPhase(
  socket: Socket,
  phase: (typeof CLIENT_PHASES)[number],
  { fields }: Measured,
  random: SeededRandom,
): Promise<void> {
  const soon = () => delay(random.between(0, 4))
  if (phase === 'half-head') {
    const head = requestHead('GET', '/steady/ok', fields)
    socket.write(head.slice(0, random.between(0, head.length - 1)))
    await soon()
  } else if (phase === 'head') {
    socket.write(requestHead('GET', '/steady/think', fields))
    if (random.chance(0.7)) await new Promise(setImmediate)
  } else if (phase === 'token') {
    socket.write(requestHead('GET', '/fresh/think', fields))
    await delay(random.between(0, 20))
  } else if (phase === 'thinking') {
    socket.write(requestHead('GET', '/steady/think', fields))
    await delay(random.between(5, 25))
  } else if (phase === 'response') {
    socket.write(requestHead('GET', '/steady/stream', fields))
    await untilReceived(socket, random.between(1, 400_000))
  } else {
    const framing: Record<string, string> =
      phase === 'upload-length' ? { 'content-length': String(BODY) } : { 'transfer-encoding': 'chunked' }
    socket.write(requestHead('POST', '/steady/sink', { ...fields, ...framing }))
    if (phase === 'upload-chunked') socket.write(`${BODY.toString(16)}\r\n`)
    socket.write(Buffer.alloc(random.between(0, BODY - 1)))
    await soon()
  }
}

function untilReceived(socket: Socket, bytes: number): Promise<void> {
  let received = 0
  return new Promise((resolve) => {
    socket.once('close', resolve)
    socket.on('data', (chunk) => {
      received += chunk.length
      if (received >= bytes) resolve()
    })
  })
}

/** The upstream of those clients: it answers, thinks for ever, sends without an end, or takes a body. */
export function answerSteadily(req: IncomingMessage, res: ServerResponse): void {
  req.on('error', () => undefined)
  const path = req.url!.split('/').at(-1)
  if (path === 'ok') res.end('ok')
  // More than any client of these waits for, and no end.
  else if (path === 'stream') res.write(Buffer.alloc(600_000))
  else if (path === 'sink') req.resume().on('end', () => res.end('ok'))
}
