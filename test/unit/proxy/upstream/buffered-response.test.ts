import assert from 'node:assert/strict'
import { test } from 'node:test'
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
import { ends, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const HEAD_401 = `HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: ${INVALID_TOKEN}\r\n`
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

test('the client sees nothing until it is known what becomes of the refusal', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(t, proxy.port, request('GET /'))
  await asked
  await settle()
  assert.equal(client.text(), '')
  give(RELAY)
  await client.until(ends('refused'))
})

for (const [what, tail] of [
  ['whole', 'Content-Length: 2\r\n\r\nno'],
  ['unfinished', 'Content-Length: 9\r\n\r\nno'],
]) {
  test(`a client that leaves while a ${what} refusal is buffered ends everything`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(HEAD_401 + tail))
    const { proxy, asked, give } = await proxyThatWaits(t, upstream)
    const settled = proxy.settled()
    const client = rawClient(t, proxy.port, request('POST /', 'abc'))
    await asked
    client.socket.destroy()
    assert.equal(await settled, 'sent')
    if (what === 'unfinished') await upstream.closed[0]
    give(RESEND)
    await settle()
    assert.equal(upstream.received.join('').split('POST').length, 2)
  })
}

test('a problem for a client that has left is sent to no one', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const { proxy, asked, fail } = await proxyThatWaits(t, upstream)
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, request('GET /'))
  await asked
  client.socket.destroy()
  assert.equal(await settled, 'sent')
  fail(new BffError('session_required', 'gone'))
  await settle()
  assert.deepEqual(proxy.outcomes, ['sent'])
})

test('a client that leaves during the second try ends it', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('at-2')) client.socket.destroy()
    else socket.write(`${HEAD_401}Content-Length: 2\r\n\r\nno`)
  })
  const proxy = await proxyWithToken(t, upstream)
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, request('GET /'))
  assert.equal(await settled, 'sent')
  await upstream.closed.at(-1)
})

test('a refusal that ends with its connection is relayed whole', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.end(`${HEAD_401}\r\nrefused`))
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(
    t,
    proxy.port,
    request('GET /').replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'),
  )
  await asked
  await upstream.closed[0]
  give(RELAY)
  assert.match((await client.closed).text, /^HTTP\/1\.1 401 [\s\S]*refused\r\n0\r\n\r\n$/)
})

test('a refusal that breaks off while it is buffered is no usable answer', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.end(`${HEAD_401}Content-Length: 9\r\n\r\nno`))
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(t, proxy.port, request('GET /'))
  await asked
  await upstream.closed[0]
  await settle()
  give(RELAY)
  await client.until(ends('upstream_unreachable'))
  assert.equal(upstream.received.length, 1)
})

test('a refusal that breaks off on a connection used before is not asked for again', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('/2')) {
      socket.write(`${HEAD_401}Content-Length: 9\r\n\r\nno`)
      refused.push(socket)
    } else socket.write(OK)
  })
  const refused: { resetAndDestroy(): unknown }[] = []
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(t, proxy.port, request('GET /1'))
  await client.until(ends('ok'))
  client.socket.write(request('GET /2'))
  await asked
  refused[0]!.resetAndDestroy()
  await upstream.closed[0]
  await settle()
  give(RELAY)
  await client.until(ends('upstream_unreachable'))
  assert.equal(upstream.received.length, 1)
})

test("a refusal that breaks off after it was relayed cuts the client's connection", async (t) => {
  const sockets: { resetAndDestroy(): unknown }[] = []
  const upstream = await rawUpstream(t, (socket) => {
    sockets.push(socket)
    socket.write(`${HEAD_401}Content-Length: 9\r\n\r\nno`)
  })
  const proxy = await proxyWithToken(t, upstream, RELAY)
  const client = rawClient(t, proxy.port, request('GET /'))
  await client.until(ends('no'))
  sockets[0]!.resetAndDestroy()
  assert.match((await client.closed).text, /no$/)
})

test('a refusal that breaks off is no obstacle to the second try', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('at-2')) socket.write(OK)
    else socket.end(`${HEAD_401}Content-Length: 9\r\n\r\nno`)
  })
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(t, proxy.port, request('POST /', 'abc'))
  await asked
  await upstream.closed[0]
  give(RESEND)
  assert.match(await client.until(ends('ok')), /^HTTP\/1\.1 200 /)
})

test('a small upload that the upstream did not read before it refused is sent again', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('at-2')) received.endsWith('abc') && socket.write(OK)
    else socket.end(`${HEAD_401}Connection: close\r\nContent-Length: 2\r\n\r\nno`)
  })
  const proxy = await proxyWithToken(t, upstream)
  const client = rawClient(t, proxy.port, request('POST /', 'abc'))
  assert.match(await client.until(ends('ok')), /^HTTP\/1\.1 200 /)
  assert.match(upstream.received[1]!, /\r\ncontent-length: 3\r\n\r\nabc$/)
})

test('an upstream that dies in the second try is unreachable', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('at-2')) socket.resetAndDestroy()
    else socket.write(`${HEAD_401}Content-Length: 2\r\n\r\nno`)
  })
  const proxy = await proxyWithToken(t, upstream)
  const client = rawClient(t, proxy.port, request('POST /', 'abc'))
  await client.until(ends('upstream_unreachable'))
  client.socket.write(request('POST /', 'abc'))
  await client.until((text) => text.split('upstream_unreachable').length === 3)
})

test('a body that stands still while it is buffered is a timeout', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${HEAD_401}Content-Length: 9\r\n\r\nno`))
  const timeout = { connectMs: 1_000, responseMs: 1_000, idleMs: 50 }
  const { proxy, asked, give } = await proxyThatWaits(t, upstream, { timeout })
  const client = rawClient(t, proxy.port, request('GET /'))
  await asked
  await upstream.closed[0]
  await settle()
  give(RELAY)
  await client.until(ends('upstream_timeout'))
})

test('while the pool closes a refusal stands, as another request cannot be begun', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const { proxy, asked, give } = await proxyThatWaits(t, upstream)
  const client = rawClient(t, proxy.port, request('GET /'))
  await asked
  await settle()
  const closed = proxy.upstreams.close()
  give(RESEND)
  await client.until(ends('refused'))
  await closed
  assert.equal(upstream.seen.length, 1)
})
