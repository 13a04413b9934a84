import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { WebSocket, WebSocketServer } from 'ws'
import type { RouteConfig } from '../../../src/config/config.ts'
import { Secret } from '../../../src/config/secret.ts'
import { BffError } from '../../../src/errors.ts'
import { compileRoutes } from '../../../src/proxy/route-table.ts'
import { createTunnel, type Tunnel, type TunnelDeps } from '../../../src/proxy/tunnel.ts'
import { type BffSession, sessionHash } from '../../../src/session/bff-session.ts'
import { certificates } from './certificates.ts'
import { routeWith } from './routes.ts'
import { isWholeHead, open, type RawClient, rawClient, rawUpstream, site } from './sockets.ts'

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n`

const SESSION = {
  id: 'session-1',
  hash: sessionHash('session-1'),
  claims: { sub: 'u1' },
} as unknown as BffSession

type Listening = { port: number; tunnel: Tunnel; statuses: number[] }

/** A server with a tunnel on `/ws`; who has the cookie `cloakroom=1` is signed in. */
async function tunnelTo(
  t: TestContext,
  upstream: string,
  { route, ...deps }: Partial<TunnelDeps> & { route?: Partial<RouteConfig> } = {},
): Promise<Listening> {
  const statuses: number[] = []
  const tunnel = createTunnel({
    match: compileRoutes([
      routeWith({ path: '/ws', upstream, websocket: true, resource: 'orders', rewrite: '/v1', ...route }),
      routeWith({ path: '/api', upstream }),
    ]),
    findSession: async (req) => (req.headers.cookie?.includes('cloakroom=1') ? SESSION : undefined),
    accessToken: async (_, resource) => ({ value: `token-for-${resource}`, expiresAt: 0 }),
    clientAddress: () => '127.0.0.1',
    requestId: () => 'r-1',
    problemFor: (error) => ({
      status: 400,
      headers: error instanceof BffError ? { 'cloakroom-error': error.code, ...error.headers } : {},
      body: error instanceof BffError ? error.code : `unexpected ${error}`,
    }),
    site,
    allowedOrigins: ['http://friend.test'],
    observe: (_, status) => statuses.push(status),
    ...deps,
  })
  const server = createServer((_, res) => res.end('no upgrade'))
  server.on('upgrade', (req, socket, head) => void tunnel.upgrade(req, socket as RawClient['socket'], head))
  const port = await open(t, server)
  t.after(() => tunnel.closeAll())
  return { port, tunnel, statuses }
}

type Echo = { origin: string; server: WebSocketServer; requests: IncomingMessage[] }

async function echoUpstream(t: TestContext): Promise<Echo> {
  const server = createServer()
  const requests: IncomingMessage[] = []
  const sockets = new WebSocketServer({ server, handleProtocols: (offered) => [...offered][0] ?? false })
  sockets.on('connection', (socket, req) => {
    requests.push(req)
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  const port = await open(t, server)
  return { origin: `http://127.0.0.1:${port}`, server: sockets, requests }
}

function dial(t: TestContext, port: number, headers: Record<string, string> = {}): WebSocket {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/room?x=a//b&u=http://c`, ['chat.v1'], {
    origin: 'http://app.test',
    headers: {
      cookie: 'a=1; cloakroom=1; b=2',
      authorization: 'Bearer evil',
      'x-forwarded-for': '6.6.6.6',
      ...headers,
    },
  })
  t.after(() => socket.terminate())
  return socket
}

