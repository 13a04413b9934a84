import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'
import { handshake, SWITCHED, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

test('with an Expect of the client, the upstream gets our fields and none of its own', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin)
  const fields = { Expect: '100-continue', Authorization: 'Bearer evil', 'X-Forwarded-For': '6.6.6.6' }
  const text = await rawClient(t, port, handshake(fields)).until((all) => all.includes('\r\n\r\n'))
  assert.match(text, /^HTTP\/1\.1 101 /)
  assert.doesNotMatch(upstream.received[0]!, /evil|cloakroom=|6\.6\.6\.6|expect/i)
  assert.match(upstream.received[0]!, /\r\nauthorization: Bearer token-for-orders\r\n/i)
})

test('the target goes upstream as it was mapped, in bytes that a URL parser would change', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin)
  const line = 'GET /ws/a?x=%41|{}^&u=http://c/../e HTTP/1.1'
  await rawClient(t, port, handshake({}, line)).until((all) => all.includes('\r\n\r\n'))
  assert.equal(upstream.received[0]!.split('\r\n')[0], line.replace('/ws', '/v1'))
})

test('an open WebSocket keeps in memory neither the cookie nor the access token of its handshake', async (t) => {
  let sent: ClientRequest | undefined
  let received: IncomingMessage | undefined
  const onRequest = (message: unknown) => {
    sent = (message as { request: ClientRequest }).request
  }
  subscribe('http.client.request.start', onRequest)
  t.after(() => unsubscribe('http.client.request.start', onRequest))
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin, {
    factsOf(req) {
      received = req
      return { id: 'r-1' }
    },
  })
  const client = rawClient(t, port, handshake())
  await client.until((all) => all.includes('\r\n\r\n'))
  assert.match(upstream.received[0]!, /token-for-orders/)
  assert.deepEqual([sent!.getHeaderNames(), sent!.headersSent], [[], false])
  assert.deepEqual([received!.rawHeaders, received!.headers], [[], {}])
  assert.equal(client.socket.destroyed, false)
})

const ANSWERS: [what: string, answer: (socket: Socket) => void, expected: RegExp][] = [
  ['resets', (socket) => socket.resetAndDestroy(), /upstream_unreachable$/],
  ['refuses', (socket) => socket.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno'), /\r\n\r\nno$/],
  [
    'accepts another handshake',
    (socket) => socket.write(`${SWITCHED.replace('s3p', 'x')}\r\n`),
    /upstream_unreachable$/,
  ],
]
for (const [what, answer, expected] of ANSWERS)
  test(`a client that sent 100 kB before its upstream ${what} reads the answer to its end`, async (t) => {
    const upstream = await rawUpstream(t, (socket, received) => {
      if (received.endsWith('\r\n\r\n')) setTimeout(answer, 100, socket)
    })
    const { port } = await tunnelTo(t, upstream.origin)
    const { text, clean } = await rawClient(t, port, handshake() + 'x'.repeat(100_000)).closed
    assert.match(text, expected)
    assert.equal(text.split('HTTP/1.1').length, 2)
    assert.equal(clean, true)
  })

test('a 205 has no body, and one length', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write('HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nno'),
  )
  const { port } = await tunnelTo(t, upstream.origin)
  const { text, clean } = await rawClient(t, port, handshake()).closed
  assert.match(text, /^HTTP\/1\.1 205 Reset Content\r\n[\s\S]*content-length: 0\r\n\r\n$/)
  assert.equal(text.match(/content-length/gi)?.length, 1)
  assert.equal(clean, true)
})

test('a field that is repeated keeps all its values, and a field of any name crosses', async (t) => {
  const fields = 'X-A: 1\r\nx-a: 2\r\nX-A: 3\r\n__proto__: p\r\n7: s\r\n'
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(`HTTP/1.1 403 No\r\n${fields}Content-Length: 0\r\n\r\n`),
  )
  const { port } = await tunnelTo(t, upstream.origin)
  const bytes = handshake().replace('\r\n\r\n', `\r\n${fields}\r\n`)
  const { text } = await rawClient(t, port, bytes).closed
  for (const seen of [text, upstream.received[0]!]) {
    for (const value of ['1', '2', '3']) assert.match(seen, new RegExp(`\\r\\nx-a: ${value}\\r\\n`, 'i'))
    assert.match(seen, /\r\n__proto__: p\r\n/)
    assert.match(seen, /\r\n7: s\r\n/)
  }
})
