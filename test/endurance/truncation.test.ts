import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { Agent, request } from 'node:http'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { seededRandom } from '../chaos/seeded-random.ts'
import { type Measured, startMeasured } from '../kit/endurance/kit.ts'
import { NOT_MEASURABLE } from '../kit/endurance/process-readings.ts'
import {
  createTally,
  inParallel,
  openSocket,
  openUpstream,
  requestHead,
  untilClosed,
} from '../kit/endurance/raw-http.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { steadyNow } from '../kit/steady.ts'

const TIMES = 1_000
const AT_ONCE = 16
const RESOURCES = { orders: { resource: 'https://orders.example.com' } }
const BREAKER = { failures: 0 }

const FRAMINGS = ['length', 'chunked', 'events'] as const
const DEATHS = ['fin', 'rst'] as const

test('of 1000 answers whose upstream dies in mid-body, not one looks whole', {
  skip: NOT_MEASURABLE,
  timeout: 300_000,
}, async (t) => {
  const upstream = await openUpstream(t, createServer(dieInBody))
  const measured = await startMeasured(t, {
    resources: RESOURCES,
    routes: [{ path: '/', upstream: upstream.origin, resource: 'orders', breaker: BREAKER }],
  })
  const random = seededRandom(6)
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  t.after(() => agent.destroy())
  const tally = createTally()
  await inParallel(TIMES, AT_ONCE, async (n) => {
    const framing = FRAMINGS[n % FRAMINGS.length]!
    const death = DEATHS[Math.floor(n / 3) % DEATHS.length]!
    const bytes = Math.floor(random.between(1, 150_000))
    const seen = await read(measured, `/${framing}/${death}/${bytes}`, agent)
    assert.notEqual(seen, '200 whole', `${framing} cut by a ${death} after ${bytes} bytes`)
    tally.add(`${framing}+${death} ${seen}`)
  })
  t.diagnostic(`${TIMES} answers: ${tally}`)
  for (const framing of FRAMINGS) assert.ok(tally.of(`${framing}+fin 200 cut`) > 100)
})

test('an HTTP/1.0 client, whose body ends with the connection, sees it reset when the upstream dies', {
  skip: NOT_MEASURABLE,
}, async (t) => {
  const upstream = await openUpstream(t, createServer(dieInBody))
  const measured = await startMeasured(t, {
    resources: RESOURCES,
    routes: [{ path: '/', upstream: upstream.origin, resource: 'orders', breaker: BREAKER }],
  })
  const tally = createTally()
  await inParallel(50, 5, async (n) => {
    const socket = await openSocket(measured.port)
    let error = 'no error'
    socket.on('error', (cause: NodeJS.ErrnoException) => {
      error = String(cause.code)
    })
    const head = requestHead('GET', `/chunked/${DEATHS[n % 2]}/5000`, measured.fields)
    socket.resume().write(head.replace('HTTP/1.1', 'HTTP/1.0'))
    await untilClosed(socket)
    tally.add(error)
  })
  t.diagnostic(`50 connections: ${tally}`)
  assert.equal(tally.of('ECONNRESET'), 50, String(tally))
})

test('1000 clients that leave cancel their request at the upstream within a second', {
  skip: NOT_MEASURABLE,
  timeout: 300_000,
}, async (t) => {
  const underWay = new Map<string, Socket>()
  const upstream = await openUpstream(
    t,
    createServer((socket) => holdRequest(socket, underWay)),
  )
  const measured = await startMeasured(t, {
    resources: RESOURCES,
    routes: [{ path: '/', upstream: upstream.origin, resource: 'orders' }],
  })
  const random = seededRandom(7)
  const delays: number[] = []
  await inParallel(TIMES, AT_ONCE, async (n) => {
    const phase = LEAVING_PHASES[n % LEAVING_PHASES.length]!
    const target = `/${phase}/${n}`
    const client = await openSocket(measured.port)
    const isUpload = phase === 'upload'
    const framing: Record<string, string> = isUpload ? { 'content-length': '1000000' } : {}
    client.write(requestHead(isUpload ? 'POST' : 'GET', target, { ...measured.fields, ...framing }))
    if (isUpload) client.write(Buffer.alloc(random.between(1, 200_000)))
    client.resume()
    const held = await eventually(`the upstream is asked for ${target}`, () => underWay.get(target), {
      everyMs: 2,
    })
    await delay(random.between(0, 6))
    assert.equal(held.closed, false, `${target} is over before its client leaves`)
    const over = untilClosed(held)
    const left = steadyNow()
    if (n % 2 === 0) client.resetAndDestroy()
    else client.end()
    await over
    delays.push(steadyNow() - left)
    client.destroy()
  })
  delays.sort((a, b) => a - b)
  const at = (share: number) => delays[Math.floor(share * (delays.length - 1))]!.toFixed(1)
  t.diagnostic(
    `${TIMES} clients left: cancelled after ${at(0.5)} ms (median), ${at(0.99)} ms (p99), ${at(1)} ms (most)`,
  )
  assert.ok(delays.at(-1)! < 1_000, `${at(1)} ms`)
})

const LEAVING_PHASES = ['thinking', 'length', 'chunked', 'events', 'upload'] as const

/** Sends as many bytes of an answer as the path says, and ends the connection in the way it says. */
function dieInBody(socket: Socket): void {
  socket.once('data', (chunk) => {
    const [, framing, death, count] = /^GET \/(\w+)\/(\w+)\/(\d+) /.exec(chunk.toString('latin1')) ?? []
    const bytes = Number(count)
    const length = framing === 'length' ? `Content-Length: ${bytes + 1}` : 'Transfer-Encoding: chunked'
    const type = framing === 'events' ? 'text/event-stream' : 'text/plain'
    const head = `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\n${length}\r\n\r\n`
    // Whole chunks but no last one, which is the end that looks most like one.
    const body = '.'.repeat(bytes)
    socket.write(head + (framing === 'length' ? body : `${bytes.toString(16)}\r\n${body}\r\n`), () => {
      if (death === 'fin') socket.end()
      else setTimeout(() => socket.resetAndDestroy(), bytes % 10).unref()
    })
  })
}

/** Begins the answer that the path asks for, and never ends it. */
function holdRequest(socket: Socket, underWay: Map<string, Socket>): void {
  socket.once('data', (chunk) => {
    const [, target = '', phase] = /^[A-Z]+ (\/(\w+)\/\d+) /.exec(chunk.toString('latin1')) ?? []
    socket.resume()
    const head = (fields: string) => `HTTP/1.1 200 OK\r\n${fields}\r\n\r\n`
    if (phase === 'length') socket.write(`${head('Content-Length: 100000')}half`)
    if (phase === 'chunked') socket.write(`${head('Transfer-Encoding: chunked')}4\r\nhalf\r\n`)
    if (phase === 'events')
      socket.write(`${head('Content-Type: text/event-stream\r\nTransfer-Encoding: chunked')}4\r\n: a\n\r\n`)
    underWay.set(target, socket)
  })
}

/** Status of the answer, and whether it came whole. */
function read({ port, fields }: Measured, path: string, agent: Agent): Promise<string> {
  return new Promise((resolve) => {
    const req = request({ port, host: '127.0.0.1', path, headers: fields, agent }, (res) => {
      const tell = () => resolve(`${res.statusCode} ${res.complete ? 'whole' : 'cut'}`)
      res.on('error', tell).on('close', tell).resume()
    })
    req.on('error', () => resolve('cut')).end()
  })
}
