import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import {
  data,
  type Frame,
  type FramedRequest,
  framedUpstream,
  goAway,
  head,
  reset,
  status,
  windowUpdate,
} from '../../../kit/upstream/http2-frames.ts'
import { isWholeHead, proxyTo, rawClient } from '../../../kit/upstream/sockets.ts'

/*
 * RFC 9113 §6.8 and §8.7: a stream that is refused, or above the last one of a GOAWAY, was not looked at, and may be sent
 * again, whatever its method.
 */

const LAST = 'Host: a\r\nConnection: close\r\n'
const BODY = 'all of the body, once'
const REFUSED = 7
const END_STREAM = 1
const GET = `GET / HTTP/1.1\r\n${LAST}\r\n`
const SHAPES: Record<string, string> = {
  'a GET': GET,
  'a POST with a length': `POST / HTTP/1.1\r\n${LAST}Content-Length: ${BODY.length}\r\n\r\n${BODY}`,
  'a POST in chunks': `POST / HTTP/1.1\r\n${LAST}Transfer-Encoding: chunked\r\n\r\n${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`,
}
const bodyOf = ({ frames }: FramedRequest) =>
  Buffer.concat(frames.filter(({ type }) => type === 0).map(({ payload }) => payload)).toString()
const answer = ({ socket, stream }: FramedRequest) =>
  void socket.write(Buffer.concat([head(stream, status(200)), data(stream, 'ok', { isLast: true })]))

/** An upstream that says `refuse` to the head of each request but the last of `times`, and answers that when it is whole. */
function refusingUpstream(t: TestContext, times: number, refuse: (request: FramedRequest) => Buffer) {
  let refused = 0
  const wanted = new Set<FramedRequest>()
  return framedUpstream(
    t,
    (request) => {
      if (++refused > times) wanted.add(request)
      else request.socket.write(refuse(request))
    },
    {
      onFrame(request: FramedRequest, { type, flags }: Frame) {
        if (wanted.has(request) && (type === 0 || type === 1) && flags & END_STREAM) answer(request)
      },
    },
  )
}

const REFUSALS: [what: string, times: number, refuse: (request: FramedRequest) => Buffer][] = [
  ['REFUSED_STREAM', 3, ({ stream }) => reset(stream, REFUSED)],
  ['GOAWAY', 3, () => goAway(0, 0)],
  ['GOAWAY with an error', 3, () => goAway(0, 2)],
]
for (const [what, times, refuse] of REFUSALS)
  test(`what ${what} says was not looked at is sent again, more than once, its body included`, async (t) => {
    for (const [shape, bytes] of Object.entries(SHAPES)) {
      const upstream = await refusingUpstream(t, times, refuse)
      const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
      assert.match(
        (await rawClient(t, proxy.port, bytes).closed).text,
        /^HTTP\/1\.1 200 [\s\S]*ok\r\n0/,
        shape,
      )
      assert.equal(upstream.requests.length, times + 1)
      if (shape !== 'a GET') assert.equal(bodyOf(upstream.requests.at(-1)!), BODY)
    }
  })

for (const [what, , refuse] of REFUSALS)
  test(`an upstream that refuses everything with ${what} is asked no more after a few tries`, async (t) => {
    const upstream = await refusingUpstream(t, Number.POSITIVE_INFINITY, refuse)
    const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
    for (const bytes of Object.values(SHAPES)) {
      const before = upstream.requests.length
      assert.match((await rawClient(t, proxy.port, bytes).closed).text, /upstream_unreachable$/)
      assert.equal(upstream.requests.length - before, 6)
    }
  })

