import assert from 'node:assert/strict'
import { createServer as createHttpsServer } from 'node:https'
import { test } from 'node:test'
import { certificates } from '../../../kit/upstream/certificates.ts'
import { answerWith, http2Upstream } from '../../../kit/upstream/http2-kit.ts'
import { open, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const bodyOf = (text: string) => text.slice(text.indexOf('\r\n\r\n') + 4)
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
