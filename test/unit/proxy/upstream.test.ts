import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createServer as createTcpServer } from 'node:net'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import type { RouteConfig } from '../../../src/config/config.ts'
import { Secret } from '../../../src/config/secret.ts'
import { sessionHash } from '../../../src/session/bff-session.ts'
import { certificates } from './certificates.ts'
import { isWholeHead, open, proxyTo, rawClient, rawUpstream, SESSION_HASH } from './sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const ends = (tail: string) => (text: string) => text.endsWith(tail)

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

test('a response nobody asked for is given to nobody', async (t) => {
  const poison = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
  const upstream = await rawUpstream(t, (socket, _, connection) =>
    socket.write(connection === 0 ? OK + poison : OK),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  await rawClient(t, proxy.port, 'GET /a HTTP/1.1\r\nHost: a\r\n\r\n').until(ends('ok'))
  const other = rawClient(t, proxy.port, 'GET /b HTTP/1.1\r\nHost: a\r\n\r\n')
  await other.until(ends('ok'))
  assert.doesNotMatch(other.text(), /evil/)
})

test('a flood of interim responses ends the request', async (t) => {
  const upstream = await rawUpstream(t, (socket) => {
    const flood = () => socket.write('HTTP/1.1 102 Processing\r\n\r\n', () => socket.destroyed || flood())
    flood()
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('upstream_unreachable'))
  await upstream.closed[0]
})

test('a client that leaves ends the upstream request', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write('HTTP/1.1 200 OK\r\n\r\nsome'))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until((text) => text.includes('some'))
  client.socket.destroy()
  await upstream.closed[0]
  assert.equal(await settled, 'sent')
})

test('a client that leaves before the answer ends the upstream request', async (t) => {
  const upstream = await rawUpstream(t, () => client.socket.destroy())
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  assert.equal(await settled, 'sent')
  await upstream.closed[0]
})

for (const [framing, head] of [
  ['chunked', 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'],
  ['a length', 'Content-Length: 100\r\n\r\nhello'],
]) {
  test(`an upstream that dies in a body with ${framing} cuts the client's connection`, async (t) => {
    const upstream = await rawUpstream(t, (socket) =>
      socket.write(`HTTP/1.1 200 OK\r\n${head}`, () => socket.resetAndDestroy()),
    )
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const settled = proxy.settled()
    const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    const { text } = await client.closed
    assert.doesNotMatch(text, /0\r\n\r\n$/)
    assert.equal(await settled, 'upstream_unreachable')
  })
}

const BROKEN: [what: string, answer: string][] = [
  [
    'length and chunked together',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok'],
  ['a status out of range', 'HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok'],
  [
    'an upgrade nobody asked for',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
  ],
  ['a bare CR in a header', 'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok'],
  ['no HTTP at all', 'SSH-2.0-OpenSSH_9.0\r\n'],
  ['an early end', ''],
]
for (const [what, answer] of BROKEN) {
  test(`an upstream that answers with ${what} is unreachable, and its connection is not used again`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.end(answer))
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const client = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
    await client.until(ends('upstream_unreachable'))
    await upstream.closed[0]
  })
}

test('an upstream that is not there is unreachable', async (t) => {
  const gone = createTcpServer()
  const port = await open(t, gone)
  gone.close()
  await once(gone, 'close')
  const proxy = await proxyTo(t, { upstream: `http://127.0.0.1:${port}` })
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('upstream_unreachable'))
})

test('an upstream without an answer in time is a timeout', async (t) => {
  const upstream = await rawUpstream(t, () => {})
  const timeout = { connectMs: 1_000, responseMs: 50, idleMs: 1_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, timeout })
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('upstream_timeout'))
  await upstream.closed[0]
})

test('a body that stands still for the idle time is cut', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab'),
  )
  const timeout = { connectMs: 1_000, responseMs: 1_000, idleMs: 50 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, timeout })
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  const { text } = await client.closed
  assert.match(text, /ab$/)
  assert.equal(await settled, 'upstream_timeout')
})

test('an upload that stands still for the idle time is cut', async (t) => {
  const upstream = await rawUpstream(t, () => {})
  const timeout = { connectMs: 1_000, responseMs: 5_000, idleMs: 50 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, timeout })
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab')
  await client.closed
  assert.equal(await settled, 'sent')
})

test('a body with a declared length over the limit never reaches the upstream', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin, maxBody: 4 })
  const client = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n')
  const { text } = await client.closed
  assert.match(text, /\r\nConnection: close\r\n[\s\S]*body_too_large$/)
  assert.equal(upstream.received.length, 0)
})

test('a chunked body over the limit is stopped on its way', async (t) => {
  const upstream = await rawUpstream(t, () => {})
  const proxy = await proxyTo(t, { upstream: upstream.origin, maxBody: 4 })
  const client = rawClient(
    t,
    proxy.port,
    'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
  )
  await client.until(() => true)
  client.socket.write('3\r\ndef\r\n')
  const { text } = await client.closed
  assert.match(text, /body_too_large$/)
  await upstream.closed[0]
  assert.doesNotMatch(upstream.received[0] ?? '', /def/)
})

test('a body of exactly the limit crosses', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => received.endsWith('abcd') && socket.write(OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin, maxBody: 4 })
  const client = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd')
  await client.until(ends('ok'))
})

for (const coding of ['gzip, chunked', 'identity\r\nTransfer-Encoding: chunked']) {
  test(`the transfer coding ${JSON.stringify(coding)} never reaches the upstream`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(OK))
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const client = rawClient(
      t,
      proxy.port,
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`,
    )
    await client.until((text) => text.endsWith('bad_request') || text.startsWith('HTTP/1.1 400'))
    assert.equal(upstream.received.length, 0)
  })
}

test('an answer before the end of the upload reaches the client, and the connection ends with it', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write('HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno'),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(
    t,
    proxy.port,
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n',
  )
  const { text } = await client.closed
  assert.match(text, /^HTTP\/1\.1 401 [\s\S]*\r\nConnection: close\r\n[\s\S]*no$/)
  await upstream.closed[0]
  assert.equal(proxy.outcomes.length, 1)
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

test('a repeatable request survives an idle connection that died, once', async (t) => {
  const upstream = await rawUpstream(t, (socket, received, connection) => {
    const count = received.split('\r\n\r\n').length - 1
    if (connection === 0 && count === 2) socket.resetAndDestroy()
    else socket.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('ok'))
  client.socket.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until((text) => text.split('HTTP/1.1 200').length === 3 && text.endsWith('ok'))
  assert.deepEqual(requestLines(upstream.received), ['GET /1', 'GET /2', 'GET /2'])
})

test('a POST is never sent twice', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('POST')) socket.resetAndDestroy()
    else socket.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('ok'))
  client.socket.write('POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
  await client.until(ends('upstream_unreachable'))
  assert.deepEqual(requestLines(upstream.received), ['GET /1', 'POST /2'])
})

test('a new connection that dies at once is not tried again', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.resetAndDestroy())
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('upstream_unreachable'))
  assert.equal(upstream.received.length, 1)
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