test('an upstream that takes one request for each connection serves all that came at once', async (t) => {
  const first = new Map<FramedRequest['socket'], number>()
  const upstream = await framedUpstream(t, (request) => {
    const { socket, stream } = request
    if (!first.has(socket)) {
      first.set(socket, stream)
      answer(request)
    }
    socket.write(goAway(first.get(socket)!, 0))
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
  // One before the others, which then come on a connection whose limits are known.
  await rawClient(t, proxy.port, GET).closed
  const clients = Array.from({ length: 30 }, () => rawClient(t, proxy.port, GET))
  for (const client of clients) assert.match((await client.closed).text, /^HTTP\/1\.1 200 /)
  assert.deepEqual(new Set(proxy.outcomes), new Set(['sent']))
})

test('of a connection that goes away with an error, what was looked at is not sent again', async (t) => {
  const seen: FramedRequest[] = []
  const upstream = await framedUpstream(t, (request) => {
    seen.push(request)
    // The first makes the limits known, the second is looked at, the third is not.
    if (seen.length === 1 || seen.length === 4) answer(request)
    if (seen.length === 3) request.socket.write(goAway(seen[1]!.stream, 2))
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
  await rawClient(t, proxy.port, GET).closed
  const looked = rawClient(t, proxy.port, SHAPES['a POST with a length']!)
  while (seen.length < 2) await delay(1)
  const unseen = rawClient(t, proxy.port, SHAPES['a POST with a length']!)
  assert.match((await unseen.closed).text, /^HTTP\/1\.1 200 /)
  assert.match((await looked.closed).text, /upstream_unreachable$/)
  assert.equal(seen.length, 4)
})

test('a POST that may have been looked at is not sent again, whatever error the connection goes away with', async (t) => {
  for (const code of [REFUSED, 0xb]) {
    const upstream = await framedUpstream(t, (request) => {
      // All streams, and so this one: what it comes to is not known.
      request.socket.write(goAway(0x7fff_ffff, code))
    })
    const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
    for (const shape of ['a POST with a length', 'a POST in chunks'])
      assert.match((await rawClient(t, proxy.port, SHAPES[shape]!).closed).text, /upstream_unreachable$/)
    assert.equal(upstream.requests.length, 2, `error ${code}`)
  }
})

test('an upstream that says goodbye in two steps and refuses what comes between is not dialled for ever', async (t) => {
  const upstream = await framedUpstream(t, ({ socket, stream }) =>
    socket.write(Buffer.concat([goAway(0x7fff_ffff, 0), reset(stream, REFUSED), goAway(stream, 0)])),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
  assert.match((await rawClient(t, proxy.port, GET).closed).text, /upstream_unreachable$/)
  assert.equal(upstream.requests.length, 6)
})

test('a GET whose connection ends, however it does, is sent again on another one', async (t) => {
  const ends: ((request: FramedRequest) => void)[] = [
    ({ socket }) => socket.destroy(),
    ({ socket }) => socket.resetAndDestroy(),
    // DATA of no stream: RFC 9113 §6.1 has the connection end at once.
    ({ socket }) => socket.write(data(0, 'x')),
    ({ socket }) => socket.write(goAway(0x7fff_ffff, 2)),
  ]
  for (const end of ends) {
    const upstream = await framedUpstream(t, (request) => {
      if (upstream.requests.length === 2) end(request)
      else answer(request)
    })
    const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
    for (let n = 0; n < 2; n++)
      assert.match((await rawClient(t, proxy.port, GET).closed).text, /^HTTP\/1\.1 200 /, String(end))
    assert.equal(upstream.requests.length, 3)
  }
})

test('a body of which more was sent than is kept is not sent again, one that had hardly begun is', async (t) => {
  const size = 300_000
  const bytes = `POST / HTTP/1.1\r\n${LAST}Content-Length: ${size}\r\n\r\n${'x'.repeat(size)}`
  let refuseAfter = 0
  let isRefused = false
  const upstream = await framedUpstream(t, ({ socket }) => void socket.write(windowUpdate(0, 1_000_000)), {
    window: 1_000_000,
    onFrame(request, { type, flags }) {
      if (type !== 0) return
      const received = bodyOf(request).length
      if (!isRefused && received > refuseAfter) {
        isRefused = true
        request.socket.write(reset(request.stream, REFUSED))
      } else if (flags & END_STREAM && received === size) answer(request)
    },
  })
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
  refuseAfter = 200_000
  assert.match((await rawClient(t, proxy.port, bytes).closed).text, /upstream_unreachable$/)
  assert.equal(upstream.requests.length, 1)
  isRefused = false
  refuseAfter = 0
  const client = rawClient(t, proxy.port, bytes.slice(0, -250_000))
  while (!isRefused) await delay(1)
  client.socket.write('x'.repeat(250_000))
  assert.match((await client.closed).text, /^HTTP\/1\.1 200 /)
  assert.equal(upstream.requests.length, 3)
})

test('a request whose client has left is not tried again', async (t) => {
  const upstream = await refusingUpstream(t, Number.POSITIVE_INFINITY, ({ stream }) => reset(stream, REFUSED))
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true, connections: 1 })
  const client = rawClient(t, proxy.port, SHAPES['a POST in chunks']!)
  while (upstream.requests.length < 4) await delay(1)
  client.socket.resetAndDestroy()
  while (proxy.outcomes.length === 0) await delay(1)
  const { length } = upstream.requests
  await proxy.upstreams.close()
  await delay(400)
  assert.ok(upstream.requests.length <= length + 1)
})

test('an answer that has begun is final, whatever its stream is reset with', async (t) => {
  const upstream = await framedUpstream(t, ({ socket, stream }) =>
    socket.write(Buffer.concat([head(stream, status(200)), data(stream, 'some'), reset(stream, REFUSED)])),
  )
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
  const client = rawClient(t, proxy.port, GET)
  await client.until(isWholeHead)
  assert.doesNotMatch((await client.closed).text, /\r\n0\r\n\r\n$/)
  assert.equal(upstream.requests.length, 1)
})

test('a connection whose upstream vanished without a word takes no more requests', async (t) => {
  const sockets = new Set<FramedRequest['socket']>()
  const upstream = await framedUpstream(t, (request) => {
    sockets.add(request.socket)
    if (sockets.size === 1 && upstream.requests.length > 1) request.socket.pause()
    else answer(request)
  })
  const timeout = { connectMs: 1_000, responseMs: 200, idleMs: 1_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true, timeout })
  await rawClient(t, proxy.port, GET).closed
  assert.match((await rawClient(t, proxy.port, GET).closed).text, /upstream_timeout$/)
  for (let n = 0; n < 3; n++)
    assert.match((await rawClient(t, proxy.port, GET).closed).text, /^HTTP\/1\.1 200 /)
  assert.equal(sockets.size, 2)
})
