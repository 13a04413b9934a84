import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { type BffSession, sessionHash } from '../../../../src/session/session.ts'
import { isWholeHead, type RawClient, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'
import { handshake, SESSION, SWITCHED, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

const OTHER = { ...SESSION, hash: sessionHash('session-2') } as BffSession
const timeout = { connectMs: 1_000, responseMs: 100, idleMs: 60_000 }

test('one WebSocket more than a session may have is refused with 429, until one of them closes', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port, tunnel } = await tunnelTo(t, upstream.origin, {
    limits: { webSocketsPerSession: 2, webSocketsPerClient: 100 },
    findSession: async (req) => (req.headers.cookie === 'other=1' ? OTHER : SESSION),
  })
  const opened = async (headers = {}): Promise<RawClient> => {
    const client = rawClient(t, port, handshake(headers))
    assert.match(await client.until(isWholeHead), /^HTTP\/1\.1 101 /)
    return client
  }
  const [first] = await Promise.all([opened(), opened()])
  assert.match((await rawClient(t, port, handshake()).closed).text, /rate_limited$/)
  assert.equal(upstream.received.length, 2, 'nothing is dialled for the third')
  await opened({ Cookie: 'other=1' })
  first.socket.destroy()
  while (tunnel.count() > 2) await setImmediate()
  await opened()
})

test('an address without a session has so many WebSockets, whatever its connections, and others have theirs', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  for (const auth of ['anonymous', 'optional'] as const) {
    const { port, tunnel } = await tunnelTo(t, upstream.origin, {
      limits: { webSocketsPerSession: 100, webSocketsPerClient: 2 },
      clientOf: (req) => String(req.headers['x-from']),
      route: { auth },
    })
    const from = (address: string, fields = {}) =>
      rawClient(t, port, handshake({ 'X-From': address, Cookie: '', ...fields }))
    const opened = async (client: RawClient) => {
      assert.match(await client.until(isWholeHead), /^HTTP\/1\.1 101 /)
      return client
    }
    const [first] = await Promise.all([opened(from('a')), opened(from('a'))])
    assert.match((await from('a').closed).text, /rate_limited$/)
    await opened(from('b'))
    if (auth === 'optional') await opened(from('a', { Cookie: 'cloakroom=1' }))
    const open = tunnel.count()
    first.socket.destroy()
    while (tunnel.count() === open) await setImmediate()
    await opened(from('a'))
  }
})

test('handshakes that come at the same time share one limit', async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin, {
    limits: { webSocketsPerSession: 3, webSocketsPerClient: 100 },
  })
  const clients = Array.from({ length: 20 }, () => rawClient(t, port, handshake()))
  const heads = await Promise.all(clients.map((client) => client.until(isWholeHead)))
  assert.equal(heads.filter((head) => head.startsWith('HTTP/1.1 101 ')).length, 3)
})

const FAILURES: Record<string, (socket: Socket) => void> = {
  'that resets': (socket) => socket.resetAndDestroy(),
  'that hangs up': (socket) => socket.end(),
  'that says nothing': () => {},
  'that refuses': (socket) => socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n'),
  'that answers for another handshake': (socket) => socket.write(`${SWITCHED.replace('s3p', 'x')}\r\n`),
  'that speaks no HTTP': (socket) => socket.write('\0\0\0\0'),
}
for (const [what, answer] of Object.entries(FAILURES))
  test(`an upstream ${what} counts against the limit no longer than its handshake`, async (t) => {
    const upstream = await rawUpstream(t, answer)
    const { port, tunnel } = await tunnelTo(t, upstream.origin, {
      limits: { webSocketsPerSession: 1, webSocketsPerClient: 100 },
      route: { timeout },
    })
    for (let attempt = 0; attempt < 3; attempt++) {
      const { text } = await rawClient(t, port, handshake()).closed
      assert.doesNotMatch(text, /rate_limited/)
      while (tunnel.count() > 0) await setImmediate()
    }
    assert.equal(upstream.received.length, 3)
  })

test('a client that resets while the upstream is dialled counts against the limit no longer than it', async (t) => {
  const dialled: (() => void)[] = []
  const upstream = await rawUpstream(t, () => dialled.shift()?.())
  const { port, tunnel } = await tunnelTo(t, upstream.origin, {
    limits: { webSocketsPerSession: 1, webSocketsPerClient: 100 },
  })
  for (let attempt = 0; attempt < 3; attempt++) {
    const dial = new Promise<void>((resolve) => dialled.push(resolve))
    const client = rawClient(t, port, handshake())
    await dial
    client.socket.resetAndDestroy()
    await upstream.closed[attempt]
    while (tunnel.count() > 0) await setImmediate()
  }
})

test('the system probes both connections of a silent tunnel within 30 s', {
  skip: process.platform !== 'linux' && 'NOT RUN: reads /proc/net/tcp',
}, async (t) => {
  const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
  const { port } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, handshake())
  await client.until(isWholeHead)
  const upstreamPort = Number(new URL(upstream.origin).port)
  assert.ok(keepAliveOf((local, remote) => local === port && remote === client.socket.localPort) <= 3_000)
  assert.ok(keepAliveOf((_, remote) => remote === upstreamPort) <= 3_000)
  client.socket.destroy()
  await once(client.socket, 'close')
})

/** Hundredths of a second until the keep-alive timer of the connection fires; infinite without one. */
function keepAliveOf(isIt: (localPort: number, remotePort: number) => boolean): number {
  const portOf = (address: string) => Number.parseInt(address.split(':')[1]!, 16)
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1, -1)) {
    const [, local, remote, , , timer] = line.trim().split(/\s+/) as string[]
    if (!isIt(portOf(local!), portOf(remote!))) continue
    const [kind, remaining] = timer!.split(':')
    return kind === '02' ? Number.parseInt(remaining!, 16) : Number.POSITIVE_INFINITY
  }
  return Number.POSITIVE_INFINITY
}
