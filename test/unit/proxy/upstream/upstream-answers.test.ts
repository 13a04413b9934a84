import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { brotliCompressSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { ends, isWholeHead, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const CHUNKED_OK = '2\r\nok\r\n0\r\n\r\n'
const bodyOf = (text: string) => text.slice(text.indexOf('\r\n\r\n') + 4)
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const LAST_GET = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'

const HOSTILE: [what: string, answer: string][] = [
  ['a folded header line', 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok'],
  ['a length with a letter', 'HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok'],
  ['a negative length', 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok'],
  ['a length with a sign', 'HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok'],
  ['a list of lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok'],
  ['a length twice', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok'],
  [
    'chunked before a length',
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n${CHUNKED_OK}`,
  ],
  ['gzip under chunked', `HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n${CHUNKED_OK}`],
  ['gzip over chunked', `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n${CHUNKED_OK}`],
  [
    'two transfer codings',
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_OK}`,
  ],
  ['an unknown transfer coding', `HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n${CHUNKED_OK}`],
  ['the transfer coding identity', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok'],
  ['the status 099', 'HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok'],
  ['the status 600', 'HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok'],
  ['a status of two digits', 'HTTP/1.1 20 Odd\r\nContent-Length: 2\r\n\r\nok'],
  ['bare line feeds', 'HTTP/1.1 200 OK\nX: 1\nContent-Length: 2\n\nok'],
  ['NUL in a header', 'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok'],
  ['a space before a colon', 'HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok'],
  ['a header without a name', 'HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nok'],
  ['a head over the limit', `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(70_000)}\r\nContent-Length: 2\r\n\r\nok`],
  ['HTTP/0.9', 'ok'],
  ['101 unasked, and then the answer', `HTTP/1.1 101 Switching Protocols\r\n\r\n${OK}`],
  ['half a head', 'HTTP/1.1 200 OK\r\nContent-Le'],
]
for (const [what, answer] of HOSTILE) {
  test(`an upstream that answers with ${what} is unreachable, and no other request uses its connection`, async (t) => {
    const upstream = await rawUpstream(t, (socket, _, connection) =>
      socket.write(connection === 0 ? answer : OK),
    )
    const timeout = { connectMs: 1_000, responseMs: 50, idleMs: 1_000 }
    const proxy = await proxyTo(t, { upstream: upstream.origin, timeout })
    const first = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
    await first.until((text) => /upstream_(?:unreachable|timeout)$/.test(text))
    await upstream.closed[0]
    const other = rawClient(t, proxy.port, GET)
    assert.match(await other.until(ends('ok')), /^HTTP\/1\.1 200 OK\r\nContent-Length: 2\r\n/)
    assert.equal(upstream.received.length, 2)
  })
}

for (const [what, answer] of [
  ['fewer bytes than it announced', 'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok'],
  ['a chunk without an end', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok'],
  [
    'a chunk of no size',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nok\r\n0\r\n\r\n',
  ],
  [
    'a chunk of impossible size',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nfffffffffffffffff\r\n',
  ],
] as const) {
  test(`${what}: the client sees that the body is not whole`, async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.end(answer))
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const settled = proxy.settled()
    const { text } = await rawClient(t, proxy.port, GET).closed
    assert.match(text, /^HTTP\/1\.1 200 OK/)
    assert.doesNotMatch(text, /0\r\n\r\n$/)
    assert.equal(await settled, 'upstream_unreachable')
  })
}

/** An answer whose head and first part fill a read of 64 KiB; eight bytes are missing. */
const FIRST_PART = (() => {
  const head = 'HTTP/1.1 200 OK\r\nContent-Length: 65502\r\n\r\n'
  return head + 'x'.repeat(65_502 - 8)
})()

test('what fills a read reaches the client before the few bytes that are missing, and with them it is whole', async (t) => {
  const upstreamSocket = Promise.withResolvers<Socket>()
  const upstream = await rawUpstream(t, (socket) => {
    socket.write(FIRST_PART)
    upstreamSocket.resolve(socket)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, GET)
  await client.until((text) => bodyOf(text).length === 65_494)
  ;(await upstreamSocket.promise).write('the rest')
  await client.until((text) => bodyOf(text).length === 65_502 && text.endsWith('the rest'))
})

test('an upstream that goes before the last few bytes: the client gets the others, and sees that they are not all', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.end(FIRST_PART))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const settled = proxy.settled()
  const { text } = await rawClient(t, proxy.port, GET).closed
  assert.match(text, /\r\nContent-Length: 65502\r\n/i)
  assert.equal(bodyOf(text).length, 65_494)
  assert.equal(await settled, 'upstream_unreachable')
})

test('a client of HTTP/1.0 gets no chunks, no interim answer, and a reset in place of the end of half a body', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.includes('GET /half'))
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n')
    else if (received.endsWith('abcd'))
      socket.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_OK}`)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const whole = rawClient(
    t,
    proxy.port,
    'POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd',
  )
  const { text, clean } = await whole.closed
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n(?![\s\S]*transfer-encoding)[\s\S]*\r\n\r\nok$/i)
  assert.equal(clean, true)
  const half = rawClient(t, proxy.port, 'GET /half HTTP/1.0\r\nHost: a\r\n\r\n')
  await half.until(ends('ok'))
  await proxy.upstreams.destroy()
  assert.equal((await half.closed).clean, false)
})

test('100 Continue that was not asked for is passed over, like every interim answer', async (t) => {
  const interim = [100, 102, 103, 199]
    .map((status) => `HTTP/1.1 ${status} Odd\r\nLink: </a>\r\n\r\n`)
    .join('')
  const upstream = await rawUpstream(t, (socket) => socket.write(interim + OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  for (const request of [GET, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab', GET]) {
    const client = rawClient(t, proxy.port, request)
    assert.match(
      await client.until(ends('ok')),
      /^HTTP\/1\.1 200 OK\r\nContent-Length: 2\r\n(?![\s\S]*link)/i,
    )
  }
  assert.equal(upstream.received.length, 1)
})

test('bytes after a response on an idle connection reach no client', async (t) => {
  const poison = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
  const upstream = await rawUpstream(t, (socket, _, connection) =>
    socket.write(OK, () => connection === 0 && setImmediate(() => socket.write(poison))),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  await rawClient(t, proxy.port, GET).until(ends('ok'))
  await upstream.closed[0]
  const other = rawClient(t, proxy.port, GET)
  assert.equal(bodyOf(await other.until(ends('ok'))), 'ok')
  assert.equal(upstream.received.length, 2)
})

for (const [what, request, head] of [
  ['204 with a body', GET, 'HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n'],
  ['304 with a body', GET, 'HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n'],
  ['HEAD with a body', GET.replace('GET', 'HEAD'), 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n'],
  ['more than it announced', GET, 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
] as const) {
  test(`${what}: the rest reaches neither this client nor the next`, async (t) => {
    const upstream = await rawUpstream(t, (socket, _, connection) =>
      socket.write(connection === 0 ? `${head}evil` : OK),
    )
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const first = rawClient(t, proxy.port, request)
    await first.until(isWholeHead)
    await upstream.closed[0]
    const other = rawClient(t, proxy.port, GET)
    assert.equal(bodyOf(await other.until(ends('ok'))), 'ok')
    assert.equal(bodyOf(first.text()), '')
    if (what.startsWith('204')) assert.doesNotMatch(first.text(), /content-length/i)
  })
}

test('a body that only the end of its connection ends is whole with a clean end, and cut with a reset', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) =>
    socket.write('HTTP/1.1 200 OK\r\n\r\npart', () =>
      setTimeout(() => (received.includes('/clean') ? socket.end() : socket.resetAndDestroy()), 20),
    ),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const clean = await rawClient(t, proxy.port, LAST_GET.replace('/', '/clean')).closed
  assert.match(clean.text, /part\r\n0\r\n\r\n$/)
  const reset = await rawClient(t, proxy.port, GET).closed
  assert.match(reset.text, /part\r\n$/)
})

test('a redirect is passed on and not followed: no token goes anywhere else', async (t) => {
  const other = await rawUpstream(t, (socket) => socket.write(OK))
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(`HTTP/1.1 302 Found\r\nLocation: ${other.origin}/x\r\nContent-Length: 0\r\n\r\n`),
  )
  const token = { value: 'at-1', expiresAt: 0, renewAt: 0 }
  const proxy = await proxyTo(t, { upstream: upstream.origin }, { accessToken: token })
  const { text } = await rawClient(t, proxy.port, LAST_GET).closed
  assert.ok(text.includes(`\r\nLocation: ${other.origin}/x\r\n`))
  assert.match(upstream.received[0]!, /at-1/)
  assert.equal(other.received.length, 0)
})

test('trailers of an answer do not cross', async (t) => {
  const answer =
    'HTTP/1.1 200 OK\r\nTrailer: Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n'
  const upstream = await rawUpstream(t, (socket) => socket.write(answer))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const { text } = await rawClient(t, proxy.port, LAST_GET).closed
  assert.doesNotMatch(text, /trailer|set-cookie/i)
  assert.match(text, /2\r\nok\r\n0\r\n\r\n$/)
})

test('header bytes cross as they are also when the body is not there yet', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write('HTTP/1.1 200 OK\r\nX: \xe9\r\n\r\n', 'latin1'),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  assert.match(await rawClient(t, proxy.port, GET).until(isWholeHead), /\r\nX: \xe9\r\n/)
})

test('header bytes, repeated fields and their order cross as they are', async (t) => {
  const fields =
    'X-A: 1\r\nx-b: caf\xe9\r\nX-A: 2\r\nETag: W/"\xff"\r\nLink: </a>\r\nx-a: 3\r\nDate: yesterday\r\n'
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(`HTTP/1.1 200 OK\r\n${fields}Content-Length: 2\r\n\r\nok`, 'latin1'),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const sent = 'x-c: \xfc\r\nX-D: 1\r\nx-d: 2\r\n'
  const client = rawClient(t, proxy.port, `GET / HTTP/1.1\r\nHost: a\r\n${sent}\r\n`)
  assert.ok((await client.until(ends('ok'))).includes(`\r\n${fields}Content-Length: 2\r\n`))
  assert.ok(upstream.received[0]!.includes(`\r\n${sent}`))
})

test('ranges, conditions and encodings are the business of the two ends', async (t) => {
  const plain = Buffer.from('some text, some text, some text')
  const parts = Buffer.from('--x\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--x--\r\n')
  const answers: [head: string, body: Buffer][] = [
    ['206 Partial Content\r\nContent-Range: bytes 0-3/31', plain.subarray(0, 4)],
    ['206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x', parts],
    ['416 Range Not Satisfiable\r\nContent-Range: bytes */31', Buffer.alloc(0)],
    ['412 Precondition Failed', Buffer.alloc(0)],
    ['200 OK\r\nContent-Encoding: gzip', gzipSync(plain)],
    ['200 OK\r\nContent-Encoding: br', brotliCompressSync(plain)],
    ['200 OK\r\nContent-Encoding: zstd', zstdCompressSync(plain)],
  ]
  for (const [head, body] of answers) {
    const answer = `HTTP/1.1 ${head}\r\nContent-Length: ${body.length}\r\n`
    const upstream = await rawUpstream(t, (socket) =>
      socket.write(Buffer.concat([Buffer.from(`${answer}\r\n`), body])),
    )
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const asked =
      'Range: bytes=0-3\r\nIf-None-Match: "a"\r\nIf-Range: "b"\r\nAccept-Encoding: gzip, br, zstd\r\n'
    const client = rawClient(t, proxy.port, LAST_GET.replace('\r\n\r\n', `\r\n${asked}\r\n`))
    const { text } = await client.closed
    assert.ok(text.startsWith(answer), text)
    assert.ok(Buffer.from(bodyOf(text), 'latin1').equals(body), head)
    assert.ok(upstream.received[0]!.includes(`\r\n${asked}`))
  }
})
