import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import { describe, type TestContext } from 'node:test'
import { assertBackAt, type Measured, startMeasured } from '../kit/endurance/kit.ts'
import {
  bytesInKernel,
  connectionsTo,
  inMb,
  NOT_MEASURABLE,
  openFiles,
} from '../kit/endurance/process-readings.ts'
import {
  openHttpUpstream,
  openSocket,
  openUpstream,
  requestHead,
  untilClosed,
} from '../kit/endurance/raw-http.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { steadyTest as test } from '../kit/steady.ts'

/** Every timeout that is concerned. */
const TIMEOUT_MS = 2_000
/** A busy machine may look at its timers late; none of these may wait for the next default timeout. */
const LATEST_MS = 15_000

/** How many of each kind; a hundred that read nothing fill as much of the kernel's memory as is decent. */
const KINDS = {
  'says nothing': 250,
  'sends half a head': 200,
  'sends a head byte by byte': 50,
  'sends half a body': 200,
  'reads nothing of a large answer': 50,
  'waits for an upstream that never answers': 200,
  'waits for an upstream that stops in mid-body': 100,
  'sends to an upstream that reads nothing': 50,
} as const

/** More than the kernel's buffers hold. */
const LARGE = Buffer.alloc(24_000_000)

/** Requests sent ahead at a time: a connection on which many wait is cut for that alone. */
const FEW_AHEAD = 30

const RESOURCES = { orders: { resource: 'https://orders.example.com' } }

type Kind = keyof typeof KINDS

test('1100 half-open connections, of clients and of upstreams, all end by their timeouts', {
  skip: NOT_MEASURABLE,
  timeout: 300_000,
}, async (t) => {
  const measured = await startImpatient(t)
  const isOpen = connectionsTo(measured.port)
  const kinds = Object.keys(KINDS) as Kind[]
  await Promise.all(kinds.map((kind) => halfOpen(measured, kind, isOpen)))
  const before = await measured.standing()

  let mostFiles = 0
  const sampler = setInterval(() => {
    mostFiles = Math.max(mostFiles, openFiles(measured.pid))
  }, 50)
  const endings = await Promise.all(
    kinds.map((kind) =>
      Promise.all(Array.from({ length: KINDS[kind] }, () => halfOpen(measured, kind, isOpen))),
    ),
  ).finally(() => clearInterval(sampler))

  for (const [n, kind] of kinds.entries()) t.diagnostic(`${kind}, ${report(kind, endings[n]!)}`)
  t.diagnostic(`${mostFiles} files at most; ${await assertBackAt(before, measured)}`)
  assert.ok(mostFiles > 1_000, `only ${mostFiles} files were ever open`)
})

describe('a client that reads nothing', { skip: NOT_MEASURABLE, concurrency: 3, timeout: 300_000 }, () => {
  test('leaves nothing of its answer to the kernel when its time is up', async (t) => {
    const steady = await openHttpUpstream(t, (_req, res) => res.end(LARGE))
    const measured = await startMeasured(t, {
      resources: RESOURCES,
      routes: [
        { path: '/', upstream: steady.origin, resource: 'orders', timeout: { idle: `${TIMEOUT_MS}ms` } },
      ],
    })
    const isOpen = connectionsTo(measured.port)
    const socket = await openSocket(measured.port)
    socket.write(requestHead('GET', '/', measured.fields))
    const clientPort = socket.localPort!
    await eventually('the buffers are full', () => bytesInKernel([clientPort]) > 1_000_000)
    await eventually('given up', () => !isOpen(clientPort), { everyMs: 50, withinMs: LATEST_MS })
    const left = bytesInKernel([clientPort])
    t.diagnostic(`${inMb(left)} left`)
    socket.destroy()
    assert.ok(left < 1_000_000, `${inMb(left)} left`)
  })

  // A few at a time: a connection on which many wait is cut for that alone. In one piece each, so that the end of an answer, not its middle, meets buffers that are full.
  test('is given up also when it asked for many small answers', async (t) => {
    const small = Buffer.alloc(60_000)
    const steady = await openHttpUpstream(t, (_req, res) => res.end(small))
    const measured = await startMeasured(t, {
      limits: { headerTimeout: `${TIMEOUT_MS}ms`, keepAlive: `${TIMEOUT_MS}ms` },
      resources: RESOURCES,
      routes: [
        { path: '/', upstream: steady.origin, resource: 'orders', timeout: { idle: `${TIMEOUT_MS}ms` } },
      ],
    })
    const isOpen = connectionsTo(measured.port)
    const socket = await openSocket(measured.port)
    const few = requestHead('GET', '/', measured.fields).repeat(FEW_AHEAD)
    const clientPort = socket.localPort!
    let asked = 0
    await eventually(
      'the buffers are full',
      () => {
        const bytes = bytesInKernel([clientPort])
        if (bytes >= asked * small.length && socket.write(few)) asked += FEW_AHEAD
        return bytes > 1_000_000
      },
      { withinMs: 30_000, everyMs: 2 },
    )
    const began = performance.now()
    await eventually('given up', () => !isOpen(clientPort), { everyMs: 50, withinMs: LATEST_MS })
    t.diagnostic(`given up after ${Math.round(performance.now() - began)} ms`)
    socket.destroy()
  })
})

