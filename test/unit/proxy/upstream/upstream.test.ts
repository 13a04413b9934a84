import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import type { RouteConfig } from '../../../../src/config/config.ts'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { sessionHash } from '../../../../src/session/session.ts'
import { certificates } from '../../../kit/upstream/certificates.ts'
import {
  ends,
  isWholeHead,
  open,
  proxyTo,
  rawClient,
  rawUpstream,
  SESSION_HASH,
} from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

/** Requests seen by an upstream: method and target of each. */
function requestLines(received: string[]): string[] {
  return received.flatMap((text) =>
    [...text.matchAll(/^([A-Z]+ \S+) HTTP\/1\.1\r$/gm)].map(([, line]) => line!),
  )
}

test('a request and its response cross with their own framing', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(OK))
  const { port } = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, port, 'GET /a?b=c HTTP/1.1\r\nHost: app.test\r\nX-A: 1\r\n\r\n')
  const answer = await client.until(ends('ok'))
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\nContent-Length: 2\r\n/)
  assert.match(
    upstream.received[0]!,
    new RegExp(`^GET /a\\?b=c HTTP/1.1\\r\\nhost: ${upstream.origin.slice(7)}\\r\\n`),
  )
  assert.match(upstream.received[0]!, /\r\nX-A: 1\r\n/)
})

test('two requests use one upstream connection', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(OK))
  const { port } = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('ok'))
  client.socket.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until((text) => text.split('HTTP/1.1 200').length === 3 && text.endsWith('ok'))
  assert.deepEqual(requestLines(upstream.received), ['GET /1', 'GET /2'])
  assert.equal(upstream.received.length, 1)
})

for (const method of ['GET', 'DELETE', 'OPTIONS', 'POST']) {
  for (const [framing, body] of [
    ['Content-Length: 33', 'GET /secret HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['Transfer-Encoding: chunked', '21\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n'],
  ] as const) {
    test(`${method} with a body framed by ${framing} is one request`, async (t) => {
      const upstream = createServer((req, res) => {
        let text = ''
        req.on('data', (chunk) => (text += chunk))
        req.on('end', () => res.end(`${req.method} ${text.length}`))
      })
      let requests = 0
      upstream.on('request', () => requests++)
      const origin = `http://127.0.0.1:${await open(t, upstream)}`
      const { port } = await proxyTo(t, { upstream: origin })
      const client = rawClient(
        t,
        port,
        `${method} / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\n${framing}\r\n\r\n${body}`,
      )
      await client.until((text) => text.includes(`${method} 33`))
      assert.equal(requests, 1)
    })
  }
}

test('trailers do not cross', async (t) => {
  const upstream = await rawUpstream(
    t,
    (socket, received) => received.includes('0\r\n\r\n') && socket.write(OK),
  )
  const { port } = await proxyTo(t, { upstream: upstream.origin })
  const body = '3\r\nabc\r\n0\r\nAuthorization: Bearer evil\r\n\r\n'
  const client = rawClient(
    t,
    port,
    `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n${body}`,
  )
  await client.until(ends('ok'))
  assert.doesNotMatch(upstream.received[0]!, /evil|trailer/i)
})

test('HEAD, 204 and 304 have no body, and HEAD keeps its length', async (t) => {
  const upstream = createServer((req, res) => {
    if (req.method === 'HEAD') res.writeHead(200, { 'content-length': 5 }).end()
    else res.writeHead(Number(req.url!.slice(1)), { etag: '"x"' }).end()
  })
  const { port } = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const client = rawClient(t, port, 'HEAD / HTTP/1.1\r\nHost: a\r\n\r\n')
  assert.match(await client.until(isWholeHead), /content-length: 5\r\n/)
  client.socket.write('GET /204 HTTP/1.1\r\nHost: a\r\n\r\nGET /304 HTTP/1.1\r\nHost: a\r\n\r\n')
  const text = await client.until((all) => all.split('\r\n\r\n').length === 4)
  assert.match(text, /HTTP\/1\.1 204 [\s\S]*HTTP\/1\.1 304 /)
  assert.doesNotMatch(text, /transfer-encoding/i)
})

test('1xx answers are not mistaken for the final one', async (t) => {
  const early = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n'
  const upstream = await rawUpstream(t, (socket) => socket.write(early + OK))
  const { port } = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  assert.match(await client.until(ends('ok')), /^HTTP\/1\.1 200 OK\r\n/)
})

test('the first byte of an event stream arrives without waiting for more', async (t) => {
  let stream: ServerResponse | undefined
  const upstream = createServer((_, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    stream = res
  })
  const { port } = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const client = rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(isWholeHead)
  stream!.write('data: 1\n\n')
  await client.until((text) => text.includes('data: 1\n\n'))
  stream!.write('data: 2\n\n')
  await client.until((text) => text.includes('data: 2\n\n'))
})

test('an event stream ends with its session, and a download does not', async (t) => {
  const upstream = createServer((req, res) => {
    res.writeHead(200, { 'content-type': req.url === '/stream' ? 'text/event-stream' : 'text/plain' })
    res.write('begin')
  })
  const proxy = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const stream = rawClient(t, proxy.port, 'GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  const download = rawClient(t, proxy.port, 'GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  await Promise.all([stream, download].map((client) => client.until((text) => text.includes('begin'))))
  proxy.upstreams.endSession(sessionHash('session-2'))
  proxy.upstreams.endSession(SESSION_HASH)
  assert.match((await stream.closed).text, /0\r\n\r\n$/)
  assert.equal(download.socket.readableEnded, false)
})

test('a body of exactly the limit crosses', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => received.endsWith('abcd') && socket.write(OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin, maxBody: 4 })
  const client = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd')
  await client.until(ends('ok'))
})

