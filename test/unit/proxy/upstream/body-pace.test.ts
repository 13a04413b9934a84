import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { systemClock } from '../../../../src/async/clock.ts'
import type { RouteConfig } from '../../../../src/config/config.ts'
import { createTestClock } from '../../../kit/clock.ts'
import { http2Upstream } from '../../../kit/upstream/http2-kit.ts'
import { isWholeHead, open, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const PACE = { bytesPerSecond: 100, graceMs: 5_000 }
const CHUNKED = 'Host: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n'
const post = (fields: string) => `POST / HTTP/1.1\r\n${fields}\r\n`
const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
const turn = () => new Promise<void>((resolve) => void setImmediate(resolve))

const SECOND_MS = 1_000

/** A proxy that looks at bodies each second when the test says so; whatever else it waits for takes its time. */
async function pacedProxy(t: TestContext, route: Partial<RouteConfig> & { upstream: string }, pace = PACE) {
  const looks = createTestClock()
  let timed = 0
  function after(ms: number, call: () => void) {
    if (ms === SECOND_MS) timed += 1
    return (ms === SECOND_MS ? looks : systemClock).after(ms, call)
  }
  const proxy = await proxyTo(t, route, {}, { bodyPace: pace, clock: { ...systemClock, after } })
  async function seconds(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      looks.advance(SECOND_MS)
      await turn()
    }
  }
  return { ...proxy, seconds, timed: () => timed }
}

/** An upstream that notes how much of a body it got, and answers at its end. */
async function readingUpstream(t: TestContext) {
  const state = { received: '', isClosed: false }
  const upstream = await rawUpstream(t, (socket, received) => {
    if (state.received === '') socket.on('close', () => (state.isClosed = true))
    state.received = received
    if (received.endsWith('0\r\n\r\n') || received.startsWith('GET'))
      socket.end('HTTP/1.1 204 No Content\r\n\r\n')
  })
  const holds = async (text: string) => {
    while (!state.received.includes(text)) await turn()
  }
  return { origin: upstream.origin, state, holds }
}

test('a body that trickles is refused with 408, its connections end, and its permit is free', async (t) => {
  const upstream = await readingUpstream(t)
  const proxy = await pacedProxy(t, { upstream: upstream.origin, connections: 1 })
  const client = rawClient(t, proxy.port, post(CHUNKED) + chunk('a'))
  await upstream.holds('a')
  for (let second = 0; second < 5; second++) {
    await proxy.seconds(1)
    client.socket.write(chunk(`${second}!`))
    await upstream.holds(`${second}!`)
  }
  assert.equal(client.text(), '')
  await proxy.seconds(1)
  assert.match((await client.closed).text, /^HTTP\/1\.1 408 [\s\S]*connection: close\r\n[\s\S]*bad_request$/i)
  while (!upstream.state.isClosed) await turn()
  assert.deepEqual(proxy.outcomes, ['bad_request'])
  const next = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  assert.match((await next.closed).text, /^HTTP\/1\.1 204 /)
})

test('over HTTP/2 the stream of a body that trickles is reset, and the connection goes on', async (t) => {
  let received = ''
  const upstream = await http2Upstream(t, (stream, headers) => {
    stream.on('data', (piece) => (received += piece))
    if (headers[':method'] === 'GET') stream.respond({ ':status': 204 }, { endStream: true })
  })
  const proxy = await pacedProxy(t, upstream.route)
  const client = rawClient(t, proxy.port, `${post('Host: a\r\nContent-Length: 9\r\n')}abc`)
  while (received !== 'abc') await turn()
  await proxy.seconds(6)
  assert.match((await client.closed).text, /^HTTP\/1\.1 408 /)
  const [{ stream }] = upstream.streams as [(typeof upstream.streams)[0]]
  while (!stream.closed) await turn()
  assert.notEqual(stream.rstCode, 0)
  const next = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  assert.match((await next.closed).text, /^HTTP\/1\.1 204 /)
  assert.equal(upstream.sessions.length, 1)
})

