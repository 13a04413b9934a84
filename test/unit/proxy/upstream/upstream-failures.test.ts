import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import { test } from 'node:test'
import { ends, open, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

test('a response that was not asked for reaches no client', async (t) => {
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
    'an upgrade that was not asked for',
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
