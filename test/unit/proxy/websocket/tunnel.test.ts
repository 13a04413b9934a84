import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createTlsServer } from 'node:https'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { WebSocketServer } from 'ws'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { type BffSession, sessionHash } from '../../../../src/session/session.ts'
import { certificates } from '../../../kit/upstream/certificates.ts'
import { open, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'

import {
  dial,
  echoUpstream,
  handshake,
  openTunnel,
  SESSION,
  SWITCHED,
  tunnelTo,
} from '../../../kit/upstream/tunnel-kit.ts'

test('messages cross both ways, and the upstream sees the token and none of our cookies', async (t) => {
  const upstream = await echoUpstream(t)
  const { port, statuses } = await tunnelTo(t, upstream.origin)
  const client = dial(t, port)
  await once(client, 'open')
  client.send('hello')
  const [message] = await once(client, 'message')
  assert.equal(String(message), 'hello')
  assert.equal(client.protocol, 'chat.v1')
  const [request] = upstream.requests
  assert.equal(request!.url, '/v1/room?x=a//b&u=http://c')
  assert.equal(request!.headers.authorization, 'Bearer token-for-orders')
  assert.equal(request!.headers.cookie, 'a=1; b=2')
  assert.equal(request!.headers.host, upstream.origin.slice(7))
  assert.equal(request!.headers['x-forwarded-for'], '127.0.0.1')
  assert.equal(request!.headers.origin, 'http://app.test')
  assert.deepEqual(statuses, [101])
})

test('the upstream is told the claims that the renewal of its own token brought', async (t) => {
  const upstream = await echoUpstream(t)
  let role = 'admin'
  const { port } = await tunnelTo(t, upstream.origin, {
    route: { headers: [{ name: 'x-role', value: '{claims.role}' }] },
    findSession: async () => ({ ...SESSION, claims: { ...SESSION.claims, role } }),
    async accessToken() {
      role = 'reader'
      return { value: 'at-2', expiresAt: 0, renewAt: 0 }
    },
  })
  await once(dial(t, port), 'open')
  assert.equal(upstream.requests[0]!.headers['x-role'], 'reader')
})

test('ten thousand messages arrive in order', async (t) => {
  const upstream = await echoUpstream(t)
  const { port } = await tunnelTo(t, upstream.origin)
  const client = dial(t, port)
  await once(client, 'open')
  const received: string[] = []
  const all = new Promise<void>((resolve) => {
    client.on('message', (data) => received.push(String(data)) === 10_000 && resolve())
  })
  for (let n = 0; n < 10_000; n++) client.send(String(n))
  await all
  assert.deepEqual(
    received,
    Array.from({ length: 10_000 }, (_, n) => String(n)),
  )
})

test('bytes sent right after the handshake arrive once, both ways', async (t) => {
  const upstream = await rawUpstream(t, (socket, received) => {
    if (received.endsWith('\r\n\r\n')) socket.write(`${SWITCHED}\r\nearly`)
    if (received.endsWith('first')) socket.write('answer')
  })
  const { port } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, `${handshake()}first`)
  assert.match(await client.until((text) => text.endsWith('answer')), /\r\n\r\nearlyanswer$/)
  assert.equal(upstream.received[0]!.split('first').length, 2)
})

test('a tunnel is secured like any request to its upstream', async (t) => {
  const { ca, server, client } = certificates
  const upstream = createTlsServer({ ...server, ca, requestCert: true })
  new WebSocketServer({ server: upstream }).on('connection', (socket) => socket.send('secured'))
  const origin = `https://localhost:${await open(t, upstream)}`
  const key = new Secret(client.key)
  const tls = { ca, servername: 'orders.internal', cert: client.cert, key }
  const known = await tunnelTo(t, origin, { route: { tls } })
  const [message] = await once(dial(t, known.port), 'message')
  assert.equal(String(message), 'secured')
  const unknown = await tunnelTo(t, origin, {
    route: { tls: { ca, servername: 'billing.internal', cert: client.cert, key } },
  })
  assert.match((await rawClient(t, unknown.port, handshake()).closed).text, /upstream_unreachable$/)
})