test('a body that keeps the rate on average may take for ever, pauses included', async (t) => {
  const upstream = await readingUpstream(t)
  const proxy = await pacedProxy(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, post(CHUNKED))
  for (let minute = 0; minute < 10; minute++) {
    client.socket.write(chunk('x'.repeat(5_900) + `minute ${minute}.`.padEnd(100, '.')))
    await upstream.holds(`minute ${minute}.`)
    await proxy.seconds(60)
  }
  client.socket.write('0\r\n\r\n')
  assert.match((await client.closed).text, /^HTTP\/1\.1 204 /)
})

test('a second in which the upstream takes nothing is not held against the client', async (t) => {
  const size = 12 * 1024 * 1024
  let taken = 0
  const reader = createServer({ pauseOnConnect: true }, (socket) => {
    takeOn = () => socket.resume()
    socket.on('data', (piece) => {
      taken += piece.length
      if (taken > size) socket.end('HTTP/1.1 204 No Content\r\n\r\n')
    })
  })
  let takeOn: (() => void) | undefined
  const upstream = `http://127.0.0.1:${await open(t, reader)}`
  const proxy = await pacedProxy(t, { upstream }, { bytesPerSecond: 1_000_000, graceMs: 1_000 })
  const client = rawClient(t, proxy.port, post(`Host: a\r\nContent-Length: ${size}\r\n`))
  client.socket.write(Buffer.alloc(size))
  // It has sent what the buffers in between take, when nothing more goes for half a second: a busy machine has shorter pauses.
  for (let before = -1, still = 0; still < 5; await delay(100)) {
    still = before === client.socket.bytesWritten ? still + 1 : 0
    before = client.socket.bytesWritten
  }
  await proxy.seconds(3_600)
  assert.equal(client.text(), '')
  takeOn!()
  assert.match(await client.until(isWholeHead), /^HTTP\/1\.1 204 /)
})

test('while a request waits for its permit, its body is not asked for and not timed', async (t) => {
  let held: (() => void) | undefined
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.startsWith('GET')) held = () => socket.end('HTTP/1.1 204 No Content\r\n\r\n')
    else if (received.endsWith('hello')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  })
  const proxy = await pacedProxy(t, { upstream: upstream.origin, connections: 1 })
  rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  while (!held) await turn()
  const client = rawClient(t, proxy.port, post('Host: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n'))
  while (client.socket.connecting) await turn()
  await proxy.seconds(60)
  assert.equal(client.text(), '')
  held()
  await client.until(isWholeHead)
  client.socket.write('hello')
  assert.match(
    await client.until((text) => text.endsWith('ok')),
    /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /,
  )
})

test('an answer that has begun is cut when the body comes too slowly', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('1\r\na'))
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n')
  })
  const proxy = await pacedProxy(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, post(CHUNKED) + chunk('a'))
  await client.until((text) => text.includes('some'))
  await proxy.seconds(7)
  const { text } = await client.closed
  assert.match(text, /^HTTP\/1\.1 200 /)
  assert.doesNotMatch(text, /408|\r\n0\r\n\r\n$/)
})

test('without a lowest rate, and without a body, nothing is timed', async (t) => {
  const upstream = await readingUpstream(t)
  const off = await pacedProxy(t, { upstream: upstream.origin }, { bytesPerSecond: 0, graceMs: 0 })
  const client = rawClient(t, off.port, post(CHUNKED) + chunk('a'))
  await upstream.holds('1\r\na')
  await off.seconds(100)
  client.socket.write('0\r\n\r\n')
  assert.match((await client.closed).text, /^HTTP\/1\.1 204 /)
  const paced = await pacedProxy(t, { upstream: upstream.origin })
  const get = rawClient(t, paced.port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  assert.match((await get.closed).text, /^HTTP\/1\.1 204 /)
  assert.deepEqual([off.timed(), paced.timed()], [0, 0])
})
