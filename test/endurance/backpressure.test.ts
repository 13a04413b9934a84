import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { describe, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Measured, startMeasured } from '../kit/endurance/kit.ts'
import {
  checkPattern,
  type PatternCheck,
  type ReadingPace,
  writePattern,
} from '../kit/endurance/patterned-body.ts'
import {
  bytesInKernel,
  inMb,
  memoryOf,
  NOT_MEASURABLE,
  watchMemory,
} from '../kit/endurance/process-readings.ts'
import { openHttpUpstream } from '../kit/endurance/raw-http.ts'
import { steadyTest as test } from '../kit/steady.ts'

const BYTES = 200_000_000
/** At most 35 MB a second: far slower than what sends. */
const SLOW: ReadingPace = { burstBytes: 2_097_152, pauseMs: 60 }
const MOST_HELD = 2_000_000
/** Of four sockets' buffers in the kernel, which take about 10 MB of it by default. */
const MOST_UNDER_WAY = 40_000_000

/** Counts of one body: what its sender got rid of, and what has arrived. */
type Flow = { sent: number; check: PatternCheck }

describe('backpressure', { skip: NOT_MEASURABLE, concurrency: 2, timeout: 300_000 }, () => {
  test('a slow reader of a 200 MB answer slows the upstream down', async (t) => {
    const flow = newFlow()
    const upstream = await openHttpUpstream(t, (_req, res) => {
      res.setHeader('content-length', BYTES)
      void writePattern(res, BYTES, { written: (total) => (flow.sent = total) })
    })
    const measured = await startOn(t, upstream.origin)
    const { port, fields } = measured
    await watch(t, measured, flow, async () => {
      const req = request({ port, host: '127.0.0.1', path: '/', headers: fields, agent: false }).end()
      const [res] = (await once(req, 'response')) as [IncomingMessage]
      await standstill(t, measured, upstream.port, flow)
      await checkPattern(res, SLOW, flow.check)
    })
  })

  test('a slow upstream slows the sender of 200 MB down, for longer than it may take to answer', async (t) => {
    const flow = newFlow()
    const begun = Promise.withResolvers<void>()
    const upstream = await openHttpUpstream(t, async (req, res) => {
      await begun.promise
      await checkPattern(req, SLOW, flow.check)
      res.end('ok')
    })
    const measured = await startOn(t, upstream.origin)
    const { port, fields } = measured
    const headers = { ...fields, 'content-length': BYTES }
    await watch(t, measured, flow, async () => {
      const req = request({ method: 'POST', port, host: '127.0.0.1', path: '/', headers, agent: false })
      const answered = once(req, 'response')
      const sending = writePattern(req, BYTES, { written: (total) => (flow.sent = total) })
      await standstill(t, measured, upstream.port, flow)
      begun.resolve()
      await sending
      const [res] = (await answered) as [IncomingMessage]
      assert.equal(res.statusCode, 200)
      res.resume()
    })
  })
})

function newFlow(): Flow {
  return { sent: 0, check: { bytes: 0, firstWrong: null } }
}

function startOn(t: TestContext, upstream: string): Promise<Measured> {
  return startMeasured(t, {
    resources: { files: { resource: 'https://files.example.com' } },
    // Shorter than the transfer: what counts is the time between two pieces.
    routes: [{ path: '/', upstream, resource: 'files', timeout: { response: '3s', idle: '3s' } }],
  })
}

/** While nobody reads, the sender comes to a stop, with no more under way than the kernel's own buffers hold. */
async function standstill(t: TestContext, { port }: Measured, upstreamPort: number, flow: Flow) {
  let before = -1
  const deadline = Date.now() + 1_500
  while (flow.sent !== before && Date.now() < deadline) {
    before = flow.sent
    await delay(200)
  }
  assert.equal(flow.sent, before, 'the sender still gets rid of more')
  const underWay = flow.sent - flow.check.bytes
  const inKernel = bytesInKernel([port, upstreamPort])
  t.diagnostic(
    `nobody reads: the sender stops after ${inMb(underWay)}, ${inMb(inKernel)} of it in the kernel's buffers`,
  )
  assert.ok(underWay - inKernel < MOST_HELD, `${inMb(underWay - inKernel)} held`)
}

/** Samples how much is under way while `work` moves the body, and checks it at the end. */
async function watch(
  t: TestContext,
  { pid }: Measured,
  flow: Flow,
  work: () => Promise<void>,
): Promise<void> {
  const cold = memoryOf(pid).now
  let mostUnderWay = 0
  const sampler = setInterval(() => {
    mostUnderWay = Math.max(mostUnderWay, flow.sent - flow.check.bytes)
  }, 10)
  const began = performance.now()
  const { peak } = await watchMemory(pid, work).finally(() => clearInterval(sampler))
  const seconds = (performance.now() - began) / 1_000
  t.diagnostic(
    `${inMb(BYTES)} in ${seconds.toFixed(1)} s: at most ${inMb(mostUnderWay)} under way; memory ${inMb(cold)} → ${inMb(peak)}`,
  )
  assert.deepEqual(flow.check, { bytes: BYTES, firstWrong: null })
  assert.ok(mostUnderWay < MOST_UNDER_WAY, `${inMb(mostUnderWay)} under way`)
}