test('an allowed origin may open a tunnel', async (t) => {
  const upstream = await echoUpstream(t)
  const { port } = await tunnelTo(t, upstream.origin)
  const client = dial(t, port, { origin: 'http://friend.test' })
  await once(client, 'open')
})

test('an anonymous route asks for no session and sends no token', async (t) => {
  const upstream = await echoUpstream(t)
  const findSession = () => assert.fail('looked up a session')
  const { port } = await tunnelTo(t, upstream.origin, {
    findSession,
    route: { auth: 'anonymous', resource: undefined },
  })
  const client = dial(t, port)
  await once(client, 'open')
  assert.equal(upstream.requests[0]!.headers.authorization, undefined)
})

test('a client that resets while its session is looked up ends nothing but itself', async (t) => {
  const upstream = await rawUpstream(t, () => {})
  const looked = Promise.withResolvers<void>()
  const found = Promise.withResolvers<BffSession>()
  const { port } = await tunnelTo(t, upstream.origin, {
    findSession: () => {
      looked.resolve()
      return found.promise
    },
  })
  const client = rawClient(t, port, handshake())
  await looked.promise
  client.socket.resetAndDestroy()
  await client.closed
  // The server learns of the reset in its next event loop turn, and answers another connection after that.
  await rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').until((text) => text.includes('no upgrade'))
  found.resolve(SESSION)
  await rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').until((text) => text.includes('no upgrade'))
  assert.equal(upstream.received.length, 0)
})

for (const [what, end] of [
  ['the end of its session', ({ tunnel }) => tunnel.endSession(SESSION.hash)],
  ['shutdown', ({ tunnel }) => tunnel.closeAll()],
  ['a reset of the client', ({ client }) => client.terminate()],
  ['a reset of the upstream', ({ far }) => far.terminate()],
  ['a clean close by the client', ({ client }) => client.close()],
  ['a clean close by the upstream', ({ far }) => far.close()],
] as [string, (tunnel: Awaited<ReturnType<typeof openTunnel>>) => void][]) {
  test(`${what} closes both sockets of a tunnel`, async (t) => {
    const tunnel = await openTunnel(t)
    assert.equal(tunnel.tunnel.count(), 1)
    const closed = Promise.all([once(tunnel.client, 'close'), once(tunnel.far, 'close')])
    end(tunnel)
    await closed
    // The proxy may hear of it one event loop turn later than both ends.
    while (tunnel.tunnel.count() > 0) await setImmediate()
  })
}

test('a tunnel ends when its session runs out, and not while the session is used', async (t) => {
  const upstream = await echoUpstream(t)
  let looks = 0
  const { port } = await tunnelTo(t, upstream.origin, {
    findSession: async () => ({ ...SESSION, expiresAt: 1_010 }),
    timeLeft: async () => {
      looks++
      if (looks === 1) return 20
      if (looks === 2) return 30
      return undefined
    },
  })
  await once(dial(t, port), 'close')
  assert.equal(looks, 3)
})

test("another session's end leaves a tunnel open", async (t) => {
  const { tunnel, client } = await openTunnel(t)
  tunnel.endSession(sessionHash('session-2'))
  client.send('still here')
  const [message] = await once(client, 'message')
  assert.equal(String(message), 'still here')
})

test('after shutdown no tunnel opens', async (t) => {
  const upstream = await rawUpstream(t, () => {})
  const { port, tunnel } = await tunnelTo(t, upstream.origin)
  tunnel.closeAll()
  const client = rawClient(t, port, handshake())
  assert.match((await client.closed).text, /upstream_unreachable$/)
  assert.equal(upstream.received.length, 0)
})
