import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import {
  data,
  type FramedRequest,
  framedUpstream,
  goAway,
  head,
  literal,
  reset,
  status,
  windowUpdate,
} from '../../../kit/upstream/http2-frames.ts'
import { answerWith, http2Upstream } from '../../../kit/upstream/http2-kit.ts'
import { type ProxyProcess, proxyProcess } from '../../../kit/upstream/proxy-process.ts'
import { rawClient } from '../../../kit/upstream/sockets.ts'

/*
 * A stream whose last bytes are queued must be reset before it is given up, or nghttp2 asks for them for ever and the
 * process never runs another line. Each proxy here therefore has a process of its own.
 */

const TIMEOUT = { connectMs: 5_000, responseMs: 5_000, idleMs: 5_000 }
const LIMITED = {
  maxBody: 20_480,
  timeout: TIMEOUT,
  breaker: { failures: 0, pauseMs: 1_000 },
}
const CHUNKED = 'Transfer-Encoding: chunked\r\n'
const chunk = (bytes: number) => `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`
const post = (fields: string, body: string) => `POST / HTTP/1.1\r\nHost: a\r\n${fields}\r\n${body}`
const TOO_MUCH = 0x6000

type Shape = [what: string, packets: (string | number)[]]

/** Strings are packets, numbers milliseconds between them. */
const TOO_LARGE: Shape[] = [
  ['in one packet', [post(CHUNKED, `${chunk(TOO_MUCH)}0\r\n\r\n`)]],
  ['in one packet of two chunks', [post(CHUNKED, `${chunk(100)}${chunk(TOO_MUCH)}0\r\n\r\n`)]],
  ['in one packet of many chunks', [post(CHUNKED, `${chunk(1_000).repeat(25)}0\r\n\r\n`)]],
  ['in one packet without an end', [post(CHUNKED, chunk(TOO_MUCH))]],
  ['in one packet with trailers', [post(CHUNKED, `${chunk(TOO_MUCH)}0\r\nX-A: b\r\n\r\n`)]],
  ['behind its head', [post(CHUNKED, ''), 100, `${chunk(TOO_MUCH)}0\r\n\r\n`]],
  ['behind its first byte, at once', [post(CHUNKED, chunk(1)), 0, `${chunk(TOO_MUCH)}0\r\n\r\n`]],
  ['behind its first byte, later', [post(CHUNKED, chunk(1)), 100, `${chunk(TOO_MUCH)}0\r\n\r\n`]],
  ['in several packets', [post(CHUNKED, ''), ...Array.from({ length: 30 }, () => [chunk(1_000), 5]).flat()]],
  ['asked for with 100 Continue', [post(`${CHUNKED}Expect: 100-continue\r\n`, ''), 100, chunk(TOO_MUCH)]],
  ['announced', [post(`Content-Length: ${TOO_MUCH}\r\n`, 'x'.repeat(TOO_MUCH))]],
]

async function play(t: TestContext, { port }: ProxyProcess, packets: Shape[1]) {
  const client = rawClient(t, port, '')
  client.socket.setNoDelay(true)
  for (const packet of packets) {
    if (typeof packet === 'number') await delay(packet)
    else if (client.socket.writable) client.socket.write(packet)
  }
  return client
}

for (const isWarm of [false, true]) {
  const connection = isWarm ? 'a connection in use' : 'a new connection'
  test(`a body over the limit on ${connection} is refused, whatever its packets, and the process goes on`, async (t) => {
    const upstream = await http2Upstream(t, answerWith(200, {}, 'ok'))
    const proxy = await proxyProcess(t, { ...upstream.route, ...LIMITED })
    for (const [what, packets] of TOO_LARGE) {
      if (isWarm) await proxy.requireAlive('/')
      else for (const session of upstream.sessions) session.destroy()
      const client = await play(t, proxy, packets)
      assert.match(await client.until((text) => text.includes('body_too_large')), /^HTTP\/1\.1 /, what)
      assert.match(await proxy.requireAlive('/'), /^HTTP\/1\.1 200 /, what)
    }
  })
}

