import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { before, describe, test } from 'node:test'
import { suiteScope } from '../kit/attack/fleet.ts'
import { setUp } from '../kit/attack/sign-in.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { open } from '../kit/upstream/sockets.ts'

/*
 * With the session and its token in memory a request goes to its upstream, and a refusal back to its client, while the
 * client's bytes are still being parsed. What comes behind them, or does not come, must make no difference.
 */

type Context = Awaited<ReturnType<typeof setUp>>

describe('a request that waits for nothing', () => {
  const scope = suiteScope()
  let context: Context
  let cookie = ''
  let host = ''
  /** Requests that the upstream holds, by path. */
  const held = new Map<string, ServerResponse>()

  before(async () => {
    const upstream = createServer((req, res) => {
      const { pathname } = new URL(req.url!, 'http://upstream')
      if (pathname.startsWith('/api/hold')) held.set(pathname, res)
      else if (pathname === '/api/nothing') res.writeHead(204).end()
      else if (pathname === '/api/same') res.writeHead(304, { etag: '"1"' }).end()
      else res.end(`${req.method} ${pathname}`)
    })
    const port = await open(scope as never, upstream)
    context = await setUp(scope, {
      config: {
        allowedOrigins: ['https://other.example'],
        routes: [
          {
            path: '/api',
            id: 'api',
            upstream: `http://127.0.0.1:${port}`,
            resource: 'orders',
            websocket: true,
          },
        ],
      },
    })
    await context.browser.signIn()
    assert.equal((await context.browser.fetch('/api/first')).status, 200)
    cookie = context.browser.cookieHeader('/api')
    host = new URL(context.cloakroom.publicUrl).host
  })

  function line(
    method: string,
    path: string,
    { version = '1.1', signedIn = true, fields = '', body = '' } = {},
  ): string {
    const session = signedIn ? `Cookie: ${cookie}\r\n` : ''
    return `${method} ${path} HTTP/${version}\r\nHost: ${host}\r\nX-CSRF: 1\r\n${session}${fields}\r\n${body}`
  }

  async function dial(): Promise<Socket & { text: string }> {
    const { hostname, port } = new URL(context.cloakroom.listenUrl)
    const socket = Object.assign(connect({ host: hostname, port: Number(port) }), { text: '' })
    scope.after(() => socket.destroy())
    socket.setEncoding('latin1').on('data', (chunk) => {
      socket.text += chunk
    })
    socket.on('error', () => {})
    await once(socket, 'connect')
    return socket
  }

  const statuses = (text: string) =>
    Array.from(text.matchAll(/HTTP\/1\.1 (\d+) /g), ([, status]) => Number(status))
  const bodies = (text: string) => Array.from(text.matchAll(/(?:GET|POST) \/api\/[a-z]+/g), ([body]) => body)
  const lines = () =>
    context.cloakroom.logs.map((text) => JSON.parse(text)).filter(({ msg }) => msg === 'request')

  test('is answered in its place among others of one packet, signed in or not', async () => {
    const socket = await dial()
    const packet = [
      line('GET', '/api/a'),
      line('GET', '/api/b', { signedIn: false }),
      line('GET', '/api/nothing'),
      line('GET', '/api/c', { signedIn: false }),
      line('GET', '/api/same'),
      line('HEAD', '/api/d', { signedIn: false }),
      line('HEAD', '/api/e'),
      line('GET', '/api/f'),
    ]
    socket.write(packet.join(''))
    await eventually('the last answer', () => socket.text.includes('GET /api/f'))
    assert.deepEqual(statuses(socket.text), [200, 401, 204, 401, 304, 401, 200, 200])
    assert.deepEqual(bodies(socket.text), ['GET /api/a', 'GET /api/f'])
  })

  test('is refused while its body is still to come, and the connection serves nothing behind it', async () => {
    const socket = await dial()
    const body = line('GET', '/api/a')
    socket.write(line('POST', '/api/upload', { signedIn: false, fields: 'Content-Length: 5000\r\n', body }))
    await once(socket, 'close')
    assert.deepEqual(statuses(socket.text), [401])
    assert.match(socket.text, /\r\nconnection: close\r\n/i)
  })

  test('keeps its connection when it is refused with its whole body', async () => {
    const socket = await dial()
    socket.write(line('POST', '/api/upload', { signedIn: false, fields: 'Content-Length: 0\r\n' }))
    socket.write(line('GET', '/api/a'))
    await eventually('the second answer', () => socket.text.includes('GET /api/a'))
    assert.deepEqual(statuses(socket.text), [401, 200])
  })

  test('of HTTP/1.0 ends its connection', async () => {
    for (const signedIn of [true, false]) {
      const socket = await dial()
      socket.write(line('GET', '/api/a', { version: '1.0', signedIn }))
      await once(socket, 'end')
      assert.deepEqual(statuses(socket.text), [signedIn ? 200 : 401])
    }
  })

  test('has one line in the log and leaves nothing in flight, wherever its client leaves', async () => {
    const stages: [string, (socket: Socket & { text: string }) => Promise<unknown>][] = [
      ['unsent', async () => undefined],
      [
        'unanswered',
        (socket) => eventually('its request', () => held.has('/api/hold-unanswered') && !!socket),
      ],
      [
        'begun',
        async (socket) => {
          await eventually('its request', () => held.has('/api/hold-begun'))
          held.get('/api/hold-begun')!.writeHead(200, { 'content-length': '9' }).write('half')
          await eventually('half of its answer', () => socket.text.endsWith('half'))
        },
      ],
    ]
    for (const [stage, reached] of stages) {
      const socket = await dial()
      const path = `/api/hold-${stage}`
      await new Promise<void>((resolve) => socket.write(line('GET', path), () => resolve()))
      await reached(socket)
      socket.destroy()
      await eventually(`the line of one that left ${stage}`, () => lines().some((one) => one.path === path))
      assert.deepEqual(
        lines().flatMap((one) => (one.path === path ? [one.status] : [])),
        [499],
        stage,
      )
      await eventually('its end at the upstream', () => !held.has(path) || held.get(path)!.destroyed)
    }
    const metrics = await (await fetch(`${context.cloakroom.adminUrl}/metrics`)).text()
    assert.match(metrics, /^cloakroom_requests_in_flight 0$/m)
  })

  test('is no way around the checks: preflight, foreign origin, an upgrade without a session', async () => {
    const foreign = 'Origin: https://evil.example\r\n'
    for (const [request, status] of [
      [line('GET', '/api/a', { fields: foreign }), 403],
      [line('GET', '/api/a', { signedIn: false, fields: foreign }), 403],
      [
        line('OPTIONS', '/api/a', {
          fields: 'Origin: https://other.example\r\nAccess-Control-Request-Method: GET\r\n',
        }),
        204,
      ],
      [
        line('GET', '/api/a', {
          signedIn: false,
          fields: `Origin: http://${host}\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n`,
        }),
        401,
      ],
    ] as const) {
      const socket = await dial()
      socket.write(request)
      await eventually('an answer', () => statuses(socket.text).length > 0)
      assert.deepEqual(statuses(socket.text), [status], request)
      socket.destroy()
    }
  })

  test('of an allowed origin is refused with the fields of CORS, each once', async () => {
    const socket = await dial()
    socket.write(line('GET', '/api/a', { signedIn: false, fields: 'Origin: https://other.example\r\n' }))
    await eventually('an answer', () => socket.text.includes('"session_required"'))
    assert.match(socket.text, /^access-control-allow-origin: https:\/\/other\.example\r$/m)
    const names = Array.from(socket.text.matchAll(/^([\w-]+): /gm), ([, name]) => name!.toLowerCase())
    const twice = names.filter((name, i) => names.indexOf(name) !== i && name !== 'vary')
    assert.deepEqual(twice, [])
    assert.match(socket.text, /^vary: (?:Origin, )?Cookie\r$/im)
  })

  test('ends under the configuration it began with', async () => {
    const socket = await dial()
    socket.write(line('GET', '/api/hold-reload'))
    await eventually('its request', () => held.has('/api/hold-reload'))
    await context.cloakroom.reload({ idle: undefined } as never)
    held.get('/api/hold-reload')!.end('GET /api/reload')
    await eventually('its answer', () => socket.text.includes('GET /api/reload'))
    socket.write(line('GET', '/api/a', { signedIn: false }))
    await eventually('another one', () => statuses(socket.text).length === 2)
    assert.deepEqual(statuses(socket.text), [200, 401])
  })

  test('is refused as soon as its session has ended, and sent with no token of it', async () => {
    const { browser } = context
    const { body } = await browser.fetch('/bff/user')
    assert.ok(body.includes('bff:logout_url'))
    assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
    const socket = await dial()
    socket.write(line('GET', '/api/a') + line('GET', '/api/b'))
    await eventually('both answers', () => statuses(socket.text).length === 2)
    assert.deepEqual(statuses(socket.text), [401, 401])
  })
})
