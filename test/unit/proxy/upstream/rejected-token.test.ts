import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../../src/errors.ts'
import { RECORDED, RECORDED_CLAIMS } from '../../../kit/upstream/recorded-challenge.ts'
import {
  INVALID_TOKEN,
  onlySecond,
  proxyWithToken,
  RELAY,
  RESEND,
  refuse,
  request,
  settle,
  upstreamOf,
} from '../../../kit/upstream/rejected-token-kit.ts'
import { ends, has, isWholeHead, rawClient, SESSION_HASH } from '../../../kit/upstream/sockets.ts'

test('a request without a body is sent again with the other token', async (t) => {
  const upstream = await upstreamOf(t, onlySecond)
  const proxy = await proxyWithToken(t, upstream)
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, request('GET /a?b=c'))
  const text = await client.until(has('welcome'))
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n/)
  assert.doesNotMatch(text, /refused|401|www-authenticate/i)
  assert.deepEqual(
    upstream.seen.map(({ line, authorization }) => [line, authorization]),
    [
      ['GET /a?b=c', 'Bearer at-1'],
      ['GET /a?b=c', 'Bearer at-2'],
    ],
  )
  assert.deepEqual(proxy.asked, [
    {
      session: SESSION_HASH,
      resource: 'orders',
      rejected: {
        token: { value: 'at-1', expiresAt: 0, renewAt: 0 },
        challenge: { kind: 'invalid_token' },
        isRepeatable: true,
      },
    },
  ])
  assert.equal(await settled, 'sent')
})

test('both requests use one upstream connection when the reaction takes its time, and so does the next', async (t) => {
  const upstream = await upstreamOf(t, onlySecond)
  const proxy = await proxyWithToken(t, upstream, () => settle().then(() => RESEND))
  const client = rawClient(t, proxy.port, request('GET /1'))
  await client.until(has('welcome'))
  client.socket.write(request('GET /2'))
  await client.until((text) => text.split('welcome').length === 3)
  assert.equal(upstream.seen.length, 4)
  assert.equal(upstream.connections, 1)
})

const BYTES = Buffer.from(Array.from({ length: 65_536 }, (_, n) => (n * 7) % 256)).toString('latin1')
for (const [what, body] of [
  ['an empty body', ''],
  ['a small body', '{"a":"\xe9\x00"}'],
  ['a body of 64 KiB', BYTES],
] as const) {
  for (const method of ['POST', 'PUT', 'DELETE', 'GET']) {
    test(`${method} with ${what} is sent again byte for byte`, async (t) => {
      const upstream = await upstreamOf(t, onlySecond)
      const proxy = await proxyWithToken(t, upstream)
      const client = rawClient(t, proxy.port, request(`${method} /`, body))
      await client.until(has('welcome'))
      assert.deepEqual(
        upstream.seen.map(({ line, authorization }) => [line, authorization]),
        [
          [`${method} /`, 'Bearer at-1'],
          [`${method} /`, 'Bearer at-2'],
        ],
      )
      for (const seen of upstream.seen) assert.ok(seen.body.equals(Buffer.from(body, 'latin1')))
      client.socket.write(request('GET /next'))
      await client.until((text) => text.split('welcome').length === 3)
    })
  }
}

test('a body that comes in pieces is sent again whole', async (t) => {
  const upstream = await upstreamOf(t, onlySecond)
  const proxy = await proxyWithToken(t, upstream)
  const head = 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n'
  const client = rawClient(t, proxy.port, head)
  await client.until(has('100 Continue'))
  for (const piece of ['abc', 'def', 'ghi']) {
    await new Promise((resolve) => client.socket.write(piece, resolve))
    await new Promise(setImmediate)
  }
  await client.until(has('welcome'))
  assert.deepEqual(
    upstream.seen.map(({ body }) => body.toString()),
    ['abcdefghi', 'abcdefghi'],
  )
})

test('a second refusal is relayed without another question', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const proxy = await proxyWithToken(t, upstream)
  const client = rawClient(t, proxy.port, request('POST /', 'abc'))
  const text = await client.until(ends('refused'))
  assert.match(text, /^HTTP\/1\.1 401 Unauthorized\r\n/)
  assert.ok(text.includes(`www-authenticate: ${INVALID_TOKEN}\r\n`))
  assert.equal(upstream.seen.length, 2)
  assert.equal(proxy.asked.length, 1)
})