test('a client that leaves in mid-upload leaves no request hanging, whatever it has sent', async (t) => {
  const upstream = await http2Upstream(t, answerWith(200, {}, 'ok'))
  const proxy = await proxyProcess(t, { ...upstream.route, ...LIMITED, maxBody: undefined })
  await proxy.requireAlive('/')
  for (const size of [0, 1, 100, 65_536, 300_000]) {
    for (const leave of ['resetAndDestroy', 'end', 'destroy'] as const) {
      for (const waitMs of [-1, 0, 2, 30]) {
        const client = rawClient(t, proxy.port, post('Content-Length: 1000000\r\n', 'x'.repeat(size)))
        if (waitMs >= 0) await delay(waitMs)
        if (leave === 'end') client.socket.end()
        else client.socket[leave]()
      }
    }
    assert.match(await proxy.requireAlive('/'), /^HTTP\/1\.1 200 /, `${size} bytes`)
  }
})

test('a client that leaves in the tick of its last bytes leaves no request hanging', async (t) => {
  const upstream = await http2Upstream(t, answerWith(200, {}, 'ok'))
  const proxy = await proxyProcess(t, { ...upstream.route, ...LIMITED, maxBody: undefined })
  await proxy.requireAlive('/')
  // Reads of the proxy are 64 KiB: of exactly so much, the end of the connection is seen in the same turn.
  for (const size of [65_536, 131_072, 100]) {
    const client = rawClient(t, proxy.port, post('Content-Length: 1000000\r\n', 'x'))
    await delay(50)
    proxy.block(150)
    await delay(50)
    client.socket.end('x'.repeat(size))
    assert.match(await proxy.requireAlive('/'), /^HTTP\/1\.1 200 /, `${size} bytes`)
  }
})

const ANSWERS: [what: string, say: (request: FramedRequest) => Buffer][] = [
  [
    'more than its length',
    ({ stream }) =>
      Buffer.concat([
        head(stream, Buffer.concat([status(200), literal('content-length', '1')])),
        data(stream, 'more'),
      ]),
  ],
  [
    'less than its length',
    ({ stream }) =>
      Buffer.concat([
        head(stream, Buffer.concat([status(200), literal('content-length', '9')])),
        data(stream, 'less', { isLast: true }),
      ]),
  ],
  ['a status that may not be', ({ stream }) => head(stream, status(600))],
  [
    'another transfer coding',
    ({ stream }) => head(stream, Buffer.concat([status(200), literal('transfer-encoding', 'gzip')])),
  ],
  [
    'an answer before the end of the upload',
    ({ stream }) => Buffer.concat([head(stream, status(413)), data(stream, 'no', { isLast: true })]),
  ],
  [
    'half an answer and NO_ERROR',
    ({ stream }) => Buffer.concat([head(stream, status(200)), data(stream, 'half'), reset(stream, 0)]),
  ],
  ['NO_ERROR', ({ stream }) => reset(stream, 0)],
  ['CANCEL', ({ stream }) => reset(stream, 8)],
  ['REFUSED_STREAM', ({ stream }) => reset(stream, 7)],
  ['that it goes away, and did not see the request', () => goAway(0, 0)],
  ['that it goes away, because of an error', ({ stream }) => goAway(stream, 2)],
  [
    'data behind 204',
    ({ stream }) => Buffer.concat([head(stream, status(204)), data(stream, 'no', { isLast: true })]),
  ],
]
/** An upstream that takes ten bytes of a body before it says more; what has no body it answers with 204. */
function unwillingUpstream(t: TestContext) {
  const answer = ({ hasBody, socket, stream }: FramedRequest) =>
    hasBody || socket.write(head(stream, status(204), { isLast: true }))
  return framedUpstream(t, answer, { window: 10 })
}

