import assert from 'node:assert/strict'
import { once } from 'node:events'
import { constants } from 'node:http2'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import {
  answerWith,
  frame,
  http2Upstream,
  rawHttp2Upstream,
  uint32,
} from '../../../kit/upstream/http2-kit.ts'
import { isWholeHead, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const LAST = 'Host: a\r\nConnection: close\r\n'
const GET = `GET / HTTP/1.1\r\n${LAST}\r\n`
const POST = `POST / HTTP/1.1\r\n${LAST}Content-Length: 2\r\n\r\nab`
const QUICK = { connectMs: 1_000, responseMs: 100, idleMs: 10_000 }

const RESET = (code: number) => frame(3, 0, 1, uint32(code))
const GOAWAY = (code: number) => frame(7, 0, 0, Buffer.concat([uint32(1), uint32(code)]))
for (const [what, go] of [
  ['a stream that is reset with NO_ERROR', (socket: Socket) => socket.write(RESET(0))],
  ['a stream that is reset with INTERNAL_ERROR', (socket: Socket) => socket.write(RESET(2))],
  ['a stream that is reset with REFUSED_STREAM', (socket: Socket) => socket.write(RESET(7))],
  ['a stream that is reset with CANCEL', (socket: Socket) => socket.write(RESET(8))],
  ['a connection that ends', (socket: Socket) => socket.end()],
  ['a connection that is reset', (socket: Socket) => setImmediate(() => socket.resetAndDestroy())],
  ['a connection that goes away and ends', (socket: Socket) => socket.end(GOAWAY(0))],
  ['a connection that goes away with an error', (socket: Socket) => socket.write(GOAWAY(2))],
  ['a frame that may not be', (socket: Socket) => socket.write(frame(0, 1, 0))],
] as const) {
  test(`${what} in mid-body cuts the client's connection`, async (t) => {
    const proxy = await proxyTo(t, { upstream: await rawHttp2Upstream(t, go), http2: true })
    const { text } = await rawClient(t, proxy.port, GET).closed
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n/)
    assert.doesNotMatch(text, /\r\n0\r\n\r\n$/)
  })
}

test('an answer that ended stays whole when its stream is reset after', async (t) => {
  const upstream = await rawHttp2Upstream(t, (socket) =>
    socket.write(Buffer.concat([frame(0, 1, 1), RESET(0)])),
  )
  const proxy = await proxyTo(t, { upstream, http2: true })
  assert.match((await rawClient(t, proxy.port, GET).closed).text, /some\r\n0\r\n\r\n$/)
})

for (const [what, code] of [
  ['INTERNAL_ERROR', constants.NGHTTP2_INTERNAL_ERROR],
  ['CANCEL', constants.NGHTTP2_CANCEL],
  ['NO_ERROR', constants.NGHTTP2_NO_ERROR],
] as const) {
  test(`a stream that is reset with ${what} before its answer is unreachable, and sent once`, async (t) => {
    const upstream = await http2Upstream(t, (stream) => stream.close(code))
    const proxy = await proxyTo(t, upstream.route)
    for (const request of [GET, POST])
      assert.match((await rawClient(t, proxy.port, request).closed).text, /upstream_unreachable$/)
    assert.equal(upstream.streams.length, 2)
    assert.equal(upstream.sessions.length, 1)
  })
}

for (const [what, length] of [
  ['more', 2],
  ['less', 20],
] as const) {
  test(`${what} than the announced length does not look like a whole answer`, async (t) => {
    const upstream = await http2Upstream(t, (stream) => {
      stream.respond({ ':status': 200, 'content-length': length })
      stream.end('four')
    })
    const proxy = await proxyTo(t, upstream.route)
    const { text } = await rawClient(t, proxy.port, GET).closed
    assert.ok(
      text.slice(text.indexOf('\r\n\r\n') + 4).length < Math.max(length, 3) || /unreachable$/.test(text),
    )
  })
}

test('an upstream that goes away lets its streams end, and the next request takes a new connection', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':path'] !== '/held') answerWith(200, {}, 'ok')(stream)
  })
  const proxy = await proxyTo(t, upstream.route)
  const held = rawClient(t, proxy.port, GET.replace('/', '/held'))
  while (upstream.streams.length === 0) await new Promise(setImmediate)
  upstream.sessions[0]!.goaway(constants.NGHTTP2_NO_ERROR, upstream.streams[0]!.stream.id!)
  for (let i = 0; i < 5; i++) assert.match((await rawClient(t, proxy.port, GET).closed).text, /ok\r\n0/)
  assert.equal(upstream.sessions.length, 2)
  answerWith(200, {}, 'late')(upstream.streams[0]!.stream)
  assert.match((await held.closed).text, /late\r\n0\r\n\r\n$/)
})

test('a connection that is lost ends everything on it: bodies are cut, and a POST is not sent twice', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':method'] === 'GET') stream.respond({ ':status': 200 })
    if (headers[':method'] === 'GET') stream.write('some')
  })
  const proxy = await proxyTo(t, upstream.route)
  const gets = Array.from({ length: 5 }, () => rawClient(t, proxy.port, GET))
  for (const get of gets) await get.until(isWholeHead)
  const posts = Array.from({ length: 5 }, () => rawClient(t, proxy.port, POST))
  while (upstream.streams.length < 10) await new Promise(setImmediate)
  upstream.sockets[0]!.resetAndDestroy()
  for (const get of gets) assert.doesNotMatch((await get.closed).text, /\r\n0\r\n\r\n$/)
  for (const post of posts) assert.match((await post.closed).text, /upstream_unreachable$/)
  assert.equal(upstream.streams.length, 10)
  assert.equal(upstream.sessions.length, 1)
})

