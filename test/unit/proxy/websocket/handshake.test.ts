import assert from 'node:assert/strict'
import type { LookupFunction } from 'node:net'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { isWholeHead, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

import { ACCEPT, echoUpstream, handshake, KEY, SWITCHED, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

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
  ['a repeated Upgrade', 'bad_request', handshake({ upgrade: 'h2c' })],
  ['version 1.0 of HTTP', 'bad_request', handshake({}, 'GET /ws HTTP/1.0')],
  ['no version', 'bad_request', handshake({ 'Sec-WebSocket-Version': '' })],
  ['two versions', 'bad_request', handshake({ 'Sec-WebSocket-Version': '13, 8' })],
  ['another version', 'bad_request', handshake({ 'Sec-WebSocket-Version': '8' })],
  ['no key', 'bad_request', handshake({ 'Sec-WebSocket-Key': '' })],
  ['a short key', 'bad_request', handshake({ 'Sec-WebSocket-Key': 'abc' })],
  ['two keys', 'bad_request', handshake({ 'sec-websocket-key': KEY })],
  ['a key that is no base64', 'bad_request', handshake({ 'Sec-WebSocket-Key': `${KEY.slice(0, -4)}!!==` })],
  ['another method', 'bad_request', handshake({}, 'POST /ws HTTP/1.1')],
  ['a body', 'bad_request', handshake({ 'Content-Length': '5' })],
  ['a chunked body', 'bad_request', handshake({ 'Transfer-Encoding': 'chunked' })],
  ...['Sec-WebSocket-Key', 'sec-websocket-version', 'Sec_WebSocket.Extensions'].map(
    (name): [string, string, string] => [
      `${name} named by Connection`,
      'bad_request',
      handshake({ Connection: `Upgrade, ${name}` }),
    ],
  ),
  ['a field named by a second Connection', 'bad_request', handshake({ connection: 'Sec-WebSocket-Key' })],
  ['a token in the query', 'bad_request', handshake({}, 'GET /ws?x=1&access_token=secret HTTP/1.1')],
  ['a token in the query, encoded', 'bad_request', handshake({}, 'GET /ws?%61ccess_Token=secret HTTP/1.1')],
  ...[
    'bearer, secret',
    'chat.v1, Bearer',
    'access_token, secret',
    'chat, eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.x',
    'base64url.bearer.authorization.k8s.io.c2VjcmV0',
    'bearer.secret',
  ].map((offered): [string, string, string] => [
    `the subprotocols ${offered}`,
    'bad_request',
    handshake({ 'Sec-WebSocket-Protocol': offered }),
  ]),
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

test('what only looks like a field of the handshake does not cross', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin)
  const twins = {
    Sec_WebSocket_Key: 'evil',
    'Sec-WebSocket_Protocol': 'evil',
    'sec.websocket.extensions': 'evil',
    Up_grade: 'evil',
    'Con-nection': 'evil',
    'Sec-WebSocket-Protocol': 'chat',
    'X-Sec-WebSocket-Key': 'other',
  }
  await rawClient(t, port, handshake(twins)).until(isWholeHead)
  assert.doesNotMatch(upstream.received[0]!, /evil/)
  assert.match(upstream.received[0]!, /\r\nsec-websocket-protocol: chat\r\n/i)
  assert.match(upstream.received[0]!, /\r\nx-sec-websocket-key: other\r\n/i)
})

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
    setTimeout(() => socket.write('pe'), 1_200)
  })
  const timeout = { connectMs: 1_000, responseMs: 1_000, idleMs: 10_000 }
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
  const client = rawClient(t, port, handshake({ 'Sec-WebSocket-Protocol': 'o, p' }))
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
  while (tunnel.count() > 0) await setImmediate()
})

test('on a route without a token of ours, what looks like one is the business of its two ends', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin, { route: { resource: undefined } })
  const bytes = handshake({ 'Sec-WebSocket-Protocol': 'bearer, x' }, 'GET /ws?access_token=y HTTP/1.1')
  assert.match(await rawClient(t, port, bytes).until(isWholeHead), /^HTTP\/1\.1 101 /)
  assert.match(upstream.received[0]!, /access_token=y[\s\S]*bearer, x/)
})

test('a subprotocol that only begins like the name of a token is no token', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin)
  const bytes = handshake({ 'Sec-WebSocket-Protocol': 'authorization-service.v1, bearers, eyes.v1' })
  assert.match(await rawClient(t, port, bytes).until(isWholeHead), /^HTTP\/1\.1 101 /)
})

