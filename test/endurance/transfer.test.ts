import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { type Measured, startMeasured } from '../kit/endurance/kit.ts'
import {
  checkPattern,
  type PatternCheck,
  type ReadingPace,
  writePattern,
} from '../kit/endurance/patterned-body.ts'
import { inMb, memoryOf, NOT_MEASURABLE, watchMemory } from '../kit/endurance/process-readings.ts'

const GIB = 1_073_741_824
const MOST_GROWTH = 40_000_000
/** Stops for 40 ms after each 32 MiB: long enough for every buffer between here and there to fill up. */
const BURSTY: ReadingPace = { burstBytes: 33_554_432, pauseMs: 40 }
const IS_FULL = process.env.ENDURANCE === 'full'

/** Each is sent both ways; with ENDURANCE=full, every one of them has 2 GiB. */
const BODIES: readonly { body: Body; pace: ReadingPace }[] = [
  { body: { bytes: 2 * GIB, framing: 'length' }, pace: 'fast' },
  { body: { bytes: IS_FULL ? 2 * GIB : GIB / 4, framing: 'length' }, pace: BURSTY },
  { body: { bytes: IS_FULL ? 2 * GIB : GIB / 4, framing: 'chunked' }, pace: 'fast' },
  { body: { bytes: IS_FULL ? 2 * GIB : GIB / 4, framing: 'chunked' }, pace: BURSTY },
]

test('2 GiB down and up add less than 40 MB to the memory of a process that has served small requests only', {
  skip: NOT_MEASURABLE,
  timeout: IS_FULL ? 900_000 : 300_000,
}, async (t) => {
  const upstream = await startBodies(t)
  const measured = await startMeasured(t, {
    resources: { files: { resource: 'https://files.example.com' } },
    routes: [{ path: '/', upstream, resource: 'files' }],
  })
  for (let n = 0; n < 100; n += 1) await download(measured, { bytes: 1_000, framing: 'length' }, 'fast')
  const base = memoryOf(measured.pid).now
  t.diagnostic(`after 100 small requests, the base: ${inMb(base)}`)
  let worst = 0
  for (const { body, pace } of BODIES) {
    for (const direction of [download, upload]) {
      const began = performance.now()
      let check: PatternCheck | undefined
      const { peak } = await watchMemory(measured.pid, async () => {
        check = await direction(measured, body, pace)
      })
      const seconds = (performance.now() - began) / 1_000
      const reader = pace === 'fast' ? 'fast' : 'bursty'
      const what = `${direction.name} of ${inMb(body.bytes)}, ${body.framing}, ${reader} reader`
      t.diagnostic(`${what}: ${seconds.toFixed(1)} s, peak ${inMb(peak)}, ${inMb(peak - base)} over the base`)
      assert.deepEqual(check, { bytes: body.bytes, firstWrong: null }, what)
      worst = Math.max(worst, peak - base)
    }
  }
  assert.ok(worst < MOST_GROWTH, `grew by ${inMb(worst)}`)
})

type Body = { readonly bytes: number; readonly framing: 'length' | 'chunked' }

async function download({ port, fields }: Measured, { bytes, framing }: Body, pace: ReadingPace) {
  const path = `/down?bytes=${bytes}&framing=${framing}`
  const req = request({ port, host: '127.0.0.1', path, headers: fields, agent: false }).end()
  const [res] = (await once(req, 'response')) as [IncomingMessage]
  assert.equal(res.statusCode, 200)
  assert.equal(res.headers['content-length'], framing === 'length' ? String(bytes) : undefined)
  return checkPattern(res, pace)
}

async function upload({ port, fields }: Measured, { bytes, framing }: Body, pace: ReadingPace) {
  const path = `/up?pace=${pace === 'fast' ? 'fast' : 'bursty'}`
  const length = framing === 'length' ? { 'content-length': bytes } : {}
  const headers = { ...fields, ...length }
  const req = request({ method: 'POST', port, host: '127.0.0.1', path, headers, agent: false })
  const answered = once(req, 'response')
  await writePattern(req, bytes)
  const [res] = (await answered) as [IncomingMessage]
  assert.equal(res.statusCode, 200)
  return JSON.parse(await text(res)) as PatternCheck
}

async function text(res: IncomingMessage): Promise<string> {
  let whole = ''
  for await (const chunk of res) whole += chunk
  return whole
}

/** An upstream that sends the pattern, and compares what it is sent. */
async function startBodies(t: TestContext): Promise<string> {
  const server = createServer(async (req, res) => {
    const { pathname, searchParams } = new URL(req.url!, 'http://upstream')
    if (req.headers.authorization === undefined) res.writeHead(401).end()
    else if (pathname === '/down') await sendBody(res, searchParams)
    else {
      const check = await checkPattern(req, searchParams.get('pace') === 'fast' ? 'fast' : BURSTY)
      res.end(JSON.stringify(check))
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function sendBody(res: ServerResponse, wishes: URLSearchParams): Promise<void> {
  const bytes = Number(wishes.get('bytes'))
  if (wishes.get('framing') === 'length') res.setHeader('content-length', bytes)
  return writePattern(res, bytes)
}
