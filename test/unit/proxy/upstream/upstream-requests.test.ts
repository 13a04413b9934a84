import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { eventually } from '../../../kit/shops/deadline.ts'
import { ends, isWholeHead, open, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const HEAD = 'POST / HTTP/1.1\r\nHost: a\r\n'
const NEXT = 'GET /next HTTP/1.1\r\nHost: a\r\n\r\n'

for (const [status, name] of [
  [401, 'Unauthorized'],
  [417, 'Expectation Failed'],
]) {
  test(`${status} before the body is whole reaches a client that waits for 100 Continue, and nothing of its connection is read on`, async (t) => {
    const upstream = await rawUpstream(t, (socket) =>
      socket.write(`HTTP/1.1 ${status} ${name}\r\nContent-Length: 2\r\n\r\nno`),
    )
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const client = rawClient(t, proxy.port, `${HEAD}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n`)
    await client.until(isWholeHead)
    client.socket.write('ab')
    await client.until(ends('no'))
    client.socket.write(`cd${NEXT}`)
    const { text } = await client.closed
    assert.match(
      text,
      new RegExp(
        `^HTTP/1.1 100 Continue\\r\\n\\r\\nHTTP/1.1 ${status} [\\s\\S]*\\r\\nConnection: close\\r\\n`,
      ),
    )
    await upstream.closed[0]
    assert.equal(upstream.received.length, 1)
    assert.doesNotMatch(upstream.received[0]!, /expect|next/i)
  })
}

test('a client that was asked for its body and sends another request instead is not believed', async (t) => {
  const seen: string[] = []
  const upstream = createServer((req, res) => {
    let body = ''
    req.on('data', (chunk) => (body += chunk))
    req.on('end', () => {
      seen.push(`${req.method} ${req.url} ${body}`)
      res.end('ok')
    })
  })
  const proxy = await proxyTo(t, { upstream: `http://127.0.0.1:${await open(t, upstream)}` })
  const client = rawClient(
    t,
    proxy.port,
    `${HEAD}Expect: 100-continue\r\nContent-Length: ${NEXT.length}\r\n\r\n`,
  )
  await client.until(isWholeHead)
  client.socket.write(NEXT)
  await client.until((text) => text.includes('ok'))
  assert.deepEqual(seen, [`POST / ${NEXT}`])
})

test('an unknown expectation is refused', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, `${HEAD}Expect: tea\r\nContent-Length: 4\r\n\r\nabcd`)
  await client.until((text) => text.startsWith('HTTP/1.1 417 '))
  assert.equal(upstream.received.length, 0)
})

test('bytes after the announced length are the next request, not part of this one', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(OK))
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, `${HEAD}Content-Length: 4\r\n\r\nabcdefgh`)
  await client.until((text) => text.includes('HTTP/1.1 400 '))
  assert.doesNotMatch(upstream.received.join(''), /efgh/)
})

for (const [what, framing] of [
  ['a length', 'Content-Length: 100\r\n\r\nabc'],
  ['chunks', 'Transfer-Encoding: chunked\r\n\r\n5\r\nabc'],
] as const) {
  test(`an upload framed by ${what} that its client breaks off ends the upstream's connection in the middle`, async (t) => {
    const upstream = await rawUpstream(
      t,
      (_, received) => received.includes('abc') && client.socket.destroy(),
    )
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const settled = proxy.settled()
    const client = rawClient(t, proxy.port, HEAD + framing)
    assert.equal(await settled, 'sent')
    await upstream.closed[0]
    assert.doesNotMatch(upstream.received[0]!, /0\r\n\r\n$/)
  })
}

test('a chunk that is broken never becomes a whole request', async (t) => {
  const upstream = await rawUpstream(
    t,
    (_, received) => received.includes('abc') && client.socket.write('zz\r\n'),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, `${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`)
  await client.closed
  await upstream.closed[0]
  assert.doesNotMatch(upstream.received[0]!, /0\r\n\r\n$/)
})

test('an upload stops when its upstream has answered and gone', async (t) => {
  let taken = 0
  const upstream = await rawUpstream(t, (socket, received) => {
    taken = received.length
    if (socket.writable)
      socket.end('HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno')
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, `${HEAD}Content-Length: 100000000\r\n\r\n${'x'.repeat(100_000)}`)
  await client.until(ends('no'))
  await client.closed
  await upstream.closed[0]
  assert.ok(taken < 1_000_000)
})

test('a body that came with its head goes on with the head, byte for byte, and the connections serve on', async (t) => {
  const body = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
    .toString('latin1')
    .repeat(64)
  let answered = 0
  const upstream = await rawUpstream(t, (socket, received) => {
    for (; answered < received.split(body).length - 1; answered += 1) socket.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, '')
  for (const times of [1, 2]) {
    client.socket.write(`${HEAD}Content-Length: ${body.length}\r\n\r\n${body}`, 'latin1')
    await client.until((text) => text.split('\r\n\r\nok').length === times + 1)
  }
  const [first = '', ...more] = upstream.received
  assert.deepEqual(more, [])
  assert.equal(first.split(`content-length: ${body.length}\r\n\r\n${body}`).length, 3)
})

test('the first part of a small body goes on before the second has come', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.endsWith('abcd')) socket.write(OK)
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin })
  const client = rawClient(t, proxy.port, `${HEAD}Content-Length: 4\r\n\r\nab`)
  await eventually('the upstream has the first part', () => upstream.received[0]?.endsWith('\r\n\r\nab'))
  client.socket.write('cd')
  await client.until(ends('ok'))
})
