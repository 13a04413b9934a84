import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { answerWith, http2Upstream } from '../../../kit/upstream/http2-kit.ts'
import { type Proxy as ProxyTo, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'
import { ACCEPT, handshake, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

/** Every byte that a field value may hold past ASCII (RFC 9110 §5.5), alone and as UTF-8, beside ASCII. */
const BYTES = Array.from({ length: 128 }, (_, n) => String.fromCharCode(0x80 + n)).join('')
const UTF8 = Buffer.from('ł ü € 💥').toString('latin1')
const VALUE = `inline; filename="${BYTES}"; name=${UTF8}; end`

/** Fields of answers that a program on the way might treat specially. */
const FIELDS = [
  ...[
    'Content-Disposition',
    'content-disposition',
    'X-Any',
    'Link',
    'Content-Location',
    'Refresh',
    'Location',
  ],
  ...[
    'Content-Type',
    'ETag',
    'Vary',
    'Server',
    'Content-Language',
    'WWW-Authenticate',
    'Cache-Control',
    'Date',
  ],
]
/** `Vary` and `Cache-Control` are added to. */
const BEGINS = new Set(['vary', 'cache-control'])

function valuesOf(text: string, name: string): string[] {
  const [head = ''] = text.split('\r\n\r\n', 1)
  return head
    .split('\r\n')
    .filter((line) => line.toLowerCase().startsWith(`${name.toLowerCase()}: `))
    .map((line) => line.slice(name.length + 2))
}

async function ask(t: TestContext, { port }: ProxyTo, method = 'GET', fields = ''): Promise<string> {
  const request = `${method} /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n${fields}\r\n`
  return (await rawClient(t, port, request).closed).text
}

function assertArrived(text: string, status: number, name: string): void {
  assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} [ -~]+\r\n`), name)
  const [value = ''] = valuesOf(text, name)
  if (BEGINS.has(name.toLowerCase())) assert.ok(value.startsWith(VALUE), `${name}: ${value}`)
  else assert.equal(value, VALUE, name)
}

const LARGE = 'x'.repeat(40_000)
const ANSWERS: [kind: string, status: number, head: string, body: string, method?: string][] = [
  ['a length', 200, 'Content-Length: 2\r\n', 'ok'],
  ['a length of many reads', 200, `Content-Length: ${LARGE.length}\r\n`, LARGE],
  ['a length of nought', 200, 'Content-Length: 0\r\n', ''],
  ['chunks', 200, 'Transfer-Encoding: chunked\r\n', '2\r\nok\r\n0\r\n\r\n'],
  ['chunks that never were', 200, 'Transfer-Encoding: chunked\r\n', '0\r\n\r\n'],
  ['a length that is asked for alone', 200, 'Content-Length: 2\r\n', '', 'HEAD'],
  ['no body', 204, '', ''],
  ['nothing new', 304, 'Content-Length: 2\r\n', ''],
  ['an error', 404, 'Content-Length: 2\r\n', 'no'],
]

for (const [kind, status, head, body, method] of ANSWERS) {
  test(`every byte of a field arrives at the client, of an answer with ${kind}`, async (t) => {
    let fields = ''
    const upstream = await rawUpstream(t, (socket) => {
      socket.end(`HTTP/1.1 ${status} As It Is\r\n${fields}\r\n${body}`, 'latin1')
    })
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    for (const name of FIELDS) {
      const field = `${name}: ${VALUE}\r\n`
      for (fields of [field + head, head + field]) assertArrived(await ask(t, proxy, method), status, name)
    }
    assert.deepEqual(new Set(proxy.outcomes), new Set(['sent']))
  })

  test(`every byte of a field arrives at the client over HTTP/2, of an answer with ${kind}`, async (t) => {
    let name = ''
    const length = /Content-Length: (\d+)/.exec(head)?.[1]
    const hasBody = method !== 'HEAD' && status !== 204 && status !== 304
    const upstream = await http2Upstream(t, (stream) => {
      const fields = { ...(length ? { 'content-length': length } : {}), [name.toLowerCase()]: VALUE }
      const text = head.startsWith('Transfer') ? body.replace(/^2\r\n|(?:\r\n)?0\r\n\r\n$/g, '') : body
      answerWith(status, fields, hasBody ? text : undefined)(stream)
    })
    const proxy = await proxyTo(t, upstream.route)
    for (name of FIELDS) assertArrived(await ask(t, proxy, method), status, name)
    assert.deepEqual(new Set(proxy.outcomes), new Set(['sent']))
  })
}

test('every byte of a field arrives at the client beside fields of ours', async (t) => {
  const upstream = await rawUpstream(t, (socket) => {
    const named = `Content-Disposition: ${VALUE}\r\nX-A: ${VALUE}\r\n`
    socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${named}\r\nok`, 'latin1')
  })
  const proxy = await proxyTo(
    t,
    { upstream: upstream.origin },
    { fields: { 'x-request-id': 'r-1', vary: 'Origin' } },
  )
  const text = await ask(t, proxy)
  assertArrived(text, 200, 'Content-Disposition')
  assertArrived(text, 200, 'X-A')
  assert.deepEqual(valuesOf(text, 'Content-Length'), ['2'])
  assert.deepEqual(valuesOf(text, 'X-Request-Id'), ['r-1'])
  assert.ok(text.endsWith('\r\n\r\nok'))
})

