import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import request from 'supertest'
import { WebSocket, WebSocketServer } from 'ws'
import { type Method, scriptOf } from '../kit/browsers/script.ts'
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
  return { provider, api, cloakroom, browser, ask: scriptOf(cloakroom, browser) }
}

test('every refusal of ours is a problem with a code of the contract, a status and the same code in a header', async (t) => {
  const { ask, api } = await setUp(t)
  const before = api.requests.length
  type Line = [method: Method, path: string, status: number, code: string, more?: Record<string, string>]
  const lines: Line[] = [
    ['GET', '/nowhere', 404, 'route_not_found'],
    ['DELETE', '/api/orders/1', 405, 'method_not_allowed'],
    ['GET', '/api/orders/1', 403, 'csrf_required', { 'x-csrf': '' }],
    ['GET', '/api/orders/1', 403, 'origin_forbidden', { origin: 'https://evil.test' }],
    ['POST', '/api/orders', 413, 'body_too_large'],
    ['GET', '/api/down/1', 502, 'upstream_unreachable'],
  ]
  for (const [method, path, status, code, headers] of lines) {
    const { body } = await ask(method, path, headers)
      .send(method === 'POST' ? 'x'.repeat(2000) : undefined)
      .expect(status)
      .expect('cloakroom-error', code)
      .expect('content-type', 'application/problem+json')
      .expect('cache-control', 'no-store')
    const { type, title, detail, request_id } = body
    assert.equal(type, `urn:problem:cloakroom:${code}`)
    for (const text of [title, detail, request_id]) assert.equal(typeof text, 'string')
  }
  assert.equal(api.requests.length, before)
})

test('an upstream that does not answer in time is upstream_timeout; its own errors pass through untouched', async (t) => {
  const { ask, api } = await setUp(t)
  api.answer.delayMs = 5_000
  api.answer.times = 1
  const slow = await ask('GET', '/api/slow').expect(504)
  assert.equal(slow.body.code, 'upstream_timeout')
  Object.assign(api.answer, { status: 503, delayMs: 0, times: 1 })
  const own = await ask('GET', '/api/orders/1').expect(503)
  assert.equal(own.headers['cloakroom-error'], undefined)
})

test('a route rewrites its prefix, fills its headers and takes no such header from the client', async (t) => {
  const { ask } = await setUp(t)
  const { body: rewritten } = await ask('GET', '/api/orders/42?x=1')
  assert.deepEqual([rewritten.path, rewritten.query], ['/v1/42', 'x=1'])
  const headers = { 'x-user-id': 'mallory', x_user_id: 'mallory', authorization: 'Bearer evil' }
  const { body: me } = await ask('GET', '/api/me', headers)
  assert.equal(me.headers['x-user-id'], 'alice')
  assert.equal(me.headers.x_user_id, undefined)
  assert.equal(me.headers.authorization.sub, 'alice')
  assert.equal(me.headers.cookie, undefined)
})

test('an anonymous route is reached without a session, a header or a token', async (t) => {
  const { cloakroom } = await setUp(t)
  const stranger = scriptOf(cloakroom)
  const { body } = await stranger('GET', '/public/x', { 'x-csrf': '', authorization: 'Bearer evil' }).expect(
    200,
  )
  assert.equal(body.headers.authorization, undefined)
})

test('the log has the path of a request, and neither its query nor a body', async (t) => {
  const { ask, api, cloakroom } = await setUp(t)
  api.answer.headers = { 'x-answer': 'answer-4711' }
  await ask('POST', '/api/orders/logged?q=query-4711').send('body-4711').expect(200)
  await ask('DELETE', '/api/orders/refused?q=query-4711').expect(405)
  const log = cloakroom.logs.join('\n')
  for (const path of ['logged', 'refused']) assert.match(log, new RegExp(`"path":"/api/orders/${path}"`))
  assert.doesNotMatch(log, /4711/)
})

test('CORS: an allowed origin gets an exact echo with credentials, any other nothing, and preflights need no session', async (t) => {
  const { cloakroom, api } = await setUp(t)
  const preflight = (origin: string) =>
    request(cloakroom.listenUrl)
      .options('/api/orders/1')
      .set({ origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'x-csrf' })
  const seen = api.requests.length
  await preflight(PARTNER)
    .expect(204)
    .expect('access-control-allow-origin', PARTNER)
    .expect('access-control-allow-credentials', 'true')
    .expect('vary', 'Origin')
  for (const origin of ['https://evil.test', 'null', `${PARTNER}.evil.test`]) {
    const refused = await preflight(origin).expect(403)
    assert.equal(refused.headers['access-control-allow-origin'], undefined)
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
  const { cloakroom, ask, provider } = await setUp(t)
  const admin = request(cloakroom.adminUrl)
  await ask('GET', '/api/orders/1')
  for (const page of ['/livez', '/readyz']) await admin.get(page).expect(200)
  const { text: metrics } = await admin.get('/metrics')
  assert.match(
    metrics,
    /cloakroom_request_duration_seconds_count\{route="\/api\/orders",method="GET",status="200",code="none"\} 1/,
  )
  assert.match(metrics, /cloakroom_sessions_total\{event="started",reason="login"\} 1/)
  for (const secret of ['alice', ...provider.issuedSecrets]) assert.ok(!metrics.includes(secret))
  await admin.get('/bff/user').expect(404)
  await ask('GET', '/metrics').expect(404)
})