/** The bytes of an opening handshake; each line given replaces the one of the same name, an empty value removes it. */
function handshake(changes: Record<string, string> = {}, requestLine = 'GET /ws HTTP/1.1'): string {
  const fields: Record<string, string> = {
    Host: 'app.test',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    Origin: 'http://app.test',
    Cookie: 'cloakroom=1',
    'Sec-WebSocket-Key': KEY,
    'Sec-WebSocket-Version': '13',
    ...changes,
  }
  const lines = Object.entries(fields).filter(([, value]) => value !== '')
  return `${requestLine}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

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

const REFUSED: [what: string, code: string, bytes: string][] = [
  ['no session', 'session_required', handshake({ Cookie: '' })],
  ['no Origin', 'origin_forbidden', handshake({ Origin: '' })],
  ['a foreign Origin', 'origin_forbidden', handshake({ Origin: 'http://app.test.evil.example' })],
  ['the Origin null', 'origin_forbidden', handshake({ Origin: 'null' })],
  ['an Origin of another scheme', 'origin_forbidden', handshake({ Origin: 'https://app.test' })],
  ['a route without WebSockets', 'bad_request', handshake({}, 'GET /api HTTP/1.1')],
  ['no route', 'route_not_found', handshake({}, 'GET /other HTTP/1.1')],
  ['a path of two meanings', 'path_rejected', handshake({}, 'GET /ws/../api HTTP/1.1')],
  ['another protocol', 'bad_request', handshake({ Upgrade: 'h2c' })],
  ['two protocols', 'bad_request', handshake({ Upgrade: 'websocket, h2c' })],
  ['another version', 'bad_request', handshake({ 'Sec-WebSocket-Version': '8' })],
  ['no key', 'bad_request', handshake({ 'Sec-WebSocket-Key': '' })],
  ['a short key', 'bad_request', handshake({ 'Sec-WebSocket-Key': 'abc' })],
  ['another method', 'bad_request', handshake({}, 'POST /ws HTTP/1.1')],
  ['a body', 'bad_request', handshake({ 'Content-Length': '5' })],
]
for (const [what, code, bytes] of REFUSED) {
  test(`a handshake with ${what} is refused with ${code} and nothing is dialled`, async (t) => {
    const upstream = await rawUpstream(t, () => {})
    const { port, statuses } = await tunnelTo(t, upstream.origin)
    // A second request after the refusal must not be served on this connection.
    const client = rawClient(t, port, `${bytes}GET /ws HTTP/1.1\r\nHost: a\r\n\r\n`)
    const { text } = await client.closed
    assert.match(
      text,
      new RegExp(`^HTTP/1\\.1 400 Bad Request\\r\\n[\\s\\S]*connection: close\\r\\n[\\s\\S]*${code}$`),
    )
    assert.equal(text.split('HTTP/1.1').length, 2)
    assert.equal(upstream.received.length, 0)
    assert.deepEqual(statuses, [400])
  })
}

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

test("the upstream's refusal is passed on by the rules for responses, and the connection ends", async (t) => {
  const answer =
    'HTTP/1.1 403 Forbidden\r\nSet-Cookie: cloakroom=evil\r\nX-Why: no\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n'
  const upstream = await rawUpstream(t, (socket) => socket.write(answer))
  const { port, statuses } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, `${handshake()}GET /api HTTP/1.1\r\nHost: a\r\n\r\n`)
  const { text } = await client.closed
  assert.match(text, /^HTTP\/1\.1 403 Forbidden\r\nX-Why: no\r\n[\s\S]*\r\n\r\nnope$/)
  assert.doesNotMatch(text, /set-cookie|chunked/i)
  assert.deepEqual(statuses, [403])
  assert.equal(upstream.received.length, 1)
})

test('a refusal whose body takes longer than the answer may is passed on whole', async (t) => {
  const upstream = await rawUpstream(t, (socket) => {
    socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno')
    setTimeout(() => socket.write('pe'), 150)
  })
  const timeout = { connectMs: 100, responseMs: 100, idleMs: 1_000 }
  const { port } = await tunnelTo(t, upstream.origin, { route: { timeout } })
  assert.match((await rawClient(t, port, handshake()).closed).text, /\r\n\r\nnope$/)
})

test("the upstream's 101 keeps its fields but sets none of our cookies", async (t) => {
  const upstream = await rawUpstream(t, (socket) => {
    socket.write(
      `${SWITCHED}Set-Cookie: cloakroom=evil\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nSec-WebSocket-Protocol: p\r\n\r\n`,
    )
  })
  const { port } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, handshake())
  const head = await client.until(isWholeHead)
  assert.match(head, /^HTTP\/1\.1 101 Switching Protocols\r\n/)
  assert.match(head, /\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n/i)
  assert.match(head, /\r\nsec-websocket-protocol: p\r\n/i)
  assert.match(head, new RegExp(`sec-websocket-accept: ${ACCEPT.replace(/[+]/g, '\\+')}\r\n`, 'i'))
  assert.doesNotMatch(head, /evil/)
})

test('a 101 for another handshake opens no tunnel', async (t) => {
  const upstream = await rawUpstream(t, (socket) =>
    socket.write(`${SWITCHED.replace(ACCEPT, 'x')}\r\nsecret`),
  )
  const { port, tunnel } = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, port, handshake())
  const { text } = await client.closed
  assert.doesNotMatch(text, /101|secret/)
  assert.match(text, /upstream_unreachable$/)
  await upstream.closed[0]
  assert.equal(tunnel.count(), 0)
})

test('an upstream that is not there, or says nothing, is answered for', async (t) => {
  const silent = await rawUpstream(t, () => {})
  const timeout = { connectMs: 1_000, responseMs: 50, idleMs: 1_000 }
  const late = await tunnelTo(t, silent.origin, { route: { timeout } })
  assert.match((await rawClient(t, late.port, handshake()).closed).text, /upstream_timeout$/)
  await silent.closed[0]
  const gone = await tunnelTo(t, 'http://127.0.0.1:1')
  assert.match((await rawClient(t, gone.port, handshake()).closed).text, /upstream_unreachable$/)
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
  // The server learns of the reset in its next turn; another connection's answer comes after it.
  await rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').until((text) => text.includes('no upgrade'))
  found.resolve(SESSION)
  await rawClient(t, port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n').until((text) => text.includes('no upgrade'))
  assert.equal(upstream.received.length, 0)
})

async function openTunnel(t: TestContext) {
  const upstream = await echoUpstream(t)
  const listening = await tunnelTo(t, upstream.origin)
  const connected = once(upstream.server, 'connection') as Promise<[WebSocket]>
  const client = dial(t, listening.port)
  await once(client, 'open')
  const [far] = await connected
  assert.equal(listening.tunnel.count(), 1)
  return { ...listening, client, far }
}

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
    const closed = Promise.all([once(tunnel.client, 'close'), once(tunnel.far, 'close')])
    end(tunnel)
    await closed
    // The proxy may hear of it a turn later than both ends.
    while (tunnel.tunnel.count() > 0) await setImmediate()
  })
}

test('a tunnel ends when its session runs out, and not while the session is used', async (t) => {
  const upstream = await echoUpstream(t)
  let looks = 0
  const { port } = await tunnelTo(t, upstream.origin, {
    now: () => 1_000,
    findSession: async () => ({ ...SESSION, expiresAt: 1_010 }),
    peekSession: async () => {
      looks++
      if (looks === 1) return { ...SESSION, expiresAt: 1_020 }
      if (looks === 2) return { ...SESSION, expiresAt: 1_030 }
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