test('100 Continue is said when the body is wanted', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => received.endsWith('abcd') && socket.write(OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(
    t,
    proxy.port,
    'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
  )
  assert.match(await client.until(isWholeHead), /^HTTP\/1\.1 100 Continue\r\n/)
  client.socket.write('abcd')
  await client.until(ends('ok'))
  assert.doesNotMatch(upstream.received[0]!, /expect/i)
})

test('a large download waits for a slow reader and arrives whole', async (t) => {
  const size = 64 * 1024 * 1024
  let sent = 0
  const upstream = createServer((_, res) => {
    res.writeHead(200, { 'content-length': size })
    const chunk = Buffer.alloc(256 * 1024, 'x')
    const more = () => {
      while (sent < size) {
        sent += chunk.length
        if (!res.write(chunk)) return
      }
      res.end()
    }
    res.on('drain', more)
    more()
  })
  const { port } = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const client = rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  client.socket.pause()
  // Everything between the two ends is full when the upstream has stopped taking more.
  for (let before = -1; before !== sent || sent === 0; await setTimeout(50)) before = sent
  assert.ok(sent < size / 2, `${sent} bytes were taken for a client that reads nothing`)
  client.socket.resume()
  const { text } = await client.closed
  assert.equal(text.length - text.indexOf('\r\n\r\n') - 4, size)
})

test('a large upload crosses whole', async (t) => {
  let received = 0
  const upstream = createServer((req, res) => {
    req.on('data', (chunk) => (received += chunk.length))
    req.on('end', () => res.end('done'))
  })
  const { port } = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const size = 32 * 1024 * 1024
  const client = rawClient(t, port, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`)
  client.socket.write(Buffer.alloc(size))
  await client.until((text) => text.includes('done'))
  assert.equal(received, size)
})

test('every byte of a body crosses unchanged, small and large', async (t) => {
  const bytes = Buffer.from(Array.from({ length: 40_000 }, (_, n) => n % 256))
  const upstream = createServer((req, res) => {
    const body = bytes.subarray(0, Number(req.url!.slice(1)))
    res.writeHead(200, { 'content-length': body.length, 'content-encoding': 'gzip' }).end(body)
  })
  const { port } = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  for (const size of [256, 40_000]) {
    const client = rawClient(t, port, `GET /${size} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    const { text } = await client.closed
    assert.ok(Buffer.from(text.slice(text.indexOf('\r\n\r\n') + 4), 'latin1').equals(bytes.subarray(0, size)))
  }
})

test('an upstream is known by the configured authority and name, and knows us by our certificate', async (t) => {
  const { ca, server, client } = certificates
  const upstream = createTlsServer({ ...server, ca, requestCert: true }, (_, res) => res.end('hello'))
  const origin = `https://localhost:${await open(t, upstream)}`
  const trusted = { ca, servername: 'orders.internal' }
  const ask = async (tls: RouteConfig['tls']) => {
    const proxy = await proxyTo(t, { upstream: origin, tls })
    return (await rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n').closed)
      .text
  }
  assert.match(await ask({ ...trusted, cert: client.cert, key: new Secret(client.key) }), /hello/)
  assert.match(await ask(trusted), /upstream_unreachable$/)
  assert.match(await ask({ ca, cert: client.cert, key: new Secret(client.key) }), /upstream_unreachable$/)
  assert.match(await ask({ servername: 'orders.internal' }), /upstream_unreachable$/)
})

test('closing waits for the requests in flight', async (t) => {
  let release: (() => void) | undefined
  const upstream = createServer((_, res) => (release = () => res.end('late')))
  const proxy = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await once(upstream, 'request')
  const closed = proxy.upstreams.close()
  release!()
  await client.until((text) => text.includes('late'))
  await closed
})
