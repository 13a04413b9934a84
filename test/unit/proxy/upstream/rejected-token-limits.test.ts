import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  INVALID_TOKEN,
  onlySecond,
  proxyWithToken,
  RESEND,
  refuse,
  request,
  upstreamOf,
} from '../../../kit/upstream/rejected-token-kit.ts'
import { ends, has, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

for (const [what, head, body] of [
  [
    'a length',
    (size: number) => request('POST /').replace('\r\n\r\n', `\r\nContent-Length: ${size}\r\n\r\n`),
    (b: Buffer) => b,
  ],
  [
    'no length',
    () => 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
    (b: Buffer) =>
      Buffer.concat([Buffer.from(`${b.length.toString(16)}\r\n`), b, Buffer.from('\r\n0\r\n\r\n')]),
  ],
] as const) {
  test(`an upload of 1 MiB with ${what} is not sent again, but its token is questioned`, async (t) => {
    const upstream = await upstreamOf(t, onlySecond)
    const proxy = await proxyWithToken(t, upstream)
    const size = 1_048_576
    const client = rawClient(t, proxy.port, head(size))
    client.socket.write(body(Buffer.alloc(size, 'x')))
    assert.match(await client.until(ends('refused')), /^HTTP\/1\.1 401 /)
    assert.equal(upstream.seen.length, 1)
    assert.equal(upstream.seen[0]!.body.length, size)
    assert.equal(proxy.asked.length, 1)
    assert.equal(proxy.asked[0]!.rejected.isRepeatable, false)
    client.socket.write(request('GET /next'))
    await client.until(has('welcome'))
  })
}

for (const [what, bytes] of [
  ['a byte over 64 KiB', request('POST /', 'x'.repeat(65_537))],
  [
    'a chunked body of three bytes',
    'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  ],
] as const) {
  test(`${what} is not sent again`, async (t) => {
    const upstream = await upstreamOf(t, onlySecond)
    const proxy = await proxyWithToken(t, upstream)
    await rawClient(t, proxy.port, bytes).until(ends('refused'))
    assert.equal(upstream.seen.length, 1)
    assert.equal(proxy.asked[0]!.rejected.isRepeatable, false)
  })
}

test('a refusal before the end of a small upload is relayed, and the connection ends with it', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(
      `HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: ${INVALID_TOKEN}\r\nContent-Length: 2\r\n\r\nno`,
    ),
  )
  const proxy = await proxyWithToken(t, upstream)
  const client = rawClient(t, proxy.port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab')
  const { text } = await client.closed
  assert.match(text, /^HTTP\/1\.1 401 [\s\S]*\r\nConnection: close\r\n[\s\S]*no$/)
  assert.equal(proxy.asked[0]!.rejected.isRepeatable, false)
  assert.equal(upstream.received.length, 1)
})

const NOT_OURS: [what: string, status: number, challenge: string | undefined][] = [
  ['401 without a challenge', 401, undefined],
  ['401 with another scheme', 401, 'Basic realm="x"'],
  ['401 with no error', 401, 'Bearer realm="x"'],
  ['401 insufficient_scope', 401, 'Bearer error="insufficient_scope"'],
  ['401 with claims that are none', 401, 'Bearer error="insufficient_claims", claims="%"'],
  ['403 insufficient_scope', 403, 'Bearer error="insufficient_scope", scope="a"'],
  ['403 invalid_token', 403, INVALID_TOKEN],
  ['400 invalid_request', 400, 'Bearer error="invalid_request"'],
  ['200 with a challenge', 200, INVALID_TOKEN],
]
for (const [what, status, challenge] of NOT_OURS) {
  test(`${what} is relayed without a question`, async (t) => {
    const upstream = await upstreamOf(t, (_, res) =>
      res
        .writeHead(status, { 'content-length': 2, ...(challenge && { 'www-authenticate': challenge }) })
        .end('no'),
    )
    const proxy = await proxyWithToken(t, upstream, RESEND)
    const text = await rawClient(t, proxy.port, request('GET /')).until(ends('no'))
    assert.ok(text.startsWith(`HTTP/1.1 ${status} `))
    assert.equal(proxy.asked.length, 0)
    assert.equal(upstream.seen.length, 1)
  })
}

test('no question is asked about a request that carried no token of ours', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const onRejectedToken = () => assert.fail('asked')
  const proxy = await proxyTo(t, { upstream: upstream.origin, resource: 'orders' }, { onRejectedToken })
  await rawClient(t, proxy.port, request('GET /')).until(ends('refused'))
})

test('without anybody to ask a refusal is relayed', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const accessToken = { value: 'at-1', expiresAt: 0, renewAt: 0 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, resource: 'orders' }, { accessToken })
  await rawClient(t, proxy.port, request('POST /', 'abc')).until(ends('refused'))
  assert.equal(upstream.seen.length, 1)
})

test('the second try goes out under the permit of the first', async (t) => {
  const upstream = await upstreamOf(t, onlySecond)
  const proxy = await proxyWithToken(t, upstream, RESEND, { connections: 1 })
  for (let i = 0; i < 3; i++) {
    const client = rawClient(t, proxy.port, request('POST /', 'abc'))
    await client.until((text) => text.includes('welcome'))
    client.socket.destroy()
  }
})