const ANSWERS: Readonly<Record<Kind, RegExp>> = {
  'says nothing': /^(none|408)$/,
  'sends half a head': /^408$/,
  'sends a head byte by byte': /^408$/,
  'sends half a body': /^(none|408|504)$/,
  'reads nothing of a large answer': /^(none|200)$/,
  'waits for an upstream that never answers': /^504$/,
  // 504 where 1,100 others were dialled first.
  'waits for an upstream that stops in mid-body': /^(200|504)$/,
  'sends to an upstream that reads nothing': /^(none|504)$/,
}

type IsOpen = ReturnType<typeof connectionsTo>

/** How a half-open connection ended. */
type Ending = { readonly status: string; readonly afterMs: number }

/** A Cloakroom with short timeouts, before an upstream that works and one that is as good as dead. */
async function startImpatient(t: TestContext): Promise<Measured> {
  const steady = await openHttpUpstream(t, (req, res) => {
    req.on('error', () => undefined).resume()
    if (req.url!.endsWith('/large')) res.end(LARGE)
    else if (req.method === 'GET') res.end('ok')
  })
  const dead = await openUpstream(t, createServer(playDead))
  const idle = `${TIMEOUT_MS}ms`
  const common = { resource: 'orders', breaker: { failures: 0 } }
  return startMeasured(t, {
    limits: { headerTimeout: idle },
    resources: RESOURCES,
    routes: [
      { ...common, path: '/steady', upstream: steady.origin, timeout: { idle } },
      { ...common, path: '/dead', upstream: dead.origin, timeout: { idle, response: idle } },
    ],
  })
}

/** Checks how connections of one kind ended; gives the figures. */
function report(kind: Kind, ends: readonly Ending[]): string {
  const times = ends.map(({ afterMs }) => Math.round(afterMs))
  const answers = [...new Set(ends.map(({ status }) => status))].sort()
  assert.ok(Math.max(...times) < LATEST_MS, `${kind}: ${Math.max(...times)} ms`)
  for (const answer of answers) assert.match(answer, ANSWERS[kind], kind)
  return `${ends.length} times: over after ${Math.min(...times)} to ${Math.max(...times)} ms; answers: ${answers.join(', ')}`
}

/** Opens one such connection and waits until it is over. */
async function halfOpen({ port, fields }: Measured, kind: Kind, isOpen: IsOpen): Promise<Ending> {
  const socket = await openSocket(port)
  const began = performance.now()
  let text = ''
  const isDeaf = kind === 'reads nothing of a large answer'
  if (!isDeaf) socket.on('data', (chunk) => (text += chunk.toString('latin1')))
  send(socket, kind, fields)
  // A client that does not read learns of nothing; the kernel knows what became of the other end.
  if (isDeaf)
    await eventually('given up', () => !isOpen(socket.localPort!), { everyMs: 50, withinMs: 60_000 })
  else await untilClosed(socket)
  socket.destroy()
  return { status: /^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 'none', afterMs: performance.now() - began }
}

function send(socket: Socket, kind: Kind, fields: Readonly<Record<string, string>>): void {
  // A refusal ends these connections as well: only what is half-open keeps one.
  const closing = { ...fields, connection: 'close' }
  const upload = { ...closing, 'content-length': String(LARGE.length) }
  if (kind === 'sends half a head') socket.write(requestHead('GET', '/steady/ok', fields).slice(0, -9))
  if (kind === 'sends a head byte by byte') {
    const head = requestHead('GET', '/steady/ok', fields)
    let sent = 0
    const drip = setInterval(() => socket.write(head.charAt(sent++ % 40)), 100)
    socket.once('close', () => clearInterval(drip))
  }
  if (kind === 'sends half a body') socket.write(`${requestHead('POST', '/steady/sink', upload)}half`)
  if (kind === 'reads nothing of a large answer') socket.write(requestHead('GET', '/steady/large', closing))
  if (kind === 'waits for an upstream that never answers')
    socket.write(requestHead('GET', '/dead/silent', closing))
  if (kind === 'waits for an upstream that stops in mid-body')
    socket.write(requestHead('GET', '/dead/half', closing))
  if (kind === 'sends to an upstream that reads nothing') {
    socket.write(requestHead('POST', '/dead/deaf', upload))
    socket.write(LARGE)
  }
}

/** Takes connections, and does on them what the request's path says: nothing, half an answer, or not even read. */
function playDead(socket: Socket): void {
  socket.once('data', (chunk) => {
    const text = chunk.toString('latin1')
    if (text.startsWith('POST /dead/deaf')) socket.pause()
    else if (text.startsWith('GET /dead/half'))
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
  })
}
