import assert from 'node:assert/strict'
import { Agent, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type SeededRandom, seededRandom } from '../chaos/seeded-random.ts'
import { type Measured, startMeasured } from './kit.ts'
import { inMb, NOT_MEASURABLE, openFiles } from './process-readings.ts'
import {
  createTally,
  inParallel,
  openHttpUpstream,
  openSocket,
  openUpstream,
  requestHead,
  untilClosed,
} from './raw-http.ts'

const RESETS = 5_000
const AT_ONCE = 48
const BODY = 262_144
/** An upstream that fails on purpose must not be left alone for it. */
const BREAKER = { breaker: { failures: 0 } }
const MOST_HEAP_GROWTH = 6_000_000

test('after 10000 connections reset by clients and upstreams, files and heap are where they were', {
  skip: NOT_MEASURABLE,
  timeout: 110_000,
}, async (t) => {
  const steady = await openHttpUpstream(t, answerSteadily)
  const mortal = await openUpstream(t, createServer(dieAsAsked))
  const closed = await openUpstream(
    t,
    createServer((socket) => socket.resetAndDestroy()),
  )
  const route = { resource: 'orders', csrf: 'header' }
  const measured = await startMeasured(t, {
    resources: {
      orders: { resource: 'https://orders.example.com' },
      fresh: { resource: 'https://fresh.example.com' },
    },
    routes: [
      { ...route, path: '/steady', upstream: steady.origin },
      { ...route, path: '/fresh', upstream: steady.origin, resource: 'fresh' },
      { ...route, path: '/mortal', upstream: mortal.origin, ...BREAKER },
      { ...route, path: '/closed', upstream: closed.origin, ...BREAKER },
    ],
  })
  assert.equal(await statusOf(measured, '/steady/ok'), 200)
  const random = seededRandom(20_261_121)
  // The first errors of each kind load and compile what they need.
  await clientResets(measured, random.branch('warm-up'), 700)
  await upstreamResets(measured, random.branch('warm-up'), 700)
  await delay(2_000)
  const files = openFiles(measured.pid)
  const before = await measured.inside()

  const began = performance.now()
  t.diagnostic(`clients: ${await clientResets(measured, random.branch('clients'), RESETS)}`)
  t.diagnostic(`upstreams: ${await upstreamResets(measured, random.branch('upstreams'), RESETS)}`)
  const seconds = (performance.now() - began) / 1_000

  const filesAfter = await measured.filesBackTo(files)
  const after = await measured.inside()
  const grown = after.heapUsed + after.external - before.heapUsed - before.external
  t.diagnostic(
    `${2 * RESETS} resets in ${seconds.toFixed(1)} s; files ${files} → ${filesAfter}; heap ${inMb(before.heapUsed)} → ${inMb(after.heapUsed)}, external ${inMb(before.external)} → ${inMb(after.external)}, RSS ${inMb(before.rss)} → ${inMb(after.rss)}`,
  )
  assert.ok(grown < MOST_HEAP_GROWTH, `heap and buffers grew by ${inMb(grown)}`)
  assert.deepEqual(measured.unexpected(), [])
  assert.deepEqual(await measured.busyGauges(), [])
  for (const path of ['/steady/ok', '/fresh/ok', '/mortal/idle?at=0'])
    assert.equal(await statusOf(measured, path), 200, path)
})

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
async function clientResets(measured: Measured, random: SeededRandom, times: number): Promise<string> {
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

function answerSteadily(req: IncomingMessage, res: ServerResponse): void {
  req.on('error', () => undefined)
  const path = req.url!.split('/').at(-1)
  if (path === 'ok') res.end('ok')
  // More than any client of these waits for, and no end.
  else if (path === 'stream') res.write(Buffer.alloc(600_000))
  else if (path === 'sink') req.resume().on('end', () => res.end('ok'))
}

const UPSTREAM_PHASES = [
  'accept',
  'head',
  'half-head',
  'length',
  'chunked',
  'events',
  'upload',
  'idle',
] as const

/** Upstreams that reset the connection in each phase, in turn; gives what the clients saw. */
async function upstreamResets(measured: Measured, random: SeededRandom, times: number): Promise<string> {
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  const tally = createTally()
  await inParallel(times, AT_ONCE, async (n) => {
    const phase = UPSTREAM_PHASES[n % UPSTREAM_PHASES.length]!
    const at = Math.floor(random.between(0, 100_000))
    const path = phase === 'accept' ? '/closed' : `/mortal/${phase}?at=${at}`
    const outcome = await outcomeOf(measured, path, agent, phase === 'upload' ? BODY : 0)
    assert.ok(EXPECTED[phase].includes(outcome), `${phase}: ${outcome}`)
    tally.add(`${phase} ${outcome}`)
  })
  agent.destroy()
  return tally.toString()
}

const EXPECTED: Readonly<Record<(typeof UPSTREAM_PHASES)[number], readonly string[]>> = {
  accept: ['502 whole'],
  head: ['502 whole'],
  'half-head': ['502 whole'],
  // A reset may overtake the head in the kernel; but never is half a body taken for a whole one.
  length: ['200 cut', '502 whole'],
  chunked: ['200 cut', '502 whole'],
  events: ['200 cut', '502 whole'],
  // The answer may come while the rest of the body is still on its way, and end the connection under it.
  upload: ['502 whole', '502 cut', 'cut'],
  // The second connection that is tried may be dead as well, and a request is tried twice at most.
  idle: ['200 whole', '502 whole'],
}

/** Status of the answer, and whether it came whole. */
function outcomeOf(
  { port, fields }: Measured,
  path: string,
  agent: Agent,
  bodyBytes: number,
): Promise<string> {
  const method = bodyBytes > 0 ? 'POST' : 'GET'
  return new Promise((resolve) => {
    const req = request({ method, port, host: '127.0.0.1', path, headers: fields, agent }, (res) => {
      const tell = () => resolve(`${res.statusCode} ${res.complete ? 'whole' : 'cut'}`)
      res.on('error', tell).on('close', tell).resume()
    })
    req.on('error', () => resolve('cut'))
    req.end(bodyBytes > 0 ? Buffer.alloc(bodyBytes) : undefined)
  })
}

/** Resets the connection in the phase that the request's path names. */
function dieAsAsked(socket: Socket): void {
  let text = ''
  let received = 0
  socket.on('data', (chunk) => {
    received += chunk.length
    if (!text.includes('\r\n\r\n')) text += chunk.toString('latin1')
    const [, phase, bytes] = /\/mortal\/([a-z-]+)\?at=(\d+) /.exec(text) ?? []
    if (!phase || !text.includes('\r\n\r\n')) return
    const at = Number(bytes)
    const die = () => socket.resetAndDestroy()
    if (phase === 'upload') {
      if (received > at) die()
      return
    }
    text = ''
    if (phase === 'idle') {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      setTimeout(die, at % 5).unref()
    } else if (phase === 'head') die()
    else socket.write(partOf(phase, at), () => setTimeout(die, at % 7).unref())
  })
}

function partOf(phase: string, at: number): string {
  if (phase === 'half-head') return 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Wh'
  if (phase === 'length') return `HTTP/1.1 200 OK\r\nContent-Length: ${at + 10}\r\n\r\n${'.'.repeat(at)}`
  const type = phase === 'events' ? 'text/event-stream' : 'text/plain'
  const chunk = `${(at + 10).toString(16)}\r\n${'.'.repeat(at + 10)}\r\n`
  return `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`
}

function statusOf({ port, fields }: Measured, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request({ port, host: '127.0.0.1', path, headers: fields, agent: false }, (res) => {
      res.resume().on('end', () => resolve(res.statusCode!))
    })
      .on('error', reject)
      .end()
  })
}
