import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { ends, isWholeHead, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'

/** An upstream that answers each request only when it is told to, oldest first. */
async function patientUpstream(t: TestContext) {
  const open = { now: 0, most: 0 }
  const asked: { target: string; begin: () => void; answer: () => void; reset: () => void }[] = []
  const upstream = await rawUpstream(t, (socket, received) => {
    const [target = ''] = received.match(/(?<=[A-Z]+ )\S+(?= HTTP)/g)?.slice(-1) ?? []
    open.most = Math.max(open.most, ++open.now)
    const answer = () => socket.write(OK, () => open.now--)
    const begin = () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n')
    asked.push({ target, begin, answer, reset: () => socket.resetAndDestroy() })
  })
  const requests = async (count: number) => {
    while (asked.length < count) await new Promise(setImmediate)
  }
  return { ...upstream, asked, requests, open }
}

test('requests beyond the connections wait their turn, in order', async (t) => {
  const upstream = await patientUpstream(t)
  const proxy = await proxyTo(t, { upstream: upstream.origin, connections: 2 })
  const clients = []
  for (let i = 0; i < 8; i++) {
    const settledOrders = Math.min(i + 1, 2)
    clients.push(rawClient(t, proxy.port, `GET /${i} HTTP/1.1\r\nHost: a\r\n\r\n`))
    await upstream.requests(settledOrders)
    while (clients.at(-1)!.socket.connecting) await new Promise(setImmediate)
  }
  for (let i = 0; i < 8; i++) {
    await upstream.requests(i + 1)
    upstream.asked[i]!.answer()
  }
  await Promise.all(clients.map((client) => client.until(ends('ok'))))
  assert.deepEqual(
    upstream.asked.map(({ target }) => target),
    Array.from({ length: 8 }, (_, i) => `/${i}`),
  )
  assert.ok(upstream.open.most <= 2)
  assert.ok(upstream.received.length <= 2, `${upstream.received.length} connections`)
})

test('no request waits for a connection longer than for an answer, and a client that leaves frees its permit', async (t) => {
  const upstream = await patientUpstream(t)
  const timeout = { connectMs: 5_000, responseMs: 10_000, idleMs: 1_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, connections: 1, timeout })
  const first = rawClient(t, proxy.port, 'GET /first HTTP/1.1\r\nHost: a\r\n\r\n')
  await upstream.requests(1)
  const settled = proxy.settled()
  const leaver = rawClient(t, proxy.port, 'GET /leaver HTTP/1.1\r\nHost: a\r\n\r\n')
  await once(leaver.socket, 'connect')
  const last = rawClient(t, proxy.port, 'GET /last HTTP/1.1\r\nHost: a\r\n\r\n')
  leaver.socket.end()
  leaver.socket.destroy()
  assert.equal(await settled, 'sent')
  upstream.asked[0]!.answer()
  await first.until(ends('ok'))
  await upstream.requests(2)
  upstream.asked[1]!.answer()
  await last.until(ends('ok'))
  assert.deepEqual(
    upstream.asked.map(({ target }) => target),
    ['/first', '/last'],
  )
})

test('a wait for a connection that is too long is a timeout, and no body was asked for', async (t) => {
  const upstream = await patientUpstream(t)
  const timeout = { connectMs: 500, responseMs: 100, idleMs: 60_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, connections: 1, timeout })
  const stream = rawClient(t, proxy.port, 'GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
  await upstream.requests(1)
  upstream.asked[0]!.begin()
  await stream.until(isWholeHead)
  const late = rawClient(
    t,
    proxy.port,
    'POST /late HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
  )
  const text = await late.until(ends('upstream_timeout'))
  assert.doesNotMatch(text, /100 Continue/)
  assert.equal(upstream.asked.length, 1)
  stream.socket.destroy()
})

test('waiting requests are refused at once when it turns out that the upstream does not answer', async (t) => {
  const upstream = await patientUpstream(t)
  const breaker = { failures: 1, pauseMs: 60_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, connections: 1, breaker })
  const first = rawClient(t, proxy.port, GET)
  await upstream.requests(1)
  const others = Array.from({ length: 20 }, () => rawClient(t, proxy.port, GET))
  for (const { socket } of others) while (socket.connecting) await new Promise(setImmediate)
  upstream.asked[0]!.reset()
  for (const client of [first, ...others]) await client.until(ends('upstream_unreachable'))
  assert.equal(upstream.asked.length, 1)
})

test('whatever becomes of requests, their places are free again', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    const what = received.match(/(?<=\/)[a-z]+(?= HTTP)/g)?.at(-1)
    if (what === 'ok') socket.write(OK)
    else if (what === 'reset') socket.resetAndDestroy()
    else if (what === 'half') socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab')
    else if (what === 'odd') socket.write('HTTP/1.1 999 Odd\r\n\r\n')
    else if (what === 'early') socket.write('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nok')
    else if (what === 'held') held++
  })
  let held = 0
  const timeout = { connectMs: 5_000, responseMs: 60_000, idleMs: 1_000 }
  const breaker = { failures: 0, pauseMs: 1 }
  const proxy = await proxyTo(t, {
    upstream: upstream.origin,
    connections: 4,
    timeout,
    breaker,
    maxBody: 100,
  })
  const kinds = ['ok', 'reset', 'half', 'odd', 'silent', 'early', 'large']
  for (let round = 0; round < 40; round++) {
    const clients = Array.from({ length: 21 }, (_, i) => {
      const kind = kinds[i % kinds.length]!
      const framing =
        kind === 'large'
          ? `Transfer-Encoding: chunked\r\n\r\n80\r\n${'x'.repeat(128)}\r\n`
          : 'Content-Length: 9\r\n\r\na'
      const method = i % 2 ? 'GET' : 'POST'
      const body = kind === 'early' || kind === 'large' ? framing : '\r\n'
      const bytes = `${method} /${kind} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${body}`
      const client = rawClient(t, proxy.port, bytes)
      if (kind === 'silent' || i % 5 === 0) setTimeout(() => client.socket.destroy(), (round * 7 + i) % 11)
      return client
    })
    for (const client of clients) await client.closed
  }
  const last = Array.from({ length: 5 }, () =>
    rawClient(t, proxy.port, 'GET /held HTTP/1.1\r\nHost: a\r\n\r\n'),
  )
  while (held < 4) await new Promise(setImmediate)
  for (let turns = 0; turns < 20; turns++) await new Promise(setImmediate)
  assert.equal(held, 4)
  for (const client of last) client.socket.destroy()
})