for (const [what, framing] of [
  ['a length', 'Content-Length: 100\r\n\r\nabc'],
  ['chunks', 'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
] as const) {
  for (const [how, breakOff] of [
    ['that its client breaks off', (socket: Socket) => void socket.destroy()],
    ['with a broken chunk', (socket: Socket) => void socket.write('zz\r\n'.repeat(20))],
  ] as const) {
    test(`an upload framed by ${what} ${how} never looks whole to the upstream`, async (t) => {
      let received = ''
      let isWhole = false
      const upstream = await http2Upstream(t, (stream) => {
        stream.on('data', (chunk) => (received += chunk))
        stream.on('end', () => (isWhole ||= !stream.aborted && received.length < 100))
      })
      const proxy = await proxyTo(t, { ...upstream.route, maxBody: 1_000 })
      const client = rawClient(t, proxy.port, `POST / HTTP/1.1\r\n${LAST}${framing}`)
      while (received === '') await new Promise(setImmediate)
      const { stream } = upstream.streams[0]!
      const closed = new Promise((resolve) => stream.on('close', resolve))
      breakOff(client.socket)
      if (what === 'chunks' || how.includes('client')) await closed
      assert.equal(isWhole, false)
    })
  }
}

test('an answer before the end of the upload reaches the client, and the upload stops', async (t) => {
  const upstream = await http2Upstream(t, (stream) => {
    stream.respond({ ':status': 413 })
    stream.end('no')
  })
  const proxy = await proxyTo(t, upstream.route)
  const client = rawClient(t, proxy.port, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc`)
  const { text } = await client.closed
  assert.match(text, /^HTTP\/1\.1 413 [\s\S]*\r\nConnection: close\r\n[\s\S]*no\r\n0\r\n\r\n$/)
  const { stream } = upstream.streams[0]!
  if (!stream.closed) await once(stream, 'close')
})

test('no answer in time is a timeout that leaves the other streams alone', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':path'] !== '/') answerWith(200, {}, 'ok')(stream)
  })
  const proxy = await proxyTo(t, { ...upstream.route, timeout: { ...QUICK, responseMs: 1_000 } })
  const silent = rawClient(t, proxy.port, GET)
  assert.match((await rawClient(t, proxy.port, GET.replace('/', '/ok')).closed).text, /ok\r\n0/)
  assert.match((await silent.closed).text, /upstream_timeout$/)
  assert.match((await rawClient(t, proxy.port, GET.replace('/', '/ok')).closed).text, /ok\r\n0/)
  assert.equal(upstream.sessions.length, 1)
})

test('a body that stands still for the idle time is cut', async (t) => {
  const upstream = await http2Upstream(t, (stream) => {
    stream.respond({ ':status': 200 })
    stream.write('some')
  })
  const proxy = await proxyTo(t, { ...upstream.route, timeout: { ...QUICK, idleMs: 50 } })
  const settled = proxy.settled()
  const { text } = await rawClient(t, proxy.port, GET).closed
  assert.doesNotMatch(text, /\r\n0\r\n\r\n$/)
  assert.equal(await settled, 'upstream_timeout')
})

test('a server that accepts and says nothing, and one that takes no streams, are timeouts', async (t) => {
  const mute = await rawUpstream(t, () => {})
  const timeout = { connectMs: 200, responseMs: 100, idleMs: 1_000 }
  const first = await proxyTo(t, { upstream: mute.origin, http2: true, timeout })
  const clients = Array.from({ length: 3 }, () => rawClient(t, first.port, GET))
  for (const client of clients) assert.match((await client.closed).text, /upstream_timeout$/)
  const none = await http2Upstream(t, answerWith(200, {}, 'ok'), { settings: { maxConcurrentStreams: 0 } })
  const second = await proxyTo(t, { ...none.route, timeout, connections: 1 })
  const others = Array.from({ length: 3 }, () => rawClient(t, second.port, GET))
  for (const client of others) assert.match((await client.closed).text, /upstream_\w+$/)
})

test('three thousand streams, every third abandoned by its client, leave nothing behind', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (!headers[':path']!.endsWith('leave')) answerWith(200, {}, 'ok')(stream)
  })
  const proxy = await proxyTo(t, { ...upstream.route, connections: 1 })
  for (let round = 0; round < 100; round++) {
    const clients = Array.from({ length: 30 }, (_, i) => {
      const isLeaver = i % 3 === 0
      const client = rawClient(t, proxy.port, GET.replace('/', isLeaver ? '/leave' : '/ok'))
      if (isLeaver) setTimeout(() => client.socket.destroy(), round % 5)
      return client
    })
    for (const client of clients) await client.closed
  }
  assert.match((await rawClient(t, proxy.port, GET).closed).text, /ok\r\n0/)
  assert.ok(upstream.sessions.length <= 2, `${upstream.sessions.length} connections`)
})
