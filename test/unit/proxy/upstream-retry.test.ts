import assert from 'node:assert/strict'
import { createServer as createTcpServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { open, proxyTo, rawClient } from './sockets.ts'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

/** Counts each target it was sent, and closes what idles in the moment a request may be on its way. */
async function impatientUpstream(t: TestContext, close: (socket: Socket) => void) {
  const seen = new Map<string, number>()
  const sockets = new Set<Socket>()
  const server = createTcpServer({ noDelay: true }, (socket) => {
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk) => {
      sockets.delete(socket)
      const [, target = ''] = /^\w+ (\S+) /.exec(chunk.toString('latin1')) ?? []
      seen.set(target, (seen.get(target) ?? 0) + 1)
      socket.write(OK, () => sockets.add(socket))
    })
  })
  const origin = `http://127.0.0.1:${await open(t, server)}`
  function closeIdle(): void {
    for (const socket of sockets) close(socket)
    sockets.clear()
  }
  return { origin, seen, closeIdle }
}

for (const [what, close] of [
  ['ends', (socket: Socket) => void socket.end()],
  ['resets', (socket: Socket) => void socket.resetAndDestroy()],
] as const) {
  test(`an upstream that ${what} idle connections in the moment of a request loses no GET and gets no POST twice`, async (t) => {
    const upstream = await impatientUpstream(t, close)
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const outcomes: Record<string, Record<string, number>> = { GET: {}, POST: {} }
    for (let i = 0; i < 1_000; i++) {
      const method = i % 2 ? 'POST' : 'GET'
      const length = method === 'POST' ? 'Content-Length: 1\r\n' : ''
      const body = method === 'POST' ? 'x' : ''
      const bytes = `${method} /${i} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${length}\r\n${body}`
      const client = rawClient(t, proxy.port, bytes)
      // Somewhere between the client's first byte and the upstream's last.
      for (let turns = i % 7; turns > 0; turns--) await new Promise(setImmediate)
      upstream.closeIdle()
      const { text } = await client.closed
      const status = text.slice(9, 12)
      outcomes[method]![status] = (outcomes[method]![status] ?? 0) + 1
      client.socket.destroy()
    }
    assert.deepEqual(outcomes.GET, { 200: 500 })
    for (let i = 1; i < 1_000; i += 2) assert.ok((upstream.seen.get(`/${i}`) ?? 0) <= 1, `POST /${i}`)
    const { 200: answered = 0, 500: refused = 0 } = outcomes.POST!
    assert.equal(answered + refused, 500)
    t.diagnostic(`POST: ${JSON.stringify(outcomes.POST)}`)
  })
}
