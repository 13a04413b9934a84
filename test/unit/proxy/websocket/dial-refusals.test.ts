import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { isWholeHead, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'
import { handshake, type Listening, SESSION, SWITCHED, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

const CHUNKS = 'HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'
const LENGTH = 'HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhalf'
const UNTIL_END = 'HTTP/1.1 403 Forbidden\r\n\r\nhalf'

type BreakOff = (upstream: Socket, listening: Listening) => void
const BREAKS: [what: string, answer: string, breakOff: BreakOff][] = [
  ['a reset before the end of the connection', UNTIL_END, (upstream) => upstream.resetAndDestroy()],
  ['a reset among chunks', CHUNKS, (upstream) => upstream.resetAndDestroy()],
  ['a reset before its length', LENGTH, (upstream) => upstream.resetAndDestroy()],
  ['an end among chunks', CHUNKS, (upstream) => upstream.end()],
  ['an end before its length', LENGTH, (upstream) => upstream.end()],
  ['a broken chunk', CHUNKS, (upstream) => upstream.write('zz\r\n')],
  ['the end of the session', UNTIL_END, (_, { tunnel }) => tunnel.endSession(SESSION.hash)],
  ['silence', CHUNKS, () => {}],
]
for (const [what, answer, breakOff] of BREAKS) {
  test(`a refusal that ${what} breaks off never looks whole`, async (t) => {
    let upstreamSocket: Socket | undefined
    const upstream = await rawUpstream(t, (socket) => {
      upstreamSocket = socket
      socket.write(answer)
    })
    const timeout = { connectMs: 1_000, responseMs: 1_000, idleMs: what === 'silence' ? 100 : 10_000 }
    const listening = await tunnelTo(t, upstream.origin, { route: { timeout } })
    const client = rawClient(t, listening.port, handshake())
    await client.until((text) => text.includes('half'))
    breakOff(upstreamSocket!, listening)
    const { text, clean } = await client.closed
    assert.match(text, /^HTTP\/1\.1 403 [\s\S]*\r\n\r\nhalf$/)
    assert.equal(clean, false)
    await upstream.closed[0]
    while (listening.tunnel.count() > 0) await new Promise(setImmediate)
  })
}

test('a refusal that is on its way when the replica is told to end arrives whole', async (t) => {
  let upstreamSocket: Socket | undefined
  const upstream = await rawUpstream(t, (socket) => {
    upstreamSocket = socket
    socket.write(LENGTH)
  })
  const { port, tunnel } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, handshake())
  await client.until((text) => text.includes('half'))
  tunnel.closeAll()
  upstreamSocket!.write('other')
  const { text, clean } = await client.closed
  assert.match(text, /\r\n\r\nhalfother$/)
  assert.equal(clean, true)
})

for (const [what, answer] of [
  ['the end of the connection', UNTIL_END],
  ['its length', LENGTH.replace('9', '4')],
  ['its last chunk', `${CHUNKS}0\r\n\r\n`],
] as const) {
  test(`a refusal that ends with ${what} ends cleanly`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.end(answer))
    const { port } = await tunnelTo(t, upstream.origin)
    const { text, clean } = await rawClient(t, port, handshake()).closed
    assert.match(text, /\r\n\r\nhalf$/)
    assert.equal(clean, true)
  })
}

const BODY = 'Content-Length: 2\r\n\r\nno'
const CHUNKED_BODY = '2\r\nno\r\n0\r\n\r\n'
const EARLY = 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n'
for (const [what, answer] of [
  ['gzip before its chunks', `HTTP/1.1 403 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\n${CHUNKED_BODY}`],
  ['chunks twice', `HTTP/1.1 403 No\r\nTransfer-Encoding: chunked, chunked\r\n\r\n${CHUNKED_BODY}`],
  ['gzip alone', 'HTTP/1.1 403 No\r\nTransfer-Encoding: gzip\r\n\r\nno'],
  ['a status beyond 599', `HTTP/1.1 600 No\r\n${BODY}`],
  ['21 interim answers before it', `${EARLY.repeat(21)}HTTP/1.1 403 No\r\n${BODY}`],
  ['interim answers without an end', EARLY.repeat(20_000)],
  ['21 interim answers before a 101', `${EARLY.repeat(21)}${SWITCHED}\r\n`],
] as const) {
  test(`an answer with ${what} is none`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(answer))
    const { port, statuses } = await tunnelTo(t, upstream.origin)
    assert.match((await rawClient(t, port, handshake()).closed).text, /upstream_unreachable$/)
    assert.deepEqual(statuses, [400])
    await upstream.closed[0]
  })
}

for (const [what, answer, expected] of [
  [
    'a control character in its reason',
    `HTTP/1.1 403 a\x1b[31mb\r\n${BODY}`,
    /^HTTP\/1\.1 403 Forbidden\r\n/,
  ],
  ['Latin-1 in its reason', `HTTP/1.1 403 caf\xe9\r\n${BODY}`, /^HTTP\/1\.1 403 Forbidden\r\n/],
  ['a reason of its own', `HTTP/1.1 403 Not you\r\n${BODY}`, /^HTTP\/1\.1 403 Not you\r\n/],
  ['no reason', `HTTP/1.1 403\r\n${BODY}`, /^HTTP\/1\.1 403 Forbidden\r\n/],
  ['Latin-1 in a field', `HTTP/1.1 403 No\r\nX-A: caf\xe9\r\n${BODY}`, /\r\nX-A: caf\xe9\r\n/],
  ['20 interim answers before it', `${EARLY.repeat(20)}HTTP/1.1 403 No\r\n${BODY}`, /^HTTP\/1\.1 403 No\r\n/],
] as const) {
  test(`a refusal with ${what} is passed on as any answer`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(answer, 'latin1'))
    const { port } = await tunnelTo(t, upstream.origin)
    const { text } = await rawClient(t, port, handshake()).closed
    assert.match(text, expected)
    assert.match(text, /\r\n\r\nno$/)
    assert.doesNotMatch(text, /Early/)
  })
}

test('a 204 to a handshake has no length', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write('HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX-A: b\r\n\r\n'),
  )
  const { port } = await tunnelTo(t, upstream.origin)
  const { text } = await rawClient(t, port, handshake()).closed
  assert.match(text, /^HTTP\/1\.1 204 [\s\S]*X-A: b\r\n/)
  assert.doesNotMatch(text, /content-length/i)
})

test('the fields of a 101 keep every byte, and frames behind it arrive', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(`${EARLY}${SWITCHED}X-A: caf\xe9\r\nX-B: \xc3\xa9\r\n\r\n\x81\x02hi`, 'latin1'),
  )
  const { port } = await tunnelTo(t, upstream.origin)
  const text = await rawClient(t, port, handshake()).until((all) => isWholeHead(all) && all.endsWith('hi'))
  assert.match(text, /^HTTP\/1\.1 101 Switching Protocols\r\n/)
  assert.match(text, /\r\nX-A: caf\xe9\r\nX-B: \xc3\xa9\r\n/)
})
