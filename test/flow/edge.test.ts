import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { startCloakroom } from '../kit/cloakroom.ts'
import { freePort } from '../kit/ports.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const PARTNER = 'https://partner.test'

async function setUp(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const nobody = await freePort()
  const orders = { upstream: api.url, resource: 'orders' }
  const cloakroom = await startCloakroom({
    allowedOrigins: [PARTNER],
    provider: { ...provider.settings },
    resources: {
      orders: { resource: 'https://orders.test' },
      audit: { resource: 'https://audit.test', grant: 'client_credentials' },
    },
    routes: [
      { ...orders, path: '/api/orders', rewrite: '/v1', methods: ['GET', 'POST'], maxBody: '1KiB' },
      { ...orders, path: '/api/down', upstream: `http://127.0.0.1:${nobody}` },
      { ...orders, path: '/api/slow', timeout: { response: '100ms' } },
      { ...orders, path: '/ws', websocket: true },
      { ...orders, path: '/api/me', headers: { 'x-user-id': '{claims.sub}' } },
      { path: '/public', upstream: api.url, auth: 'anonymous' },
    ],
  })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn({ returnUrl: '/public' })
  return { provider, api, cloakroom, browser }
}

test('every refusal of ours is a problem with a code of the contract, a status and the same code in a header', async (t) => {
  const { browser, api } = await setUp(t)
  const before = api.requests.length
  const lines: [string, number, string, Parameters<typeof browser.fetch>[1]?][] = [
    ['/nowhere', 404, 'route_not_found'],
    ['/api/orders/1', 405, 'method_not_allowed', { method: 'DELETE' }],
    ['/api/orders/1', 403, 'csrf_required', { headers: { 'x-csrf': '' } }],
    ['/api/orders/1', 403, 'origin_forbidden', { headers: { origin: 'https://evil.test' } }],
    ['/api/orders', 413, 'body_too_large', { method: 'POST', body: 'x'.repeat(2000) }],
    ['/api/down/1', 502, 'upstream_unreachable'],
  ]
  for (const [path, status, code, options] of lines) {
    const answer = await browser.fetch(path, options)
    assert.equal(answer.status, status, code)
    assert.equal(answer.headers['cloakroom-error'], code)
    assert.equal(answer.headers['content-type'], 'application/problem+json')
    assert.equal(answer.headers['cache-control'], 'no-store')
    const { type, title, detail, request_id } = answer.json()
    assert.equal(type, `urn:problem:cloakroom:${code}`)
    for (const text of [title, detail, request_id]) assert.equal(typeof text, 'string')
  }
  assert.equal(api.requests.length, before)
})

test('an upstream that does not answer in time is upstream_timeout; its own errors pass through untouched', async (t) => {
  const { browser, api } = await setUp(t)
  api.answer.delayMs = 5_000
  api.answer.times = 1
  const slow = await browser.fetch('/api/slow')
  assert.deepEqual([slow.status, slow.json().code], [504, 'upstream_timeout'])
  Object.assign(api.answer, { status: 503, delayMs: 0, times: 1 })
  const own = await browser.fetch('/api/orders/1')
  assert.equal(own.status, 503)
  assert.equal(own.headers['cloakroom-error'], undefined)
})

test('a route rewrites its prefix, fills its headers and takes no such header from the client', async (t) => {
  const { browser } = await setUp(t)
  const rewritten = (await browser.fetch('/api/orders/42?x=1')).json()
  assert.deepEqual([rewritten.path, rewritten.query], ['/v1/42', 'x=1'])
  const headers = { 'x-user-id': 'mallory', x_user_id: 'mallory', authorization: 'Bearer evil' }
  const me = (await browser.fetch('/api/me', { headers })).json()
  assert.equal(me.headers['x-user-id'], 'alice')
  assert.equal(me.headers.x_user_id, undefined)
  assert.equal(me.headers.authorization.sub, 'alice')
  assert.equal(me.headers.cookie, undefined)
})

test('an anonymous route is reached without a session, a header or a token', async (t) => {
  const { cloakroom } = await setUp(t)
  const stranger = cloakroom.browser()
  const { status, json } = await stranger.fetch('/public/x', {
    headers: { 'x-csrf': '', authorization: 'Bearer evil' },
  })
  assert.equal(status, 200)
  assert.equal(json().headers.authorization, undefined)
})

