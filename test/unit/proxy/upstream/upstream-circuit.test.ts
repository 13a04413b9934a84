import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createTcpServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { systemClock } from '../../../../src/async/clock.ts'
import { ends, open, proxyTo, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const BREAKER = { failures: 3, pauseMs: 1_500 }
const QUICK = { connectMs: 5_000, responseMs: 50, idleMs: 1_000 }

/** A clock that stands still, and what a breaker told. */
function observed() {
  const clock = { ms: 0 }
  const changes: [upstream: string, isOpen: boolean][] = []
  const deps = {
    clock: { ...systemClock, monotonicNow: () => clock.ms },
    observeBreaker: (upstream: string, isOpen: boolean) => void changes.push([upstream, isOpen]),
  }
  return { clock, changes, deps }
}

async function get(t: TestContext, proxy: { port: number }, target = '/'): Promise<string> {
  const bytes = `GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`
  const client = rawClient(t, proxy.port, bytes)
  return (await client.closed).text
}

async function closedPort(t: TestContext): Promise<number> {
  const gone = createTcpServer()
  const port = await open(t, gone)
  gone.close()
  await once(gone, 'close')
  return port
}

test('the circuit of an upstream that refuses connections opens, and one probe closes it', async (t) => {
  const port = await closedPort(t)
  const { clock, changes, deps } = observed()
  const upstream = `http://127.0.0.1:${port}`
  const proxy = await proxyTo(t, { upstream, breaker: BREAKER }, {}, deps)
  for (let i = 0; i < 3; i++) assert.match(await get(t, proxy), /upstream_unreachable$/)
  assert.deepEqual(changes, [[upstream, true]])
  const asked = Promise.withResolvers<Socket>()
  let connections = 0
  const server = createTcpServer((socket) => {
    connections++
    socket.once('data', () => {
      asked.resolve(socket)
      socket.on('data', () => socket.write(OK))
    })
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  assert.match(await get(t, proxy), /\r\nretry-after: 2\r\n[\s\S]*upstream_unreachable$/)
  assert.equal(connections, 0)
  clock.ms = 1_500
  const probe = get(t, proxy)
  const socket = await asked.promise
  assert.match(await get(t, proxy), /\r\nretry-after: 2\r\n[\s\S]*upstream_unreachable$/)
  assert.equal(connections, 1)
  socket.write(OK)
  assert.match(await probe, /ok$/)
  assert.deepEqual(changes, [
    [upstream, true],
    [upstream, false],
  ])
  assert.match(await get(t, proxy), /ok$/)
  socket.destroy()
})

test('answers that do not come, and connections that die without one, count; server errors do not', async (t) => {
  for (const [what, answer, opens] of [
    ['silence', () => undefined, true],
    ['a reset', (socket: Socket) => socket.resetAndDestroy(), true],
    ['a clean end', (socket: Socket) => socket.end(), true],
    ['503', (socket: Socket) => socket.end('HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n'), false],
    ['half a body', (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab'), false],
    ['a status out of range', (socket: Socket) => socket.end('HTTP/1.1 999 Odd\r\n\r\n'), false],
  ] as const) {
    const upstream = await rawUpstream(t, answer)
    const { changes, deps } = observed()
    const parts = { upstream: upstream.origin, breaker: BREAKER, timeout: QUICK }
    const proxy = await proxyTo(t, parts, {}, deps)
    for (let i = 0; i < 4; i++) await get(t, proxy)
    assert.equal(changes.length, opens ? 1 : 0, what)
    assert.equal(upstream.received.length, opens ? 3 : 4, what)
  }
})

test('clients that leave count for nothing, and free the probe', async (t) => {
  const upstream = await rawUpstream(t, (socket) => answers && socket.write(OK))
  let answers = false
  const { clock, changes, deps } = observed()
  const breaker = { failures: 1, pauseMs: 1_000 }
  const timeout = { ...QUICK, responseMs: 1_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, breaker, timeout }, {}, deps)
  async function leave(): Promise<void> {
    const settled = proxy.settled()
    const seen = upstream.received.length
    const client = rawClient(t, proxy.port, GET)
    while (upstream.received.length === seen) await new Promise(setImmediate)
    client.socket.destroy()
    await settled
  }
  for (let i = 0; i < 3; i++) await leave()
  assert.deepEqual(changes, [])
  assert.match(await get(t, proxy), /upstream_timeout$/)
  assert.equal(changes.length, 1)
  clock.ms = 1_000
  await leave()
  answers = true
  assert.match(await get(t, proxy), /ok$/)
  assert.equal(changes.length, 2)
})

test('an idle connection that dies counts for nothing', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) =>
    received.includes('POST') ? socket.resetAndDestroy() : socket.write(OK),
  )
  const { changes, deps } = observed()
  const proxy = await proxyTo(
    t,
    { upstream: upstream.origin, breaker: { failures: 1, pauseMs: 1 } },
    {},
    deps,
  )
  const client = rawClient(t, proxy.port, GET)
  await client.until(ends('ok'))
  client.socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
  await client.until(ends('upstream_unreachable'))
  assert.deepEqual(changes, [])
})

test('a body that is too large, and one that its client breaks off, count for nothing', async (t) => {
  const upstream = await rawUpstream(t, () => undefined)
  const { changes, deps } = observed()
  const breaker = { failures: 1, pauseMs: 1 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, breaker, maxBody: 4 }, {}, deps)
  const head = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'
  await rawClient(t, proxy.port, `${head}5\r\nabcde\r\n`).closed
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, `${head}1\r\na\r\n`)
  while (upstream.received.length < 2) await new Promise(setImmediate)
  client.socket.destroy()
  await settled
  assert.deepEqual(changes, [])
})

