import assert from 'node:assert/strict'
import { createServer as createTcpServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { ends, open, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

/** Requests seen by an upstream: method and target of each. */
function requestLines(received: string[]): string[] {
  return received.flatMap((text) =>
    [...text.matchAll(/^([A-Z]+ \S+) HTTP\/1\.1\r$/gm)].map(([, line]) => line!),
  )
}

/** Counts each target it was sent, and closes what idles in the moment a request may be on its way. */
async function impatientUpstream(t: TestContext, close: (socket: Socket) => void) {
  const seen = new Map<string, number>()
  const sockets = new Set<Socket>()
  const server = createTcpServer({ noDelay: true }, (socket) => {
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk) => {
      sockets.delete(socket)
      const [, target = ''] = /^\w+ (\S+) /.exec(chunk.toString('latin1')) ?? []
      seen.set(target, (seen.get(target) ?? 0) + 1)
      socket.write(OK, () => sockets.add(socket))
    })
  })
  const origin = `http://127.0.0.1:${await open(t, server)}`
  function closeIdle(): void {
    for (const socket of sockets) close(socket)
    sockets.clear()
  }
  return { origin, seen, closeIdle }
}

for (const [what, close] of [
  ['ends', (socket: Socket) => void socket.end()],
  ['resets', (socket: Socket) => void socket.resetAndDestroy()],
] as const) {
  test(`an upstream that ${what} idle connections in the moment of a request loses no GET and gets no POST twice`, async (t) => {
    const upstream = await impatientUpstream(t, close)
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const outcomes: Record<string, Record<string, number>> = { GET: {}, POST: {} }
    for (let i = 0; i < 1_000; i++) {
      const method = i % 2 ? 'POST' : 'GET'
      const length = method === 'POST' ? 'Content-Length: 1\r\n' : ''
      const body = method === 'POST' ? 'x' : ''
      const bytes = `${method} /${i} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${length}\r\n${body}`
      const client = rawClient(t, proxy.port, bytes)
      // Somewhere between the client's first byte and the upstream's last.
      for (let turns = i % 7; turns > 0; turns--) await new Promise(setImmediate)
      upstream.closeIdle()
      const { text } = await client.closed
      const status = text.slice(9, 12)
      outcomes[method]![status] = (outcomes[method]![status] ?? 0) + 1
      client.socket.destroy()
    }
    assert.deepEqual(outcomes.GET, { 200: 500 })
    for (let i = 1; i < 1_000; i += 2) assert.ok((upstream.seen.get(`/${i}`) ?? 0) <= 1, `POST /${i}`)
    const { 200: answered = 0, 500: refused = 0 } = outcomes.POST!
    assert.equal(answered + refused, 500)
    t.diagnostic(`POST: ${JSON.stringify(outcomes.POST)}`)
  })
}

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

/** Connections that answered `/first`, and are cut when anything more arrives. */
async function deadConnections(t: TestContext, count: number) {
  const waiting: Socket[] = []
  const upstream = await rawUpstream(t, (socket, received, connection) => {
    if (connection >= count) socket.write(OK)
    else if (received.split('\r\n\r\n').length > 2) socket.resetAndDestroy()
    // Answered together, so that each request needs a connection of its own.
    else if (waiting.push(socket) === count) for (const each of waiting) each.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const first = Array.from({ length: count }, () =>
    rawClient(t, proxy.port, 'GET /first HTTP/1.1\r\nHost: a\r\n\r\n').until(ends('ok')),
  )
  await Promise.all(first)
  return { upstream, proxy }
}

test('the second try goes to a new connection: others may be as dead as the first', async (t) => {
  const { upstream, proxy } = await deadConnections(t, 3)
  const client = rawClient(t, proxy.port, 'GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('ok'))
  assert.deepEqual(requestLines(upstream.received).slice(-2), ['GET /first', 'GET /2'])
  assert.equal(upstream.received.length, 4)
  assert.equal(requestLines(upstream.received).filter((line) => line === 'GET /2').length, 2)
})

test('the connection of a second try ends with it, also when the upstreams close meanwhile', async (t) => {
  const seen = Promise.withResolvers<Socket>()
  const upstream = await rawUpstream(t, (socket, received, connection) => {
    if (connection === 1) seen.resolve(socket)
    else if (received.includes('/2')) socket.resetAndDestroy()
    else socket.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('ok'))
  client.socket.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
  const socket = await seen.promise
  let isClosed = false
  const closed = proxy.upstreams.close().then(() => {
    isClosed = true
  })
  await new Promise(setImmediate)
  assert.equal(isClosed, false)
  socket.write(OK)
  await client.until((text) => text.split('HTTP/1.1 200').length === 3 && text.endsWith('ok'))
  await Promise.all([closed, upstream.closed[1]])
})

test('a second try that hangs ends when the upstreams are destroyed', async (t) => {
  const seen = Promise.withResolvers<Socket>()
  const upstream = await rawUpstream(t, (socket, received, connection) => {
    if (connection === 1) seen.resolve(socket)
    else if (received.includes('/2')) socket.resetAndDestroy()
    else socket.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('ok'))
  client.socket.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
  await seen.promise
  await proxy.upstreams.destroy()
  await client.until(ends('upstream_unreachable'))
  await upstream.closed[1]
})

for (const [what, answer] of [
  ['half a head', 'HTTP/1.1 200 OK\r\nContent-Le'],
  ['an interim answer', 'HTTP/1.1 103 Early Hints\r\n\r\n'],
  ['an upgrade', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'],
] as const) {
  test(`a request that was answered with ${what} on a used connection is not sent again`, async (t) => {
    const upstream = await rawUpstream(t, (socket, received) => {
      if (received.includes('/2')) socket.end(answer)
      else socket.write(OK)
    })
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const client = rawClient(t, proxy.port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until(ends('ok'))
    client.socket.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until(ends('upstream_unreachable'))
    assert.deepEqual(requestLines(upstream.received), ['GET /1', 'GET /2'])
  })
}

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

test('the second try with another token survives an idle connection that died, too', async (t) => {
  const refusal =
    'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer error="invalid_token"\r\nContent-Length: 0\r\n\r\n'
  const upstream = await rawUpstream(t, (socket, received, connection) => {
    if (!received.includes('at-2')) socket.write(refusal)
    else if (connection === 0) socket.resetAndDestroy()
    else socket.write(OK)
  })
  const proxy = await proxyTo(
    t,
    { upstream: upstream.origin, resource: 'orders', connections: 1 },
    {
      accessToken: { value: 'at-1', expiresAt: 0, renewAt: 0 },
      onRejectedToken: async () => ({ kind: 'resend', token: { value: 'at-2', expiresAt: 0, renewAt: 0 } }),
    },
  )
  await rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').until(ends('ok'))
  assert.deepEqual(requestLines(upstream.received), ['GET /', 'GET /', 'GET /'])
})

test('a new connection that dies at once is not tried again', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.resetAndDestroy())
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await client.until(ends('upstream_unreachable'))
  assert.equal(upstream.received.length, 1)
})
