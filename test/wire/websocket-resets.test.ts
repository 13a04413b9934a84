import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type SeededRandom, seededRandom } from '../chaos/seeded-random.ts'
import type { Inside, Measured } from '../kit/endurance/kit.ts'
import { inMb, NOT_MEASURABLE, openFiles } from '../kit/endurance/process-readings.ts'
import { createTally, inParallel, openSocket, untilClosed } from '../kit/endurance/raw-http.ts'
import { eventually } from '../kit/shops/deadline.ts'
import {
  BIG_MASKED_FRAME,
  handshakeOf,
  type Scene,
  SWITCHED,
  startScene,
  untilReceived,
} from './websocket-phases.ts'

const RESETS = 5_000
const HALF_OPEN = 1_000
const AT_ONCE = 48
const MOST_HEAP_GROWTH = 6_000_000

const CLIENT_PHASES = ['half-head', 'lookup', 'dial', 'open', 'mid-frame', 'not-reading'] as const
const UPSTREAM_PHASES = ['accept', 'head', 'with-101', 'mid-frame', 'not-reading'] as const

test('after 10000 WebSockets reset by clients and upstreams, files and heap are where they were', {
  skip: NOT_MEASURABLE,
  timeout: 300_000,
}, async (t) => {
  const measured = await startScene(t)
  const random = seededRandom(20_261_120)
  // The first of each kind load and compile what they need.
  await clientResets(measured, random.branch('warm-up'), 600)
  await upstreamResets(measured, random.branch('warm-up'), 600)
  const { files, before } = await atRest(measured)

  const began = performance.now()
  t.diagnostic(`clients: ${await clientResets(measured, random.branch('clients'), RESETS)}`)
  t.diagnostic(`upstreams: ${await upstreamResets(measured, random.branch('upstreams'), RESETS)}`)
  const seconds = (performance.now() - began) / 1_000
  t.diagnostic(`${2 * RESETS} resets in ${seconds.toFixed(1)} s`)
  await assertBackAt(t, measured, { files, before })
})

test('1000 WebSockets of which one end is gone without a word leave nothing', {
  skip: NOT_MEASURABLE,
  timeout: 300_000,
}, async (t) => {
  const measured = await startScene(t)
  for (const socket of (await halfOpen(measured, 120)).left) socket.destroy()
  const { files, before } = await atRest(measured)
  const { left, tally } = await halfOpen(measured, HALF_OPEN)
  const most = openFiles(measured.pid)
  const filesAfter = await measured.filesBackTo(files)
  t.diagnostic(`${tally}; files ${files} → ${most} → ${filesAfter} with ${left.length} clients still there`)
  for (const socket of left) socket.destroy()
  await assertBackAt(t, measured, { files, before })
})

/** What is held once no connection is left: the last timers that hold a socket run for two seconds, and some idle longer. */
async function atRest(measured: Measured): Promise<{ files: number; before: Inside }> {
  await delay(3_000)
  const before = await eventually('no connection is left', async () => {
    const inside = await measured.inside()
    return inside.kinds.TCPSocketWrap === undefined && inside
  })
  return { files: openFiles(measured.pid), before }
}

async function assertBackAt(
  t: TestContext,
  measured: Measured,
  { files, before }: { files: number; before: Inside },
): Promise<void> {
  const filesAfter = await measured.filesBackTo(files)
  let { before: after } = await atRest(measured)
  const grownBy = () => after.heapUsed + after.external - before.heapUsed - before.external
  // What a busy machine has not let go yet is no leak; what is never let go is one.
  for (let looks = 0; grownBy() >= MOST_HEAP_GROWTH && looks < 5; looks += 1)
    after = (await atRest(measured)).before
  const grown = grownBy()
  t.diagnostic(
    `files ${files} → ${filesAfter}; heap ${inMb(before.heapUsed)} → ${inMb(after.heapUsed)}, external ${inMb(before.external)} → ${inMb(after.external)}, RSS ${inMb(before.rss)} → ${inMb(after.rss)}`,
  )
  assert.ok(grown < MOST_HEAP_GROWTH, `heap and buffers grew by ${inMb(grown)}`)
  assert.deepEqual(after.kinds, before.kinds)
  assert.deepEqual(measured.unexpected(), [])
  const socket = await openSocket(measured.port)
  socket.write(handshakeOf(measured, '/play/hold-open'))
  await untilReceived(socket, SWITCHED.length)
  socket.destroy()
}

