import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { type IncomingMessage, request, type ServerResponse } from 'node:http'
import { describe, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { constants, createGunzip, createGzip } from 'node:zlib'
import { listen } from '../kit/endurance/event-listener.ts'
import { type Measured, startMeasured } from '../kit/endurance/kit.ts'
import { NOT_MEASURABLE } from '../kit/endurance/process-readings.ts'
import { inParallel, openHttpUpstream, untilClosed } from '../kit/endurance/raw-http.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'

const IDLE_MS = 1_000
const STREAMS = 300

/** How an upstream answers one event stream. */
type Play = (res: ServerResponse, req: IncomingMessage) => void

describe('event streams', { skip: NOT_MEASURABLE, concurrency: 2, timeout: 300_000 }, () => {
  test('the first event is at the client at once, and each of the next', async (t) => {
    const { measured, plays } = await startStreams(t, '5m')
    const first: number[] = []
    const later: number[] = []
    await inParallel(STREAMS, 4, async (n) => {
      const stage = holdStage(plays, `/s${n}`)
      const stream = listen(measured, `/s${n}`)
      const res = await stage
      await stream.headers
      await delay(n % 20)
      for (let event = 0; event < 4; event += 1) {
        const text = `data: ${n}.${event}\n\n`
        const written = performance.now()
        res.write(text)
        const arrived = await stream.saying(text)
        ;(event === 0 ? first : later).push(arrived - written)
      }
      stream.leave()
    })
    for (const [what, all] of [
      ['first event', first],
      ['events after it', later],
    ] as const) {
      all.sort((a, b) => a - b)
      const at = (share: number) => all[Math.floor(share * (all.length - 1))]!
      const inTime = all.filter((ms) => ms < 50).length / all.length
      t.diagnostic(
        `${what} of ${STREAMS} streams, upstream's write to client: median ${at(0.5).toFixed(2)} ms, p99 ${at(0.99).toFixed(2)} ms, most ${at(1).toFixed(2)} ms; ${(100 * inTime).toFixed(1)} % under 50 ms`,
      )
      assert.ok(at(0.5) < 50, `${what}: ${at(0.5)} ms`)
      assert.ok(inTime > 0.9, `${what}: only ${100 * inTime} % under 50 ms`)
    }
  })

  test('the header is at the client while the first event is still to come', async (t) => {
    const { measured, plays } = await startStreams(t, '5m')
    const stage = holdStage(plays, '/silent')
    const stream = listen(measured, '/silent')
    await stage
    const res = await stream.headers
    assert.equal(res.statusCode, 200)
    assert.equal(res.headers['content-type'], 'text/event-stream')
    assert.equal(res.headers['content-length'], undefined)
    assert.equal(stream.text(), '')
    stream.leave()
  })

  test('comments keep a stream for ten times its idle timeout; without them it is cut', async (t) => {
    const { measured, plays } = await startStreams(t, `${IDLE_MS}ms`)
    const commented = holdStage(plays, '/commented')
    const silent = holdStage(plays, '/silent')
    const both = [listen(measured, '/commented'), listen(measured, '/silent')] as const
    const [chatty, quiet] = await Promise.all([commented, silent])
    await Promise.all(both.map(({ headers }) => headers))
    const began = performance.now()
    quiet.write('data: last\n\n')
    void both[1].over.then(() => {
      silentFor = performance.now() - began
    })
    let silentFor: number | undefined
    let comments = 0
    while (performance.now() - began < 10 * IDLE_MS) {
      chatty.write(': still here\n\n')
      comments += 1
      await delay(300)
      assert.equal(both[0].isOver(), false, `cut after ${comments} comments`)
    }
    chatty.write('data: at last\n\n')
    await both[0].saying('data: at last\n\n')
    t.diagnostic(
      `idle timeout ${IDLE_MS} ms: alive after ${Math.round(performance.now() - began)} ms and ${comments} comments; a silent one was cut after ${Math.round(silentFor ?? Number.NaN)} ms`,
    )
    assert.ok(silentFor !== undefined && silentFor >= 0.9 * IDLE_MS && silentFor < 5 * IDLE_MS)
    assert.equal(both[1].isWhole(), false)
    both[0].leave()
  })

  test('a compressed stream is passed on event by event, still compressed', async (t) => {
    const { measured, plays } = await startStreams(t, '5m')
    const stage = holdStage(plays, '/gzip', { 'content-encoding': 'gzip' })
    const stream = listen(measured, '/gzip', { 'accept-encoding': 'gzip' })
    const res = await stage
    const gzip = createGzip({ flush: constants.Z_SYNC_FLUSH })
    gzip.pipe(res)
    const unzipped = createGunzip()
    const answer = await stream.headers
    assert.equal(answer.headers['content-encoding'], 'gzip')
    answer.pipe(unzipped)
    let text = ''
    unzipped.on('data', (chunk) => {
      text += chunk
    })
    unzipped.on('error', () => undefined)
    for (let event = 0; event < 50; event += 1) {
      gzip.write(`data: ${event}\n\n`)
      await eventually('the event', () => text.endsWith(`data: ${event}\n\n`), { everyMs: 1 })
    }
    stream.leave()
  })

  test('Last-Event-ID reaches the upstream, and retry the client', async (t) => {
    const { measured, plays } = await startStreams(t, '5m')
    let lastEventId: unknown
    plays.set('/again', (res, req) => {
      lastEventId = req.headers['last-event-id']
      res.writeHead(200, { 'content-type': 'text/event-stream' }).end('retry: 250\nid: 8\ndata: next\n\n')
    })
    const stream = listen(measured, '/again', { 'last-event-id': '7' })
    await stream.over
    assert.equal(lastEventId, '7')
    assert.equal(stream.text(), 'retry: 250\nid: 8\ndata: next\n\n')
    assert.equal(stream.isWhole(), true)
  })

  test('signing out ends the streams of that session, and of no other, within 5 s', async (t) => {
    const { measured, plays } = await startStreams(t, '5m')
    const other = await measured.signInAgain()
    const stages = ['/mine', '/mine-too', '/theirs'].map((path) => holdStage(plays, path))
    const mine = [listen(measured, '/mine'), listen(measured, '/mine-too')]
    const theirs = listen({ ...measured, fields: other }, '/theirs')
    const [res, , notOurs] = await Promise.all(stages)
    await Promise.all([...mine, theirs].map(({ headers }) => headers))
    const cancelled = untilClosed(res!.socket!)
    const began = steadyNow()
    assert.equal(await signOut(measured), 200)
    await Promise.all([...mine.map(({ over }) => over), cancelled])
    const took = steadyNow() - began
    t.diagnostic(`streams ended ${took.toFixed(0)} ms after the sign-out began`)
    assert.ok(took < 5_000)
    notOurs!.write('data: alive\n\n')
    await theirs.saying('data: alive\n\n')
    theirs.leave()
  })

  test('a listener that leaves frees its stream at the upstream within a second', async (t) => {
    const { measured, plays } = await startStreams(t, '5m')
    const waits: number[] = []
    await inParallel(50, 5, async (n) => {
      const stage = holdStage(plays, `/s${n}`)
      const stream = listen(measured, `/s${n}`)
      const res = await stage
      await stream.headers
      const cancelled = untilClosed(res.socket!)
      const left = steadyNow()
      stream.leave()
      await cancelled
      waits.push(steadyNow() - left)
    })
    t.diagnostic(`50 left: freed after ${Math.max(...waits).toFixed(1)} ms at most`)
    assert.ok(Math.max(...waits) < 1_000)
  })
})

async function startStreams(t: TestContext, idle: string) {
  const plays = new Map<string, Play>()
  const upstream = await openHttpUpstream(t, (req, res) => {
    const play = plays.get(req.url!)
    if (play) play(res, req)
    else res.writeHead(404).end()
  })
  const measured = await startMeasured(t, {
    resources: { orders: { resource: 'https://orders.example.com' } },
    routes: [{ path: '/', upstream: upstream.origin, resource: 'orders', timeout: { idle } }],
  })
  return { measured, plays }
}

/** The upstream's side of a stream that is open and silent. */
function holdStage(
  plays: Map<string, Play>,
  path: string,
  headers: Record<string, string> = {},
): Promise<ServerResponse> {
  return new Promise((resolve) => {
    plays.set(path, (res) => {
      res.on('error', () => undefined)
      res.writeHead(200, { 'content-type': 'text/event-stream', ...headers }).flushHeaders()
      resolve(res)
    })
  })
}

function signOut({ port, fields }: Measured): Promise<number> {
  return new Promise((resolve, reject) => {
    const options = { method: 'POST', port, host: '127.0.0.1', path: '/bff/logout', headers: fields }
    request({ ...options, agent: false }, (res) => {
      res.resume().on('end', () => resolve(res.statusCode!))
    })
      .on('error', reject)
      .end()
  })
}
