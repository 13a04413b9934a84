import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { startLocalServer } from '../kit/local-server.ts'
import { freePort } from '../kit/ports.ts'
import { assertLogTells } from '../kit/problem-in-log.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream, type Upstream } from '../kit/upstream/upstream.ts'

const PARTNER = 'https://partner.test'
const TRACE = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const CONTEXT = { traceparent: TRACE, tracestate: 'rojo=00f067aa0ba902b7', baggage: 'tenant=1' }
const OWN_ID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/

/** `trusting` has the peer of every test in `trustProxy`, `plain` has no trusted proxy. */
describe('the request id and the trace context', () => {
  let trusting: RunningCloakroom
  let plain: RunningCloakroom
  let api: Upstream
  const sockets = new WebSocketServer({ noServer: true })
  const closers: (() => unknown)[] = []

  before(async () => {
    const provider = await startRotatingProvider()
    api = await startUpstream()
    const chat = await startLocalServer((_req, res) => void res.writeHead(403).end())
    chat.server.on('upgrade', (req, socket, head) => {
      if (req.url?.includes('refused')) socket.end('HTTP/1.1 403 Forbidden\r\nX-Request-Id: theirs\r\n\r\n')
      else sockets.handleUpgrade(req, socket, head, () => undefined)
    })
    const config = {
      allowedOrigins: [PARTNER],
      provider: { ...provider.settings },
      resources: { orders: { resource: 'https://orders.test' } },
      routes: [
        { path: '/api', upstream: api.url, resource: 'orders' },
        { path: '/public', upstream: api.url, auth: 'anonymous' },
        { path: '/down', upstream: `http://127.0.0.1:${await freePort()}`, auth: 'anonymous' },
        { path: '/ws', upstream: chat.origin, auth: 'anonymous', websocket: true },
      ],
    }
    plain = await startCloakroom(config)
    trusting = await startCloakroom({ ...config, trustProxy: ['127.0.0.1'] })
    closers.push(
      () => plain.close(),
      () => trusting.close(),
      () => sockets.close(),
    )
    closers.push(
      () => chat.close(),
      () => api.close(),
      () => provider.close(),
    )
  })
  after(async () => {
    for (const socket of sockets.clients) socket.terminate()
    for (const close of closers) await close()
  })

  const lineOf = (cloakroom: RunningCloakroom, id: string | null) =>
    cloakroom.logs.map((line) => JSON.parse(line)).find(({ request_id }) => request_id === id)

  test('one id is in the answer, the log, the problem and towards the upstream', async () => {
    api.answer.headers = { 'x-request-id': 'of-the-upstream' }
    const answer = await fetch(`${plain.listenUrl}/public/x`)
    api.answer.headers = {}
    const id = answer.headers.get('x-request-id')
    assert.match(String(id), OWN_ID)
    assert.equal(api.requests.at(-1)?.headers['x-request-id'], id)
    await answer.text()
    assert.equal(lineOf(plain, id)?.path, '/public/x')

    const refused = await fetch(`${plain.listenUrl}/api/x`)
    const problem = (await refused.json()) as { request_id: string }
    assert.equal(problem.request_id, refused.headers.get('x-request-id'))
    assert.equal(lineOf(plain, problem.request_id)?.code, 'csrf_required')
  })

  test('every member of a problem that is also in the log has the same name and value there', async () => {
    const { port } = new URL(plain.listenUrl)
    const head = (target: string, ...fields: string[]) =>
      [`GET ${target} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...fields, '', ''].join('\r\n')
    const upgrade = ['Connection: upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13']
    const own = ['X-CSRF: 1', 'Connection: close']
    const messages: [status: number, message: string][] = [
      [403, head('/api/x', 'Connection: close')],
      [401, head('/api/x', ...own)],
      [401, head('/bff/user', ...own)],
      [404, head('/nowhere', ...own)],
      [502, head('/down/x', ...own)],
      [400, head('/public/%2e%2e/x', ...own)],
      [417, head('/public/x', 'Expect: something', ...own)],
      [405, head('/bff/logged-out', ...own).replace('GET', 'DELETE')],
      [421, head('/public/x', ...own).replace(`127.0.0.1:${port}`, 'evil.test')],
      [400, head('/bff/login?returnUrl=//evil.test', 'Connection: close')],
      [404, head('/nowhere', ...upgrade, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==')],
      [400, head('/ws/x', ...upgrade, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==').replace('13', '8')],
      [421, head('/ws/x', ...upgrade).replace(`127.0.0.1:${port}`, 'evil.test')],
    ]
    for (const [status, message] of messages) {
      const socket = connect(Number(port), '127.0.0.1').setEncoding('latin1')
      socket.write(message)
      const text = (await socket.toArray()).join('')
      assert.ok(text.startsWith(`HTTP/1.1 ${status} `), `${message}\n${text}`)
      await assertLogTells(text.slice(text.indexOf('\r\n\r\n')).replace(/^[^{]*/, ''), plain.logs)
    }
  })

  test('every answer of ours has one: endpoints, pages, refusals, preflights, redirects, files', async () => {
    const preflight = { origin: PARTNER, 'access-control-request-method': 'GET' }
    const asked: [path: string, init?: RequestInit][] = [
      ['/bff/user', { headers: { 'x-csrf': '1' } }],
      ['/bff/login', { redirect: 'manual' }],
      ['/bff/callback?state=x', { headers: { accept: 'text/html' } }],
      ['/bff/client.js'],
      ['/bff/nothing'],
      ['/nowhere'],
      ['/down/x'],
      ['/public/../x%2e%2e/y'],
      ['/public/x', { method: 'OPTIONS', headers: preflight }],
      ['/bff/backchannel-logout', { method: 'POST', body: 'x' }],
      ['/bff/logged-out', { redirect: 'manual' }],
    ]
    for (const [path, init] of asked) {
      const answer = await fetch(plain.listenUrl + path, init)
      await answer.text()
      assert.match(String(answer.headers.get('x-request-id')), OWN_ID, path)
    }
    const cors = await fetch(`${plain.listenUrl}/public/x`, { headers: { origin: PARTNER } })
    assert.equal(
      cors.headers.get('access-control-expose-headers'),
      'Cloakroom-Error, Retry-After, X-Request-Id',
    )
    await cors.text()
  })

  test('so has every refusal on the wire, with a line in the log', async () => {
    const { port } = new URL(plain.listenUrl)
    const messages = [
      'GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n',
      'no request at all\r\n\r\n',
      'GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
      `CONNECT x:1 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`,
    ]
    for (const message of messages) {
      const socket = connect(Number(port), '127.0.0.1').setEncoding('latin1')
      let text = ''
      socket.on('data', (chunk) => {
        text += chunk
      })
      socket.write(message)
      await once(socket, 'close')
      const [, id = ''] = /^x-request-id: (\S+)\r$/im.exec(text) ?? []
      assert.match(id, OWN_ID, text)
      assert.ok(text.includes(`"request_id":"${id}"`), text)
      assert.match(lineOf(plain, id)?.code, /^(?:bad_request|misdirected_request|method_not_allowed)$/)
    }
  })

  test('so has the answer to an upgrade: ours, and the 101 or refusal of the upstream', async () => {
    const answerTo = async (path: string) => {
      const socket = new WebSocket(`${plain.listenUrl.replace('http', 'ws')}${path}`, {
        origin: plain.publicUrl,
      })
      socket.on('error', () => undefined)
      const [first, second] = await Promise.race([
        once(socket, 'upgrade'),
        once(socket, 'unexpected-response'),
      ])
      const { statusCode, headers } = second ?? first
      socket.terminate()
      return { status: statusCode, id: headers['x-request-id'] }
    }
    for (const [path, status] of [
      ['/ws/x', 101],
      ['/ws/refused', 403],
      ['/public/ws', 400],
      ['/nowhere', 404],
    ] as const) {
      const answer = await answerTo(path)
      assert.equal(answer.status, status)
      assert.match(answer.id, OWN_ID, path)
      assert.deepEqual([lineOf(plain, answer.id)?.path, lineOf(plain, answer.id)?.status], [path, status])
    }
  })

  test("a trusted proxy's id is kept when it is well-formed, and everybody else's is not", async () => {
    const idOf = async ({ listenUrl }: RunningCloakroom, sent: string) => {
      const answer = await fetch(`${listenUrl}/public/x`, { headers: { 'x-request-id': sent } })
      await answer.text()
      const id = answer.headers.get('x-request-id')
      assert.equal(api.requests.at(-1)?.headers['x-request-id'], id)
      return id
    }
    const wellFormed = ['01J9ZK', 'Root=1-67891233-abcdef012345678912345678', 'a'.repeat(128)]
    for (const id of wellFormed) {
      assert.equal(await idOf(trusting, id), id)
      assert.equal(lineOf(trusting, id)?.path, '/public/x')
      assert.match(String(await idOf(plain, id)), OWN_ID)
    }
    for (const id of ['a'.repeat(129), 'two words', 'a,b', '<b>', '"', 'é', ''])
      assert.match(String(await idOf(trusting, id)), OWN_ID, id)
  })

  test('trace context of a trusted proxy is logged and goes on; of anybody else it is dropped', async () => {
    const sentWith = async ({ listenUrl }: RunningCloakroom, headers: Record<string, string>) => {
      const answer = await fetch(`${listenUrl}/public/x`, { headers })
      await answer.text()
      const received = api.requests.at(-1)?.headers ?? {}
      const id = answer.headers.get('x-request-id')
      return { received, id }
    }
    const kept = await sentWith(trusting, { ...CONTEXT, b3: '0' })
    for (const [name, value] of Object.entries({ ...CONTEXT, b3: '0' }))
      assert.equal(kept.received[name], value)
    assert.equal(lineOf(trusting, kept.id)?.traceparent, TRACE)
    const dropped = await sentWith(plain, { ...CONTEXT, b3: '0', 'x-b3-sampled': '1' })
    for (const name of [...Object.keys(CONTEXT), 'b3', 'x-b3-sampled'])
      assert.equal(dropped.received[name], undefined, name)
    assert.equal(lineOf(plain, dropped.id)?.traceparent, undefined)
    for (const traceparent of [
      'ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      '00-00000000000000000000000000000000-00f067aa0ba902b7-01',
      '00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01',
      '00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01',
      // Only a later version has more fields.
      '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more',
      'secret',
    ]) {
      const { received, id } = await sentWith(trusting, { ...CONTEXT, traceparent })
      assert.equal(received.traceparent, undefined, traceparent)
      assert.equal(lineOf(trusting, id)?.traceparent, undefined)
    }
  })
})