async function clientResets(measured: Measured, random: SeededRandom, times: number): Promise<string> {
  const tally = createTally()
  await inParallel(times, AT_ONCE, async (n) => {
    const phase = CLIENT_PHASES[n % CLIENT_PHASES.length]!
    const socket = await openSocket(measured.port)
    await untilPhase(socket, phase, measured, random)
    const over = untilClosed(socket)
    socket.resetAndDestroy()
    await over
    tally.add(phase)
  })
  return tally.toString()
}

async function untilPhase(
  socket: Socket,
  phase: (typeof CLIENT_PHASES)[number],
  measured: Measured,
  random: SeededRandom,
): Promise<void> {
  const head = (path: string) => handshakeOf(measured, path)
  if (phase === 'half-head') socket.write(head('/play/open').slice(0, random.between(1, 200)))
  else if (phase === 'lookup') {
    socket.write(head('/play/lookup'))
    if (random.chance(0.7)) await new Promise(setImmediate)
  } else if (phase === 'dial') {
    socket.write(head('/play/dial'))
    await delay(random.between(1, 15))
  } else if (phase === 'open') {
    socket.write(head('/play/open'))
    await untilReceived(socket, 1)
  } else if (phase === 'mid-frame') {
    socket.write(head('/play/client-mid-frame'))
    await untilReceived(socket, SWITCHED.length)
    socket.write(BIG_MASKED_FRAME)
    await untilReceived(socket, random.between(1, 500))
  } else {
    socket.write(head('/play/client-not-reading'))
    await untilReceived(socket, 1)
    socket.pause()
    await delay(random.between(0, 10))
  }
}

async function upstreamResets(measured: Measured, random: SeededRandom, times: number): Promise<string> {
  const tally = createTally()
  await inParallel(times, AT_ONCE, async (n) => {
    const phase = UPSTREAM_PHASES[n % UPSTREAM_PHASES.length]!
    const socket = await openSocket(measured.port)
    const over = untilClosed(socket)
    socket.write(handshakeOf(measured, phase === 'accept' ? '/accept' : `/play/${phase}`))
    if (phase === 'mid-frame' || phase === 'not-reading') {
      await untilReceived(socket, SWITCHED.length)
      socket.write(BIG_MASKED_FRAME)
      if (phase === 'not-reading' && random.chance(0.5)) socket.write(Buffer.alloc(200_000))
    }
    socket.resume()
    await over
    tally.add(phase)
  })
  return tally.toString()
}

/** A third loses its upstream, a third its client, a third both; the ends that are left neither read nor close. */
async function halfOpen(measured: Scene, count: number): Promise<{ left: Socket[]; tally: string }> {
  const tally = createTally()
  const left: Socket[] = []
  await inParallel(count, AT_ONCE, async (n) => {
    const kind = (['upstream lost', 'client lost', 'both silent'] as const)[n % 3]!
    const socket = connect({ port: measured.port, host: '127.0.0.1', allowHalfOpen: true })
    socket.on('error', () => undefined)
    socket.write(handshakeOf(measured, kind === 'both silent' ? '/idle' : `/silent/${kind.split(' ')[0]}`))
    await untilReceived(socket, 1)
    socket.pause()
    if (kind === 'client lost') socket.resetAndDestroy()
    else left.push(socket)
    tally.add(kind)
  })
  for (const socket of measured.doomed) socket.resetAndDestroy()
  measured.doomed.clear()
  return { left, tally: String(tally) }
}
