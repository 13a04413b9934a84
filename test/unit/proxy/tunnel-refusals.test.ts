import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWholeHead, rawClient, rawUpstream } from './sockets.ts'

import { ACCEPT, handshake, SWITCHED, tunnelTo } from './tunnel-kit.ts'

const REFUSED: [what: string, code: string, bytes: string][] = [
  ['no session', 'session_required', handshake({ Cookie: '' })],
  ['no Origin', 'origin_forbidden', handshake({ Origin: '' })],
  ['a foreign Origin', 'origin_forbidden', handshake({ Origin: 'http://app.test.evil.example' })],
  ['the Origin null', 'origin_forbidden', handshake({ Origin: 'null' })],
  ['an Origin of another scheme', 'origin_forbidden', handshake({ Origin: 'https://app.test' })],
  ['a route without WebSockets', 'bad_request', handshake({}, 'GET /api HTTP/1.1')],
  ['no route', 'route_not_found', handshake({}, 'GET /other HTTP/1.1')],
  ['a path of two meanings', 'path_rejected', handshake({}, 'GET /ws/../api HTTP/1.1')],
  ['another protocol', 'bad_request', handshake({ Upgrade: 'h2c' })],
  ['two protocols', 'bad_request', handshake({ Upgrade: 'websocket, h2c' })],
  ['another version', 'bad_request', handshake({ 'Sec-WebSocket-Version': '8' })],
  ['no key', 'bad_request', handshake({ 'Sec-WebSocket-Key': '' })],
  ['a short key', 'bad_request', handshake({ 'Sec-WebSocket-Key': 'abc' })],
  ['another method', 'bad_request', handshake({}, 'POST /ws HTTP/1.1')],
  ['a body', 'bad_request', handshake({ 'Content-Length': '5' })],
]
for (const [what, code, bytes] of REFUSED) {
  test(`a handshake with ${what} is refused with ${code} and nothing is dialled`, async (t) => {
    const upstream = await rawUpstream(t, () => {})
    const { port, statuses } = await tunnelTo(t, upstream.origin)
    // A second request after the refusal must not be served on this connection.
    const client = rawClient(t, port, `${bytes}GET /ws HTTP/1.1\r\nHost: a\r\n\r\n`)
    const { text } = await client.closed
    assert.match(
      text,
      new RegExp(`^HTTP/1\\.1 400 Bad Request\\r\\n[\\s\\S]*connection: close\\r\\n[\\s\\S]*${code}$`),
    )
    assert.equal(text.split('HTTP/1.1').length, 2)
    assert.equal(upstream.received.length, 0)
    assert.deepEqual(statuses, [400])
  })
}

test("the upstream's refusal is passed on by the rules for responses, and the connection ends", async (t) => {
  const answer =
    'HTTP/1.1 403 Forbidden\r\nSet-Cookie: cloakroom=evil\r\nX-Why: no\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n'
  const upstream = await rawUpstream(t, (socket) => socket.write(answer))
  const { port, statuses } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, `${handshake()}GET /api HTTP/1.1\r\nHost: a\r\n\r\n`)
  const { text } = await client.closed
  assert.match(text, /^HTTP\/1\.1 403 Forbidden\r\nX-Why: no\r\n[\s\S]*\r\n\r\nnope$/)
  assert.doesNotMatch(text, /set-cookie|chunked/i)
  assert.deepEqual(statuses, [403])
  assert.equal(upstream.received.length, 1)
})

test('a refusal whose body takes longer than the answer may is passed on whole', async (t) => {
  const upstream = await rawUpstream(t, (socket) => {
    socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno')
    setTimeout(() => socket.write('pe'), 150)
  })
  const timeout = { connectMs: 100, responseMs: 100, idleMs: 1_000 }
  const { port } = await tunnelTo(t, upstream.origin, { route: { timeout } })
  assert.match((await rawClient(t, port, handshake()).closed).text, /\r\n\r\nnope$/)
})

test("the upstream's 101 keeps its fields but sets none of our cookies", async (t) => {
  const upstream = await rawUpstream(t, (socket) => {
    socket.write(
      `${SWITCHED}Set-Cookie: cloakroom=evil\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nSec-WebSocket-Protocol: p\r\n\r\n`,
    )
  })
  const { port } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, handshake())
  const head = await client.until(isWholeHead)
  assert.match(head, /^HTTP\/1\.1 101 Switching Protocols\r\n/)
  assert.match(head, /\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n/i)
  assert.match(head, /\r\nsec-websocket-protocol: p\r\n/i)
  assert.match(head, new RegExp(`sec-websocket-accept: ${ACCEPT.replace(/[+]/g, '\\+')}\r\n`, 'i'))
  assert.doesNotMatch(head, /evil/)
})

test('a 101 for another handshake opens no tunnel', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(`${SWITCHED.replace(ACCEPT, 'x')}\r\nsecret`),
  )
  const { port, tunnel } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, handshake())
  const { text } = await client.closed
  assert.doesNotMatch(text, /101|secret/)
  assert.match(text, /upstream_unreachable$/)
  await upstream.closed[0]
  assert.equal(tunnel.count(), 0)
})

test('an upstream that is not there, or says nothing, is answered for', async (t) => {
  const silent = await rawUpstream(t, () => {})
  const timeout = { connectMs: 1_000, responseMs: 50, idleMs: 1_000 }
  const late = await tunnelTo(t, silent.origin, { route: { timeout } })
  assert.match((await rawClient(t, late.port, handshake()).closed).text, /upstream_timeout$/)
  await silent.closed[0]
  const gone = await tunnelTo(t, 'http://127.0.0.1:1')
  assert.match((await rawClient(t, gone.port, handshake()).closed).text, /upstream_unreachable$/)
})
