import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { BffError } from '../../../../src/errors.ts'
import {
  INVALID_TOKEN,
  proxyThatWaits,
  proxyWithToken,
  RELAY,
  RESEND,
  refuse,
  request,
  settle,
  upstreamOf,
} from '../../../kit/upstream/rejected-token-kit.ts'
import { ends, has, open, rawClient } from '../../../kit/upstream/sockets.ts'

/** Refuses the first token with 4 MiB, more than waits anywhere. */
async function longRefusal(t: Parameters<typeof open>[0], framing: 'length' | 'chunked') {
  const size = 4 * 1024 * 1024
  let connections = 0
  const server = createServer((req, res) => {
    if (req.headers.authorization === 'Bearer at-2' || req.url === '/next') {
      res.end('welcome')
      return
    }
    res.writeHead(401, {
      'www-authenticate': INVALID_TOKEN,
      ...(framing === 'length' && { 'content-length': size }),
    })
    res.end(Buffer.alloc(size, 'x'))
  })
  server.on('connection', (socket) => {
    connections++
    socket.on('close', () => connections--)
  })
  const origin = `http://127.0.0.1:${await open(t, server)}`
  return { origin, size, server, openConnections: () => connections }
}

for (const framing of ['length', 'chunked'] as const) {
  test(`a long refusal with ${framing} is given up for another try, and its connection ends`, async (t) => {
    const upstream = await longRefusal(t, framing)
    const { proxy, asked, give } = await proxyThatWaits(t, upstream)
    const refused = once(upstream.server, 'connection')
    const client = rawClient(t, proxy.port, request('POST /', 'abc'))
    const [socket] = await refused
    await asked
    await settle()
    const ended = new Promise((resolve) => socket.on('close', resolve))
    give(RESEND)
    assert.match(await client.until(has('welcome')), /^HTTP\/1\.1 200 OK/)
    await ended
    for (let n = 3; n < 20; n++) {
      client.socket.write(request(n % 2 ? 'GET /' : 'GET /next'))
      await client.until((text) => text.split('welcome').length === n)
    }
    assert.ok(upstream.openConnections() <= 3, `${upstream.openConnections()} connections are open`)
  })

  test(`a long refusal with ${framing} is relayed whole, also to a slow reader`, async (t) => {
    const upstream = await longRefusal(t, framing)
    const { proxy, asked, give } = await proxyThatWaits(t, upstream)
    const settled = proxy.settled()
    const client = rawClient(
      t,
      proxy.port,
      request('GET /').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'),
    )
    await asked
    await settle()
    client.socket.pause()
    give(RELAY)
    await settle()
    client.socket.resume()
    const { text } = await client.closed
    const body = text.slice(text.indexOf('\r\n\r\n'))
    assert.equal(body.split('x').length - 1, upstream.size)
    assert.equal(await settled, 'sent')
  })

  test(`a long refusal with ${framing} is given up for a problem`, async (t) => {
    const upstream = await longRefusal(t, framing)
    const proxy = await proxyWithToken(t, upstream, async () => {
      throw new BffError('session_required', 'gone')
    })
    const refused = once(upstream.server, 'connection')
    const client = rawClient(t, proxy.port, request('GET /'))
    const [socket] = await refused
    const ended = new Promise((resolve) => socket.on('close', resolve))
    await client.until(ends('session_required'))
    await ended
    client.socket.write(request('GET /next'))
    await client.until(has('welcome'))
  })
}

for (const size of [65_535, 65_536, 65_537, 200_000]) {
  for (const method of ['GET', 'POST']) {
    test(`a refusal of ${size} bytes is relayed whole to ${method}`, async (t) => {
      const upstream = await upstreamOf(t, (_, res) => refuse(res, INVALID_TOKEN, 'x'.repeat(size)))
      const proxy = await proxyWithToken(t, upstream, () => settle().then(() => RELAY))
      const client = rawClient(t, proxy.port, '')
      for (let n = 1; n < 4; n++) {
        const settled = proxy.settled()
        client.socket.write(request(`${method} /`, method === 'POST' ? 'abc' : undefined))
        await client.until((text) => text.split('x'.repeat(size)).length === n + 1)
        assert.equal(await settled, 'sent')
      }
      assert.equal(upstream.connections, 1)
    })
  }
}

test('only a little of a refusal is buffered', async (t) => {
  const size = 64 * 1024 * 1024
  let sent = 0
  const upstream = await upstreamOf(t, (_, res) => {
    res.writeHead(401, { 'www-authenticate': INVALID_TOKEN, 'content-length': size })
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
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(
    t,
    proxy.port,
    request('GET /').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'),
  )
  await asked
  // What lies between the two ends is full when the upstream has stopped sending.
  for (let before = -1; before !== sent; await setTimeout(50)) before = sent
  assert.ok(sent < size / 2, `${sent} bytes were taken of a response that was not asked for yet`)
  give(RELAY)
  const { text } = await client.closed
  assert.equal(text.length - text.indexOf('\r\n\r\n') - 4, size)
})
