import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createHttpsServer } from 'node:https'
import { test } from 'node:test'
import { certificates } from './certificates.ts'
import { answerWith, http2Upstream } from './http2-kit.ts'
import { isWholeHead, open, proxyTo, rawClient, rawUpstream, SESSION_HASH } from './sockets.ts'

const bodyOf = (text: string) => text.slice(text.indexOf('\r\n\r\n') + 4)
const ends = (tail: string) => (text: string) => text.endsWith(tail)
const LAST = 'Host: a\r\nConnection: close\r\n'

for (const tls of [true, false]) {
  test(`a request and its response cross over HTTP/2 ${tls ? 'by ALPN' : 'by prior knowledge'}`, async (t) => {
    const upstream = await http2Upstream(
      t,
      answerWith(200, { 'x-b': 'caf\xe9', 'content-length': '2' }, 'ok'),
      { tls },
    )
    const proxy = await proxyTo(t, upstream.route)
    const sent =
      'X-A: \xfc\r\nCookie: a=1\r\nX-Twice: 1\r\nx-twice: 2\r\nTE: trailers\r\nKeep-Alive: x\r\nUpgrade: h2c\r\n'
    const client = rawClient(t, proxy.port, `GET /a?b=c HTTP/1.1\r\n${LAST}${sent}\r\n`)
    const { text } = await client.closed
    assert.match(
      text,
      /^HTTP\/1\.1 200 OK\r\n(?=[\s\S]*x-b: caf\xe9\r\n)(?=[\s\S]*content-length: 2\r\n)[\s\S]*\r\n\r\nok$/,
    )
    const { headers } = upstream.streams[0]!
    assert.equal(headers[':authority'], new URL(upstream.route.upstream).host)
    assert.equal(headers[':path'], '/a?b=c')
    assert.equal(headers[':method'], 'GET')
    assert.equal(headers[':scheme'], tls ? 'https' : 'http')
    assert.deepEqual([headers['x-a'], headers['x-twice'], headers.cookie], ['\xfc', '1, 2', 'a=1'])
    for (const name of [
      'connection',
      'keep-alive',
      'te',
      'upgrade',
      'host',
      'transfer-encoding',
      'content-length',
    ])
      assert.equal(headers[name], undefined, name)
  })
}

test('an https upstream that does not know HTTP/2 is unreachable', async (t) => {
  const upstream = createHttpsServer(certificates.server, (req, res) => res.end(req.httpVersion))
  const origin = `https://localhost:${await open(t, upstream)}`
  const tls = { ca: certificates.ca, servername: 'orders.internal' }
  const proxy = await proxyTo(t, { upstream: origin, http2: true, tls })
  const { text } = await rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`).closed
  assert.match(text, /upstream_unreachable$/)
})

test('an http upstream that does not know HTTP/2 is unreachable', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
  const { text } = await rawClient(t, proxy.port, `POST / HTTP/1.1\r\n${LAST}Content-Length: 2\r\n\r\nab`)
    .closed
  assert.match(text, /upstream_unreachable$/)
})

test('no header of a client ends the connection that others use', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':path'] !== '/held') answerWith(200, {}, 'ok')(stream)
  })
  const proxy = await proxyTo(t, upstream.route)
  const other = rawClient(t, proxy.port, `GET /held HTTP/1.1\r\n${LAST}\r\n`)
  while (upstream.streams.length === 0) await new Promise(setImmediate)
  for (const fields of [
    'Content-Type: a\r\ncontent-type: b\r\n',
    'User-Agent: a\r\nuser-agent: b\r\n',
    'If-Modified-Since: a\r\nif-modified-since: b\r\n',
    'Cookie: a=1\r\ncookie: b=2\r\n',
    '__proto__: x\r\n__Proto__: y\r\nconstructor: z\r\n',
    'HTTP2-Settings: x\r\nProxy-Connection: x\r\nTE: gzip\r\n',
    'Access-Control-Request-Method: GET\r\naccess-control-request-method: PUT\r\n',
    ':authority: evil\r\n',
    `X-Big: ${'a'.repeat(60_000)}\r\n`,
    'X-Empty:\r\n',
    'Expect: 100-continue\r\n',
  ]) {
    await rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}${fields}\r\n`).closed
  }
  assert.equal(upstream.sessions.length, 1)
  assert.ok(upstream.streams.some(({ headers }) => headers.cookie === 'a=1; b=2'))
  const held = upstream.streams[0]!.stream
  held.respond({ ':status': 200 })
  held.end('still here')
  assert.match((await other.closed).text, /still here/)
})

