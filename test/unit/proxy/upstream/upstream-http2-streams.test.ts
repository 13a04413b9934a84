import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { answerWith, http2Upstream } from '../../../kit/upstream/http2-kit.ts'
import { ends, isWholeHead, proxyTo, rawClient, SESSION_HASH } from '../../../kit/upstream/sockets.ts'

const bodyOf = (text: string) => text.slice(text.indexOf('\r\n\r\n') + 4)
const LAST = 'Host: a\r\nConnection: close\r\n'

test('two hundred requests share few connections, also where the upstream takes few at a time', async (t) => {
  for (const maxConcurrentStreams of [1, 10, 1_000]) {
    const upstream = await http2Upstream(t, answerWith(200, {}, 'ok'), { settings: { maxConcurrentStreams } })
    const proxy = await proxyTo(t, { ...upstream.route, connections: 4 })
    const clients = Array.from({ length: 200 }, () =>
      rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`),
    )
    for (const client of clients) assert.match((await client.closed).text, /^HTTP\/1\.1 200 /)
    assert.equal(upstream.streams.length, 200)
    assert.ok(upstream.sessions.length <= 4, `${upstream.sessions.length} connections`)
  }
})

test('a large download waits for a slow reader, and a large upload for a slow upstream', async (t) => {
  const size = 16 * 1024 * 1024
  let taken = 0
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':method'] === 'POST') {
      stream.on('data', (chunk: Buffer) => (taken += chunk.length))
      stream.pause()
      setTimeout(() => stream.resume(), 200)
      stream.on('end', () => stream.respond({ ':status': 200 }) ?? stream.end('done'))
      return
    }
    stream.respond({ ':status': 200, 'content-length': size })
    stream.end(Buffer.alloc(size, 'x'))
  })
  const proxy = await proxyTo(t, upstream.route)
  const download = rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`)
  await download.until(isWholeHead)
  download.socket.pause()
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.ok(download.socket.bytesRead < size)
  download.socket.resume()
  assert.equal(bodyOf((await download.closed).text).length, size)
  const upload = rawClient(t, proxy.port, `POST / HTTP/1.1\r\n${LAST}Content-Length: ${size}\r\n\r\n`)
  upload.socket.write(Buffer.alloc(size))
  await upload.until((text) => text.includes('done'))
  assert.equal(taken, size)
})

test('a client that leaves resets its stream, and no other', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    stream.respond({ ':status': 200 })
    stream.write(headers[':path']!)
  })
  const proxy = await proxyTo(t, upstream.route)
  const leaver = rawClient(t, proxy.port, `GET /leaver HTTP/1.1\r\n${LAST}\r\n`)
  const stayer = rawClient(t, proxy.port, `GET /stayer HTTP/1.1\r\n${LAST}\r\n`)
  await Promise.all([
    leaver.until((text) => text.includes('/leaver')),
    stayer.until((text) => text.includes('/stayer')),
  ])
  const gone = upstream.streams.find(({ headers }) => headers[':path'] === '/leaver')!.stream
  leaver.socket.destroy()
  await once(gone, 'close')
  upstream.streams.find(({ headers }) => headers[':path'] === '/stayer')!.stream.end('and ends')
  assert.match((await stayer.closed).text, /and ends\r\n0\r\n\r\n$/)
  assert.equal(upstream.sessions.length, 1)
})

test('an event stream over HTTP/2 arrives at once and ends with its session', async (t) => {
  const upstream = await http2Upstream(t, (stream) => {
    stream.respond({ ':status': 200, 'content-type': 'text/event-stream' })
    setTimeout(() => stream.write('data: 1\n\n'), 50)
  })
  const proxy = await proxyTo(t, upstream.route)
  const client = rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`)
  await client.until(isWholeHead)
  await client.until((text) => text.includes('data: 1\n\n'))
  const closed = once(upstream.streams[0]!.stream, 'close')
  proxy.upstreams.endSession(SESSION_HASH)
  assert.match((await client.closed).text, /0\r\n\r\n$/)
  await closed
})

test('a connection that is old takes no new requests, and its requests in flight end in peace', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':path'] !== '/held') answerWith(200, {}, 'ok')(stream)
  })
  const proxy = await proxyTo(t, upstream.route, {}, { connectionTtlMs: 30 })
  const held = rawClient(t, proxy.port, `GET /held HTTP/1.1\r\n${LAST}\r\n`)
  // Some more after the first on the next connection: the old one is not taken up again.
  for (let more = 0; more < 5; more += upstream.sessions.length > 1 ? 1 : 0)
    assert.match((await rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`).closed).text, /ok\r\n0/)
  answerWith(200, {}, 'late')(upstream.streams.find(({ headers }) => headers[':path'] === '/held')!.stream)
  assert.match((await held.closed).text, /late\r\n0\r\n\r\n$/)
})

test('closing waits for the streams in flight', async (t) => {
  const upstream = await http2Upstream(t, () => {})
  const proxy = await proxyTo(t, upstream.route)
  const client = rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`)
  while (upstream.streams.length === 0) await new Promise(setImmediate)
  const closed = proxy.upstreams.close()
  answerWith(200, {}, 'late')(upstream.streams[0]!.stream)
  await client.until((text) => text.includes('late'))
  await closed
  assert.ok(ends('0\r\n\r\n')(client.text()))
})