test('every byte of a field arrives at the upstream, over HTTP/1.1 and HTTP/2, with a body and without', async (t) => {
  const names = ['X-Any', 'Content-Disposition', 'Cookie', 'Referer', 'If-None-Match', 'User-Agent']
  const plain = await rawUpstream(t, (socket, received) => {
    if (received.endsWith('ok') || received.startsWith('GET')) socket.end('HTTP/1.1 204 No Content\r\n\r\n')
  })
  const http2 = await http2Upstream(t, answerWith(204, {}))
  for (const [method, more] of [
    ['GET', ''],
    ['POST', 'Content-Length: 2\r\n'],
  ] as const) {
    const fields = names.map((name) => `${name}: ${VALUE}\r\n`).join('')
    const request = `${method} /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n${more}${fields}\r\n${more && 'ok'}`
    for (const route of [{ upstream: plain.origin }, http2.route]) {
      const { port } = await proxyTo(t, route)
      assert.match((await rawClient(t, port, request).closed).text, /^HTTP\/1\.1 204 /)
    }
    for (const name of names) {
      assert.deepEqual(valuesOf(plain.received.at(-1)!, name), [VALUE], name)
      assert.equal(http2.streams.at(-1)!.headers[name.toLowerCase()], VALUE, name)
    }
  }
})

test('every byte of a field passes an upgrade both ways, opened and refused', async (t) => {
  const named = `Content-Disposition: ${VALUE}\r\nX-Any: ${VALUE}\r\nServer: ${VALUE}\r\n`
  const answers = [
    `101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n${named}\r\n`,
    `403 No\r\nContent-Length: 2\r\n${named}\r\nno`,
    `403 No\r\nTransfer-Encoding: chunked\r\n${named}\r\n2\r\nno\r\n0\r\n\r\n`,
  ]
  for (const answer of answers) {
    const upstream = await rawUpstream(t, (socket) => void socket.end(`HTTP/1.1 ${answer}`, 'latin1'))
    const { port } = await tunnelTo(t, upstream.origin)
    const request = handshake({
      'X-Any': VALUE,
      'Content-Disposition': VALUE,
      Cookie: `cloakroom=1; a=${UTF8}`,
    })
    const { text } = await rawClient(t, port, request).closed
    assert.match(text, /^HTTP\/1\.1 (?:101|403) [ -~]+\r\n/)
    for (const name of ['Content-Disposition', 'X-Any', 'Server'])
      assert.deepEqual(valuesOf(text, name), [VALUE])
    const [received = ''] = upstream.received
    for (const name of ['Content-Disposition', 'X-Any']) assert.deepEqual(valuesOf(received, name), [VALUE])
    assert.deepEqual(valuesOf(received, 'Cookie'), [`a=${UTF8}`])
  }
})