test('cookies, repeated fields and authenticated answers keep the rules of HTTP/1.1', async (t) => {
  const fields = {
    'set-cookie': ['a=1', 'cloakroom=evil', 'b=2'],
    vary: 'accept',
    'strict-transport-security': 'max-age=1',
    'access-control-allow-origin': '*',
    location: '/x',
  }
  const upstream = await http2Upstream(t, answerWith(302, fields, ''))
  const proxy = await proxyTo(t, upstream.route)
  const { text } = await rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`).closed
  assert.match(text, /^HTTP\/1\.1 302 Found\r\n/)
  assert.match(text, /\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n/)
  assert.match(text, /\r\ncache-control: private\r\n/)
  assert.doesNotMatch(text, /evil|strict-transport|access-control|:status/)
})

test('HEAD, 204 and 304 have no body, and HEAD keeps its length', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    const status = Number(headers[':path']!.slice(1))
    const length = status === 204 ? {} : { 'content-length': 5 }
    stream.respond({ ':status': status, ...length }, { endStream: true })
  })
  const proxy = await proxyTo(t, upstream.route)
  for (const [line, length] of [
    ['HEAD /200', true],
    ['GET /304', true],
    ['GET /204', false],
  ] as const) {
    const { text } = await rawClient(t, proxy.port, `${line} HTTP/1.1\r\n${LAST}\r\n`).closed
    assert.equal(/content-length: 5\r\n/.test(text), length, text)
    assert.equal(bodyOf(text), '')
  }
})

test('interim answers and trailers do not cross, and a flood of them ends the request', async (t) => {
  const upstream = await http2Upstream(
    t,
    (stream, headers) => {
      const interim = headers[':path'] === '/flood' ? 100 : 2
      for (let i = 0; i < interim; i++) stream.additionalHeaders({ ':status': 103, link: '</a>' })
      stream.respond({ ':status': 200 }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'set-cookie': 'a=b' }))
      stream.end('ok')
    },
    {},
  )
  const proxy = await proxyTo(t, upstream.route)
  const { text } = await rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`).closed
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*2\r\nok\r\n0\r\n\r\n$/)
  assert.doesNotMatch(text, /link|set-cookie/)
  const flood = await rawClient(t, proxy.port, `GET /flood HTTP/1.1\r\n${LAST}\r\n`).closed
  assert.match(flood.text, /upstream_unreachable$/)
  assert.equal(upstream.sessions.length, 1)
})

for (const [what, framing] of [
  ['a length', 'Content-Length: 5\r\n\r\nhello'],
  ['chunks', 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: evil\r\n\r\n'],
] as const) {
  for (const method of ['POST', 'GET', 'DELETE']) {
    test(`the body of a ${method} framed by ${what} crosses over HTTP/2`, async (t) => {
      const upstream = await http2Upstream(t, (stream) => {
        let body = ''
        stream.on('data', (chunk) => (body += chunk))
        stream.on('trailers', () => assert.fail('trailers crossed'))
        stream.on('end', () => stream.respond({ ':status': 200 }) ?? stream.end(body.toUpperCase()))
      })
      const proxy = await proxyTo(t, upstream.route)
      const { text } = await rawClient(t, proxy.port, `${method} / HTTP/1.1\r\n${LAST}${framing}`).closed
      assert.match(text, /HELLO/)
      assert.equal(upstream.streams[0]!.headers['content-length'], what === 'a length' ? '5' : undefined)
    })
  }
}

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

test('a connection that is old takes no new requests, and what is under way on it ends in peace', async (t) => {
  const upstream = await http2Upstream(t, (stream, headers) => {
    if (headers[':path'] !== '/held') answerWith(200, {}, 'ok')(stream)
  })
  const proxy = await proxyTo(t, upstream.route, {}, { connectionTtlMs: 30 })
  const held = rawClient(t, proxy.port, `GET /held HTTP/1.1\r\n${LAST}\r\n`)
  const since = performance.now()
  while (performance.now() < since + 200)
    assert.match((await rawClient(t, proxy.port, `GET / HTTP/1.1\r\n${LAST}\r\n`).closed).text, /ok\r\n0/)
  assert.ok(upstream.sessions.length > 1)
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