test('no body is asked for while the circuit is open', async (t) => {
  const { deps } = observed()
  const upstream = `http://127.0.0.1:${await closedPort(t)}`
  const proxy = await proxyTo(t, { upstream, breaker: { failures: 1, pauseMs: 1_000 } }, {}, deps)
  await get(t, proxy)
  const client = rawClient(
    t,
    proxy.port,
    'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
  )
  const text = await client.until(ends('upstream_unreachable'))
  assert.doesNotMatch(text, /100 Continue/)
})

for (const [what, attack] of [
  ['is slow', () => undefined],
  ['cuts its connections', (socket: Socket) => socket.resetAndDestroy()],
] as const) {
  test(`one endpoint that ${what} takes the upstream away from no other`, async (t) => {
    const upstream = await rawUpstream(t, (socket, received) => {
      if (received.includes('/attack')) attack(socket)
      else socket.write(OK)
    })
    const { clock, changes, deps } = observed()
    const timeout = { ...QUICK, responseMs: 1_000 }
    const parts = { upstream: upstream.origin, breaker: BREAKER, timeout }
    const proxy = await proxyTo(t, parts, {}, deps)
    assert.match(await get(t, proxy, '/ok'), /ok$/)
    for (let round = 0; round < 3; round++) {
      const burst = Array.from({ length: 10 }, () => get(t, proxy, '/attack'))
      const others = Array.from({ length: 3 }, () => get(t, proxy, '/ok'))
      for (const text of await Promise.all(others)) assert.match(text, /ok$/)
      await Promise.all(burst)
      clock.ms += 1_000
    }
    assert.deepEqual(changes, [])
  })
}

test('a probe that gets no answer stands in the way no longer than the pause', async (t) => {
  let isHanging = false
  const upstream = await rawUpstream(t, (socket, received) => {
    if (!isHanging) socket.resetAndDestroy()
    else if (received.includes('/ok')) socket.write(OK)
  })
  const { clock, changes, deps } = observed()
  const breaker = { failures: 1, pauseMs: 1_000 }
  const proxy = await proxyTo(t, { upstream: upstream.origin, breaker }, {}, deps)
  await get(t, proxy)
  assert.equal(changes.length, 1)
  isHanging = true
  clock.ms = 1_000
  rawClient(t, proxy.port, GET)
  while (upstream.received.length < 2) await new Promise(setImmediate)
  assert.match(await get(t, proxy, '/ok'), /upstream_unreachable$/)
  clock.ms = 2_000
  assert.match(await get(t, proxy, '/ok'), /ok$/)
  assert.equal(changes.length, 2)
})