test('CORS: an allowed origin gets an exact echo with credentials, any other nothing, and preflights need no session', async (t) => {
  const { cloakroom, api } = await setUp(t)
  const ask = (origin: string) => ({
    origin,
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'x-csrf',
  })
  const url = `${cloakroom.listenUrl}/api/orders/1`
  const seen = api.requests.length
  const allowed = await fetch(url, { method: 'OPTIONS', headers: ask(PARTNER) })
  assert.equal(allowed.status, 204)
  assert.equal(allowed.headers.get('access-control-allow-origin'), PARTNER)
  assert.equal(allowed.headers.get('access-control-allow-credentials'), 'true')
  assert.equal(allowed.headers.get('vary'), 'Origin')
  for (const origin of ['https://evil.test', 'null', `${PARTNER}.evil.test`]) {
    const refused = await fetch(url, { method: 'OPTIONS', headers: ask(origin) })
    assert.equal(refused.status, 403)
    assert.equal(refused.headers.get('access-control-allow-origin'), null)
  }
  assert.equal(api.requests.length, seen)
})

test('a WebSocket is tunnelled with its token, and ends when the session does', async (t) => {
  const { cloakroom, browser, api } = await setUp(t)
  const sockets = new WebSocketServer({ server: api.server })
  t.after(() => sockets.close())
  const handshakes: string[] = []
  sockets.on('connection', (socket, request) => {
    handshakes.push(String(request.headers.authorization), String(request.headers.cookie))
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  const url = `${cloakroom.listenUrl.replace('http', 'ws')}/ws/echo`
  const cookie = browser.cookieHeader()
  const open = (headers: Record<string, string>) => new WebSocket(url, { headers })
  for (const [headers, status] of [
    [{ cookie }, 403],
    [{ cookie, origin: 'https://evil.test' }, 403],
    [{ origin: cloakroom.publicUrl }, 401],
  ] as const) {
    const [, answer] = await once(open({ ...headers }), 'unexpected-response')
    assert.equal(answer.statusCode, status)
    assert.equal(answer.headers['content-type'], 'application/problem+json')
  }
  const socket = open({ cookie, origin: cloakroom.publicUrl })
  await once(socket, 'open')
  socket.send('hello')
  assert.equal(String((await once(socket, 'message'))[0]), 'hello')
  assert.match(handshakes[0] ?? '', /^Bearer ey/)
  assert.equal(handshakes[1], 'undefined')
  const closed = once(socket, 'close')
  await browser.fetch('/bff/logout', { method: 'POST' })
  await closed
})

test('raw requests that Node lets through are refused or made harmless', async (t) => {
  const { cloakroom, api } = await setUp(t)
  const port = Number(new URL(cloakroom.listenUrl).port)
  const before = api.requests.length
  const send = async (text: string) => {
    const socket = connect(port, '127.0.0.1')
    socket.end(text)
    let answer = ''
    for await (const chunk of socket) answer += chunk
    return answer.split('\r\n')[0] ?? ''
  }
  const targets = [
    '//evil.test/x',
    'http://evil.test/',
    '*',
    '/public/../api/orders',
    '/public\\..\\x',
    '/a#b',
    '/%00',
  ]
  for (const target of targets) {
    const line = await send(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    assert.match(line, /^HTTP\/1.1 400/, target)
  }
  assert.match(await send('TRACE /public HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'), /405/)
  assert.equal(api.requests.length, before)
})

test('the admin listener tells of probes and metrics, and of no user', async (t) => {
  const { cloakroom, browser, provider } = await setUp(t)
  await browser.fetch('/api/orders/1')
  for (const page of ['/livez', '/readyz']) assert.equal((await fetch(cloakroom.adminUrl + page)).status, 200)
  const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
  assert.match(
    metrics,
    /cloakroom_request_duration_seconds_count\{route="\/api\/orders",method="GET",status="200"\} 1/,
  )
  assert.match(metrics, /cloakroom_sessions_total\{event="started",reason="login"\} 1/)
  for (const secret of ['alice', ...provider.issuedSecrets]) assert.ok(!metrics.includes(secret))
  assert.equal((await fetch(`${cloakroom.adminUrl}/bff/user`)).status, 404)
  assert.equal((await browser.fetch('/metrics')).status, 404)
})