/** Sends a body that waits for its upstream's window; resolves with both ends of it. */
async function pendingBody(
  t: TestContext,
  proxy: ProxyProcess,
  { requests, isWhole }: { requests: FramedRequest[]; isWhole: boolean },
) {
  const fields = isWhole ? 'Content-Length: 1000\r\n' : CHUNKED
  const client = rawClient(t, proxy.port, post(fields, isWhole ? 'x'.repeat(1_000) : chunk(1_000)))
  while (!requests.at(-1)!.frames.some(({ type }) => type === 0)) await delay(5)
  return { client, request: requests.at(-1)! }
}

/** Now the rest of the body would be asked for. */
async function openWindow({ socket, stream }: FramedRequest): Promise<void> {
  await delay(50)
  if (socket.writable) socket.write(Buffer.concat([windowUpdate(0, 99_999), windowUpdate(stream, 99_999)]))
  await delay(50)
}

for (const isWhole of [false, true]) {
  test(`${isWhole ? 'a whole body' : 'a body'} that waits for its upstream's window leaves no request hanging, whatever the upstream says`, async (t) => {
    const { origin, requests } = await unwillingUpstream(t)
    const proxy = await proxyProcess(t, { upstream: origin, http2: true, ...LIMITED })
    for (const [what, say] of ANSWERS) {
      await proxy.requireAlive('/')
      const { client, request } = await pendingBody(t, proxy, { requests, isWhole })
      request.socket.write(say(request))
      await openWindow(request)
      assert.match(await proxy.requireAlive('/'), /^HTTP\/1\.1 204 /, what)
      client.socket.destroy()
    }
  })
}

type Parts = { proxy: ProxyProcess; client: ReturnType<typeof rawClient> }
type GiveUp = {
  what: string
  giveUp: (parts: Parts) => unknown
  timeout?: Partial<typeof TIMEOUT>
  /** Only of a body that is not whole yet. */
  isPartial?: true
  /** It ends everything. */
  isLast?: true
}
const answered = ({ client }: Parts) => client.until((text) => text.includes('upstream_timeout'))
const GIVE_UPS: GiveUp[] = [
  { what: 'timeout.response', giveUp: answered, timeout: { responseMs: 300 } },
  { what: 'timeout.idle', giveUp: ({ client }) => client.closed, timeout: { idleMs: 300 }, isPartial: true },
  { what: 'its client, who leaves,', giveUp: ({ client }) => client.socket.resetAndDestroy() },
  { what: 'its size', giveUp: ({ client }) => client.socket.write(chunk(TOO_MUCH)), isPartial: true },
  { what: 'a broken chunk', giveUp: ({ client }) => client.socket.write('zz\r\n'), isPartial: true },
  { what: 'the end of this replica', giveUp: ({ proxy }) => proxy.destroy(), isLast: true },
]
for (const { what, giveUp, timeout, isPartial = false, isLast = false } of GIVE_UPS) {
  for (const isWhole of isPartial ? [false] : [false, true]) {
    const body = isWhole ? 'a whole body' : 'a body'
    test(`${body} that waits for its upstream's window is taken back when ${what} ends it`, async (t) => {
      const { origin, requests } = await unwillingUpstream(t)
      const route = { upstream: origin, http2: true, ...LIMITED, timeout: { ...TIMEOUT, ...timeout } }
      const proxy = await proxyProcess(t, route)
      await proxy.requireAlive('/')
      const { client, request } = await pendingBody(t, proxy, { requests, isWhole })
      await giveUp({ proxy, client })
      await openWindow(request)
      // Without connections the answer is ours.
      assert.match(await proxy.requireAlive('/'), isLast ? /^HTTP\/1\.1 500 / : /^HTTP\/1\.1 204 /)
      if (!isLast)
        assert.ok(
          request.frames.some(({ type }) => type === 3),
          'no RST_STREAM',
        )
    })
  }
}