test('each request of a connection may be sent again', async (t) => {
  const upstream = await upstreamOf(t, onlySecond)
  const proxy = await proxyWithToken(t, upstream)
  const client = rawClient(
    t,
    proxy.port,
    request('POST /1', 'a') + request('POST /2', 'b') + request('GET /3'),
  )
  await client.until((text) => text.split('welcome').length === 4)
  assert.equal(proxy.asked.length, 3)
  assert.equal(upstream.seen.length, 6)
})

test('whatever the second answer is, it is the answer', async (t) => {
  const upstream = await upstreamOf(t, (req, res) => {
    if (req.headers.authorization === 'Bearer at-2') res.writeHead(403, { 'content-length': 2 }).end('no')
    else refuse(res)
  })
  const proxy = await proxyWithToken(t, upstream)
  const text = await rawClient(t, proxy.port, request('GET /')).until(ends('no'))
  assert.match(text, /^HTTP\/1\.1 403 /)
})

test('a 401 that stands is relayed whole', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const proxy = await proxyWithToken(t, upstream, RELAY)
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, request('GET /'))
  const text = await client.until(ends('refused'))
  assert.match(text, /^HTTP\/1\.1 401 Unauthorized\r\n/)
  assert.match(text, /\r\nwww-authenticate: Bearer realm="x", error="invalid_token"\r\n/)
  assert.match(text, /\r\ncache-control: private\r\n/)
  assert.equal(await settled, 'sent')
  client.socket.write(request('GET /again'))
  await client.until((all) => all.split('refused').length === 3)
  assert.equal(upstream.connections, 1)
})

test('HEAD is sent again', async (t) => {
  const upstream = await upstreamOf(t, (req, res) => {
    if (req.headers.authorization === 'Bearer at-2') res.writeHead(200, { 'content-length': 5 }).end()
    else res.writeHead(401, { 'www-authenticate': INVALID_TOKEN, 'content-length': 7 }).end()
  })
  const proxy = await proxyWithToken(t, upstream)
  const client = rawClient(t, proxy.port, request('HEAD /'))
  assert.match(await client.until(isWholeHead), /^HTTP\/1\.1 200 OK\r\ncontent-length: 5\r\n/)
  assert.equal(upstream.seen.length, 2)
})

test('HEAD is relayed without a body', async (t) => {
  const upstream = await upstreamOf(t, (_, res) =>
    res.writeHead(401, { 'www-authenticate': INVALID_TOKEN, 'content-length': 7 }).end(),
  )
  const proxy = await proxyWithToken(t, upstream, RELAY)
  const client = rawClient(t, proxy.port, request('HEAD /') + request('HEAD /'))
  const text = await client.until((all) => all.split('\r\n\r\n').length === 3)
  assert.match(text, /^HTTP\/1\.1 401 Unauthorized\r\n[\s\S]*content-length: 7\r\n/)
})

test('a claims challenge is handed on as it was decoded', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res, ['Negotiate', RECORDED]))
  const proxy = await proxyWithToken(t, upstream, RELAY)
  await rawClient(t, proxy.port, request('GET /')).until(ends('refused'))
  assert.deepEqual(proxy.asked[0]!.rejected.challenge, {
    kind: 'insufficient_claims',
    claims: RECORDED_CLAIMS,
  })
})

for (const code of ['reauthentication_required', 'provider_unavailable'] as const) {
  test(`${code} is answered in place of the upstream's 401`, async (t) => {
    const upstream = await upstreamOf(t, (_, res) => refuse(res))
    const proxy = await proxyWithToken(t, upstream, async () => {
      throw new BffError(code, 'no')
    })
    const settled = proxy.settled()
    const client = rawClient(t, proxy.port, request('POST /', 'abc'))
    const text = await client.until(ends(code))
    assert.match(text, /^HTTP\/1\.1 500 /)
    assert.doesNotMatch(text, /refused|www-authenticate/i)
    assert.equal(await settled, code)
    client.socket.write(request('GET /next'))
    await client.until((all) => all.split(code).length === 3)
    assert.equal(upstream.connections, 1)
  })
}

test('a defect of the one who is asked leaves as it is', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const proxy = await proxyWithToken(t, upstream, async () => {
    throw new TypeError('oops')
  })
  const settled = proxy.settled()
  rawClient(t, proxy.port, request('GET /'))
  assert.equal(await settled, 'TypeError: oops')
})