const OFFER = { 'Sec-WebSocket-Protocol': 'a, b', 'Sec-WebSocket-Extensions': 'permessage-deflate; x=1, foo' }
const ANSWERS: [what: string, outcome: string, fields: string][] = [
  ['a protocol that was offered', '101', 'Sec-WebSocket-Protocol: b\r\n'],
  ['an extension that was offered', '101', 'Sec-WebSocket-Extensions: Permessage-Deflate; y\r\n'],
  ['another protocol', '400', 'Sec-WebSocket-Protocol: c\r\n'],
  ['two protocols', '400', 'Sec-WebSocket-Protocol: a, b\r\n'],
  ['another extension', '400', 'Sec-WebSocket-Extensions: foo, bar\r\n'],
]
for (const [what, outcome, fields] of ANSWERS)
  test(`an upstream that chooses ${what} is answered with ${outcome}`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}${fields}\r\n`))
    const { port } = await tunnelTo(t, upstream.origin)
    const head = await rawClient(t, port, handshake(OFFER)).until(isWholeHead)
    assert.match(head, new RegExp(`^HTTP/1\\.1 ${outcome} `))
    if (outcome === '400') await upstream.closed[0]
  })

const RELAYED = [
  'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\nok',
  'HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok',
]
for (const answer of RELAYED)
  test(`the answer ${answer.slice(9, 12)} is relayed, and a second request on the connection is not served`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.end(answer))
    const { port, tunnel } = await tunnelTo(t, upstream.origin)
    const client = rawClient(t, port, handshake())
    await client.until((text) => text.includes(answer.slice(9, 12)))
    client.socket.write('GET /ws HTTP/1.1\r\nHost: a\r\n\r\n')
    const { text } = await client.closed
    assert.equal(text.split('HTTP/1.1').length, 2)
    assert.match(text, /\r\n\r\nok$/)
    assert.doesNotMatch(text, /upgrade: h2c/i)
    assert.equal(upstream.received.length, 1)
    while (tunnel.count() > 0) await setImmediate()
  })

const MALFORMED: [what: string, answer: string][] = [
  ['a 101 without Upgrade', SWITCHED.replace('Upgrade: websocket\r\n', '')],
  ['a 101 without Connection', SWITCHED.replace('Connection: Upgrade\r\n', '')],
  ['a 101 to another protocol', SWITCHED.replace('websocket', 'h2c')],
  ['a 101 without proof', SWITCHED.replace(/Sec-WebSocket-Accept: .*\r\n/, '')],
  ['a 101 with two proofs', `${SWITCHED}Sec-WebSocket-Accept: x\r\n`],
  ['a 101 with a broken field', `${SWITCHED}b\0d: x\r\n`],
  ['a status of four digits', SWITCHED.replace('101', '1010')],
]
for (const [what, answer] of MALFORMED)
  test(`${what} opens no tunnel`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(`${answer}\r\nsecret`))
    const timeout = { connectMs: 1_000, responseMs: 200, idleMs: 1_000 }
    const { port, tunnel } = await tunnelTo(t, upstream.origin, { route: { timeout } })
    const { text } = await rawClient(t, port, handshake()).closed
    assert.match(text, /upstream_(unreachable|timeout)$/)
    assert.doesNotMatch(text, /101|secret/)
    await upstream.closed[0]
    while (tunnel.count() > 0) await setImmediate()
  })

test('a refusal that stalls is cut at the idle timeout', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno'),
  )
  const timeout = { connectMs: 1_000, responseMs: 1_000, idleMs: 100 }
  const { port } = await tunnelTo(t, upstream.origin, { route: { timeout } })
  assert.match((await rawClient(t, port, handshake()).closed).text, /\r\n\r\nno$/)
  await upstream.closed[0]
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

test('a name that leads to the metadata service of a cloud opens no tunnel', async (t) => {
  const echo = await echoUpstream(t)
  const upstream = `http://orders.test:${new URL(echo.origin).port}`
  for (const [address, expected] of [
    ['127.0.0.1', /^HTTP\/1\.1 101 /],
    ['169.254.169.254', /upstream_unreachable$/],
  ] as const) {
    const lookup: LookupFunction = (_, { all }, callback) =>
      all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)
    const { port } = await tunnelTo(t, upstream, { lookup })
    const client = rawClient(t, port, handshake())
    assert.match(await client.until((text) => expected.test(text)), expected)
  }
})
