import assert from 'node:assert/strict'
import { once } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { ListenerLimits } from '../../../../src/config/config.ts'
import { createRequestLog } from '../../../../src/http/request-log.ts'
import { createHostCheck } from '../../../../src/http/server/host.ts'
import { listenOn } from '../../../../src/http/server/listeners.ts'
import { createPublicServer, type PublicServerDeps } from '../../../../src/http/server/public-server.ts'
import { createRequestGuard } from '../../../../src/http/server/request-guard.ts'
import { captureLog } from '../../../kit/cloakroom.ts'
import { problemIn, talkRaw } from '../../../kit/raw-http.ts'

const HOST = 'Host: app.test\r\n'
const BEHIND = `GET /behind HTTP/1.1\r\n${HOST}\r\n`
const UPGRADE = 'Connection: Upgrade\r\nUpgrade: websocket\r\n'

const LIMITS: ListenerLimits = {
  ...{
    connections: 2_000,
    connectionsPerClient: 2_000,
    headerSize: 8_192,
    headerCount: 20,
    urlLength: 1_000,
  },
  ...{
    headerTimeoutMs: 10_000,
    keepAliveMs: 5_000,
    webSocketsPerSession: 5,
    webSocketsPerClient: 5,
    bodyRate: 240,
  },
}

/** A public server that answers everything with `ok` a moment later, and remembers what it served. */
async function setUp(
  t: TestContext,
  changes: Partial<ListenerLimits> = {},
  isTrustedPeer: PublicServerDeps['isTrustedPeer'] = () => false,
) {
  const limits = { ...LIMITS, ...changes }
  const { log, lines } = captureLog()
  const served: string[] = []
  const raw: string[][] = []
  const observed: string[] = []
  const guard = createRequestGuard({
    hosts: createHostCheck({ publicUrl: 'https://app.test', hosts: [] }),
    isTrustedPeer: () => false,
    limits,
    requestLog: createRequestLog({
      log,
      observe: {
        requestBegan() {},
        firstByte() {},
        request: ({ method, status }) => observed.push(`${method} ${status}`),
      },
      nowMs: () => performance.now(),
      clientIp: () => '',
      isTrustedPeer: () => false,
    }),
    securityHeaders: {
      middleware: (_req, _res, next) => next(),
      set: (_req, res) => void res.setHeader('x-of-ours', 'yes'),
      fields: { 'x-of-ours': 'yes' },
      besideProblems: [],
    },
    observe: (method, status) => observed.push(`${method} ${status}`),
  })
  const server = createPublicServer({
    objects: { IncomingMessage, ServerResponse },
    limits,
    guard: () => guard,
    isTrustedPeer,
    observeRefused: (reason) => observed.push(`refused ${reason}`),
    log,
    request(req, res) {
      served.push(`${req.method} ${req.url}`)
      raw.push([...req.rawHeaders])
      if (req.headers.expect) res.writeContinue()
      req.resume()
      if (req.url === '/closing') res.writeHead(413, { connection: 'close' }).end('no')
      else if (req.url !== '/silent') setTimeout(() => res.end('ok'), 10)
    },
    upgrade(req, socket) {
      served.push(`UPGRADE ${req.url}`)
      if (req.url === '/open') socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n')
      else socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n')
    },
  })
  const port = await listenOn(server, { host: '127.0.0.1', port: 0 })
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return { server, port, served, raw, lines, observed }
}

const REFUSED: readonly [name: string, text: string, status: number, code?: string][] = [
  ['no Host', `GET / HTTP/1.1\r\n\r\n`, 400],
  ['two Hosts', `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
  ['a foreign Host', `GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n`, 421, 'misdirected_request'],
  ['a leading zero', `POST / HTTP/1.1\r\n${HOST}Content-Length: 05\r\n\r\nhello`, 400],
  ['a length past every integer', `POST / HTTP/1.1\r\n${HOST}Content-Length: 9007199254740993\r\n\r\n`, 400],
  ['an underscored length', `POST / HTTP/1.1\r\n${HOST}Content_Length: 5\r\n\r\n`, 400],
  ['an underscored coding', `POST / HTTP/1.1\r\n${HOST}transfer_encoding: chunked\r\n\r\n`, 400],
  ['a coding in HTTP/1.0', `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  ['an unknown coding', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 501],
  [
    'two codings in two fields',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ['an empty coding', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding:\r\n\r\n`, 400],
  ['an unknown expectation', `POST / HTTP/1.1\r\n${HOST}Expect: tea\r\nContent-Length: 5\r\n\r\n`, 417],
  [
    'a known expectation and another',
    `POST / HTTP/1.1\r\n${HOST}Expect: 100-continue, tea\r\nContent-Length: 5\r\n\r\n`,
    417,
  ],
  ['TRACE', `TRACE / HTTP/1.1\r\n${HOST}\r\n`, 405, 'method_not_allowed'],
  ['CONNECT', `CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n`, 405, 'method_not_allowed'],
  ['HTTP/2 that nobody agreed on', `GET / HTTP/2.0\r\n${HOST}\r\n`, 505],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  ['another version', `GET / HTTP/1.2\r\n${HOST}\r\n`, 505],
  ['asterisk-form', `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`, 400, 'path_rejected'],
  ['a fragment', `GET /a#b HTTP/1.1\r\n${HOST}\r\n`, 400, 'path_rejected'],
  ['a foreign absolute-form', `GET https://evil.test/ HTTP/1.1\r\n${HOST}\r\n`, 400, 'path_rejected'],
  ['a long URL', `GET /${'a'.repeat(1_000)} HTTP/1.1\r\n${HOST}\r\n`, 414],
  ['a URL longer than a head', `GET ${'/'.repeat(100_000)} HTTP/1.1\r\n${HOST}\r\n`, 414],
  ['many fields', `GET / HTTP/1.1\r\n${HOST}${'a: b\r\n'.repeat(20)}\r\n`, 431],
  ['a long field', `GET / HTTP/1.1\r\n${HOST}Cookie: ${'a'.repeat(65_536)}\r\n\r\n`, 431],
  ['Max-Forwards that is no number', `OPTIONS / HTTP/1.1\r\n${HOST}Max-Forwards: -1\r\n\r\n`, 400],
  ['an upgrade with a body', `GET / HTTP/1.1\r\n${HOST}${UPGRADE}Content-Length: 5\r\n\r\nhello`, 400],
  [
    'an upgrade whose body is still to come',
    `GET / HTTP/1.1\r\n${HOST}${UPGRADE}Transfer-Encoding: chunked\r\n\r\n`,
    400,
  ],
  [
    'an upgrade for a foreign Host',
    `GET / HTTP/1.1\r\nHost: evil.test\r\n${UPGRADE}\r\n`,
    421,
    'misdirected_request',
  ],
]

for (const [name, text, status, code = 'bad_request'] of REFUSED) {
  test(`refused, with a code and a closed connection: ${name}`, async (t) => {
    const { port, served } = await setUp(t)
    const talk = await talkRaw(port, text + BEHIND)
    assert.deepEqual(talk.statuses, [status])
    assert.equal(talk.isEnded, true)
    assert.deepEqual(served, [])
    assert.match(talk.text, new RegExp(`^cloakroom-error: ${code}\r$`, 'im'))
    assert.match(talk.text, /^content-type: application\/problem\+json\r$/im)
    assert.match(talk.text, /^connection: close\r$/im)
    assert.match(talk.text, /^x-of-ours: yes\r$/im)
    const problem = problemIn(talk)
    assert.deepEqual([problem.status, problem.code], [status, code])
    assert.doesNotMatch(talk.text, /evil/)
    if (status === 405) assert.match(talk.text, /^allow: GET, HEAD, /im)
  })
}

test('an upgrade by another method than GET is refused, and by HEAD without a body', async (t) => {
  const { port, served } = await setUp(t)
  for (const method of ['HEAD', 'POST', 'OPTIONS']) {
    const talk = await talkRaw(port, `${method} / HTTP/1.1\r\n${HOST}${UPGRADE}\r\n`)
    assert.deepEqual(talk.statuses, [400])
    assert.equal(talk.text.endsWith('\r\n\r\n'), method === 'HEAD')
  }
  assert.deepEqual(served, [])
})

test('requests that arrive in one packet are served in order', async (t) => {
  const { port, served } = await setUp(t)
  const talk = await talkRaw(port, `${BEHIND}${BEHIND}GET /last HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`)
  assert.deepEqual(talk.statuses, [200, 200, 200])
  assert.deepEqual(served, ['GET /behind', 'GET /behind', 'GET /last'])
})

test('what arrives behind an answer that ends its connection is not served', async (t) => {
  const { port, served } = await setUp(t)
  const talk = await talkRaw(port, `GET /closing HTTP/1.1\r\n${HOST}\r\n${BEHIND}`)
  assert.deepEqual(talk.statuses, [413])
  assert.deepEqual(served, ['GET /closing'])
})

test('bytes behind a request that is said to be the last do not take the place of its answer', async (t) => {
  const { port, served } = await setUp(t)
  const talk = await talkRaw(port, `GET /last HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n${BEHIND}`)
  assert.deepEqual(talk.statuses, [200])
  assert.deepEqual(served, ['GET /last'])
})

for (const [name, rest] of Object.entries({
  'bytes that are no request': 'nonsense\r\n\r\n',
  'a request of broken framing': `POST / HTTP/1.1\r\n${HOST}Content-Length: +5\r\n\r\nhello${BEHIND}`,
  'half a head': `GET /half HTTP/1.1\r\n${HOST}`,
})) {
  test(`${name} behind whole requests do not take the place of their answers`, async (t) => {
    const { port, served } = await setUp(t, { headerTimeoutMs: 300 })
    const talk = await talkRaw(port, `${BEHIND}${BEHIND}${rest}`)
    assert.deepEqual(talk.statuses.slice(0, 2), [200, 200])
    assert.equal(talk.isEnded, true)
    assert.deepEqual(served, ['GET /behind', 'GET /behind'])
  })
}

test('a client that leaves in the middle of its next head ends the wait for its answer', async (t) => {
  const { server, port } = await setUp(t)
  const socket = connect({ port, host: '127.0.0.1' })
  t.after(() => socket.destroy())
  socket.end(`GET /silent HTTP/1.1\r\n${HOST}\r\nGET /half HT`)
  await once(socket.resume(), 'close')
  const count = () => new Promise((resolve) => server.getConnections((_, open) => resolve(open)))
  await t.waitFor(async () => assert.equal(await count(), 0), { timeout: 10_000 })
})

test('a body that breaks off behind an earlier request gets no answer, and that one its own', async (t) => {
  const { port } = await setUp(t)
  const broken = `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n`
  const talk = await talkRaw(port, `${BEHIND}${broken}${BEHIND}`)
  assert.equal(talk.isEnded, true)
  assert.deepEqual(talk.statuses, [200])
})

test('an upgrade behind a request that still waits for its answer is not served', async (t) => {
  const { port, served } = await setUp(t)
  const talk = await talkRaw(
    port,
    `GET /first HTTP/1.1\r\n${HOST}\r\nGET / HTTP/1.1\r\n${HOST}${UPGRADE}\r\n`,
  )
  assert.equal(talk.isEnded, true)
  assert.deepEqual(served, ['GET /first'])
})

test('a head that was too late is not served when its rest arrives while the refusal is read', async (t) => {
  const { port, served } = await setUp(t, { headerTimeoutMs: 200 })
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  t.after(() => socket.destroy())
  socket.write(`GET /late HTTP/1.1\r\n${HOST}`)
  const [answer] = await once(socket, 'data')
  assert.match(String(answer), /^HTTP\/1\.1 408 /)
  socket.write(`\r\n${BEHIND}`)
  await delay(100)
  assert.deepEqual(served, [])
})

for (const [name, pieces] of Object.entries({
  'nothing at all': [''],
  'half a line': ['GET / HT'],
  'a head that never ends': [`GET / HTTP/1.1\r\n${HOST}`],
  'a head that trickles': [...`GET / HTTP/1.1\r\n${HOST}X-Slow: ${'x'.repeat(100)}`],
})) {
  test(`a connection with ${name} ends with 408 soon after the time for heads`, async (t) => {
    const { port, served } = await setUp(t, { headerTimeoutMs: 400 })
    const talk = await talkRaw(port, pieces, { forMs: 20_000 })
    assert.deepEqual(talk.statuses, [408])
    assert.equal(problemIn(talk).code, 'bad_request')
    assert.ok(talk.tookMs > 350 && talk.tookMs < 9_000, `${talk.tookMs} ms`)
    assert.deepEqual(served, [])
  })
}

test('a thousand silent connections are gone soon after the time for heads', async (t) => {
  const { server, port } = await setUp(t, { headerTimeoutMs: 500 })
  const talks = await Promise.all(Array.from({ length: 1_000 }, () => talkRaw(port, '', { forMs: 20_000 })))
  assert.ok(talks.every(({ statuses, isEnded }) => isEnded && statuses[0] === 408))
  const count = () =>
    new Promise((resolve) => server.getConnections((_, connections) => resolve(connections)))
  await t.waitFor(async () => assert.equal(await count(), 0), { timeout: 10_000 })
})

test('a body that trickles behind its answer ends its connection, and one that keeps the rate does not', async (t) => {
  const { port } = await setUp(t, { headerTimeoutMs: 500, bodyRate: 200 })
  const chunked = `${HOST}Transfer-Encoding: chunked\r\n`
  const trickle = (head: string, bytes = 'a') =>
    talkRaw(port, [head, ...Array<string>(22).fill(head.includes('chunked') ? `1\r\n${bytes}\r\n` : bytes)], {
      ...{ pauseMs: 100, forMs: 2_400 },
    })
  const [steady, ...slow] = await Promise.all([
    trickle(`POST / HTTP/1.1\r\n${HOST}Content-Length: 1600\r\n\r\n`, 'x'.repeat(40)),
    trickle(`GET / HTTP/1.1\r\n${chunked}\r\n`),
    trickle(`HEAD / HTTP/1.1\r\n${chunked}\r\n`),
    trickle(`POST / HTTP/1.1\r\n${HOST}Content-Length: 5000\r\n\r\n`),
    trickle(`POST / HTTP/1.1\r\n${chunked}Expect: 100-continue\r\n\r\n`),
    trickle(`OPTIONS / HTTP/1.1\r\n${chunked}Max-Forwards: 0\r\n\r\n`),
    trickle(`${BEHIND}GET / HTTP/1.1\r\n${chunked}\r\n`),
  ])
  for (const { isEnded, statuses, tookMs } of slow) {
    assert.match(String(statuses), /20[04]$/)
    assert.equal(isEnded, true)
    assert.ok(tookMs > 500, `${tookMs} ms`)
  }
  assert.deepEqual([steady.isEnded, steady.statuses], [false, [200]])
})

test('a kept connection ends when it has idled for its time', async (t) => {
  const { port } = await setUp(t, { keepAliveMs: 200 })
  const talk = await talkRaw(port, BEHIND)
  assert.equal(talk.isEnded, true)
  assert.deepEqual(talk.statuses, [200])
})

test('no field is lost, in how many packets and of what number up to the limit they may come', async (t) => {
  const { port, raw } = await setUp(t, { headerCount: 1_500, headerSize: 65_536 })
  const names = Array.from({ length: 1_498 }, (_, n) => `x-${n}`)
  const lines = names.map((name) => `${name}: 1\r\n`)
  const [first, second] = [lines.slice(0, 700).join(''), lines.slice(700).join('')]
  const end = 'Connection: close\r\n\r\n'
  await talkRaw(port, [`GET / HTTP/1.1\r\n${HOST}${first}x-`, 'cut: 1\r\n', second.slice(0, -8) + end])
  await talkRaw(port, `GET / HTTP/1.1\r\n${HOST}${first}${second}${end}`)
  assert.deepEqual(
    raw.map((fields) => fields.length / 2),
    [1_500, 1_500],
  )
  const over = await talkRaw(port, [`GET / HTTP/1.1\r\n${HOST}${first}`, second, `a: b\r\n${end}`])
  assert.deepEqual(over.statuses, [431])
})

/** A connection from an address of this machine, with the first bytes that came on it. */
async function connectFrom(t: TestContext, port: number, localAddress: string, text = BEHIND) {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  t.after(() => socket.destroy())
  socket.write(text)
  const answer = await Promise.race([
    once(socket, 'data').then(String),
    once(socket, 'close').then(() => 'closed'),
  ])
  return { socket, answer: answer.split('\r\n', 1)[0] }
}

test('one client has so many connections, WebSockets included, and takes nobody else the room', async (t) => {
  const { port, lines, observed } = await setUp(t, { connectionsPerClient: 3 })
  const webSocket = `GET /open HTTP/1.1\r\n${HOST}${UPGRADE}\r\n`
  const first = await connectFrom(t, port, '127.0.0.1')
  await connectFrom(t, port, '127.0.0.1', webSocket)
  await connectFrom(t, port, '127.0.0.1', webSocket)
  for (const text of [BEHIND, BEHIND, webSocket])
    assert.equal((await connectFrom(t, port, '127.0.0.1', text)).answer, 'closed')
  assert.equal((await connectFrom(t, port, '127.0.0.2')).answer, 'HTTP/1.1 200 OK')
  assert.deepEqual(
    observed.filter((what) => what.startsWith('refused')),
    Array(3).fill('refused client_limit'),
  )
  const [said, ...more] = lines.map((line) => JSON.parse(line)).filter(({ level }) => level === 'warn')
  assert.equal(more.length, 0)
  assert.deepEqual([said.clientIp, said.count], ['127.0.0.1', 1])
  assert.match(said.msg, /limits\.connectionsPerClient .* trustProxy/)
  first.socket.destroy()
  await t.waitFor(async () => {
    assert.equal((await connectFrom(t, port, '127.0.0.1')).answer, 'HTTP/1.1 200 OK')
  })
})

test('a proxy of our own brings as many connections as it likes', async (t) => {
  const isTrustedPeer: PublicServerDeps['isTrustedPeer'] = ({ socket }) =>
    socket.remoteAddress === '127.0.0.9'
  const { port } = await setUp(t, { connectionsPerClient: 1 }, isTrustedPeer)
  for (let n = 0; n < 5; n += 1)
    assert.equal((await connectFrom(t, port, '127.0.0.9')).answer, 'HTTP/1.1 200 OK')
})

test('connections over the limit are closed at once, and the log says so once', async (t) => {
  const { server, port, lines, observed } = await setUp(t, { connections: 3 })
  const open = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const socket = connect(port, '127.0.0.1')
      t.after(() => socket.destroy())
      await once(socket, 'connect')
      return socket
    }),
  )
  const count = () => new Promise((resolve) => server.getConnections((_, now) => resolve(now)))
  await t.waitFor(async () => assert.equal(await count(), 3), { timeout: 10_000 })
  for (let n = 0; n < 5; n += 1) {
    const refused = await talkRaw(port, '')
    assert.deepEqual([refused.isEnded, refused.text], [true, ''])
  }
  const said = lines.filter((line) => line.includes('limits.connections'))
  assert.equal(said.length, 1)
  assert.deepEqual(observed, Array(5).fill('refused limit'))
  open[0]?.destroy()
  await t.waitFor(async () => assert.equal(await count(), 2), { timeout: 10_000 })
  const talk = await talkRaw(port, `GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`)
  assert.deepEqual(talk.statuses, [200])
})

test('absolute-form of our own site is served as the path it names', async (t) => {
  const { port, served } = await setUp(t)
  for (const target of ['https://app.test/a?b', 'HTTPS://APP.test:443?b', 'https://app.test']) {
    const talk = await talkRaw(port, `GET ${target} HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`)
    assert.deepEqual(talk.statuses, [200], target)
  }
  assert.deepEqual(served, ['GET /a?b', 'GET /?b', 'GET /'])
})

test('OPTIONS goes as far as Max-Forwards says', async (t) => {
  const { port, served, raw } = await setUp(t)
  const ask = (method: string, hops: string) =>
    talkRaw(port, `${method} /x HTTP/1.1\r\n${HOST}Max-Forwards: ${hops}\r\nConnection: close\r\n\r\n`)
  const last = await ask('OPTIONS', '0')
  assert.deepEqual(last.statuses, [204])
  assert.match(last.text, /^allow: GET, HEAD, /im)
  assert.match(last.text, /^x-of-ours: yes/im)
  assert.deepEqual(served, [])
  await ask('OPTIONS', '7')
  await ask('GET', '0')
  assert.deepEqual(served, ['OPTIONS /x', 'GET /x'])
  const crossed = [
    ['Host', 'app.test', 'Max-Forwards', '6', 'Connection', 'close'],
    ['Host', 'app.test', 'Connection', 'close'],
  ]
  assert.deepEqual(raw, crossed)
})

test('a body is asked for in HTTP/1.1 only', async (t) => {
  const { port } = await setUp(t)
  const ask = (version: string) =>
    talkRaw(port, [
      `POST / HTTP/${version}\r\n${HOST}Expect: 100-Continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n`,
      'hi',
    ])
  assert.deepEqual((await ask('1.1')).statuses, [100, 200])
  assert.deepEqual((await ask('1.0')).statuses, [200])
})

test('every refusal is counted and in the log, without any host of theirs', async (t) => {
  const { port, lines, observed } = await setUp(t)
  await talkRaw(port, 'GET https://evil.test/a HTTP/1.1\r\nHost: evil.test\r\n\r\n')
  await talkRaw(port, `GET / HTTP/1.1\r\nHost: evil.test\r\n${UPGRADE}\r\n`)
  await talkRaw(port, 'nonsense\r\n\r\n')
  assert.deepEqual(observed, ['GET 400', 'UPGRADE 421', 'INVALID 400'])
  const told = lines.map((line) => JSON.parse(line))
  assert.deepEqual(
    told.map(({ path, status, code }) => [path, status, code]),
    [
      ['/a', 400, 'path_rejected'],
      ['/', 421, 'misdirected_request'],
      [undefined, 400, 'bad_request'],
    ],
  )
  const ids = new Set(told.map(({ request_id }) => request_id))
  assert.deepEqual([ids.size, ids.has(undefined)], [3, false])
  assert.doesNotMatch(lines.join(''), /evil/)
})

test('of requests that come in one packet each waits for the answer to the one before', async (t) => {
  const { port, served, server } = await setUp(t)
  server.prependListener('request', (req, res) => res.on('finish', () => served.push(`answered ${req.url}`)))
  const ask = (method: string, path: string) =>
    `${method} ${path} HTTP/1.1\r\n${HOST}Content-Length: 0\r\n${path === '/4' ? 'Connection: close\r\n' : ''}\r\n`
  const { statuses } = await talkRaw(
    port,
    ask('POST', '/1') + ask('GET', '/2') + ask('DELETE', '/3') + ask('GET', '/4') + ask('GET', '/5'),
  )
  assert.deepEqual(statuses, [200, 200, 200, 200])
  const inOrder = ['POST /1', 'GET /2', 'DELETE /3', 'GET /4'].flatMap((one) => [
    one,
    `answered ${one.split(' ')[1]}`,
  ])
  assert.deepEqual(served, inOrder)
})

test('a connection on which many requests wait behind a slow answer is cut', async (t) => {
  const { port, served } = await setUp(t)
  const behindSlow = (times: number) => `GET /silent HTTP/1.1\r\n${HOST}\r\n${BEHIND.repeat(times)}`
  const few = await talkRaw(port, behindSlow(30), { forMs: 300 })
  assert.equal(few.isEnded, false)
  const many = await talkRaw(port, behindSlow(5_000))
  assert.deepEqual([many.isEnded, many.statuses], [true, []])
  assert.deepEqual(served, ['GET /silent', 'GET /silent'])
})

test('requests that wait behind an answer are dropped when their client leaves', async (t) => {
  const { port, served } = await setUp(t)
  const socket = connect({ port, host: '127.0.0.1' })
  socket.write(`GET /silent HTTP/1.1\r\n${HOST}\r\n${BEHIND}${BEHIND}`)
  while (served.length === 0) await delay(5)
  socket.destroy()
  const { statuses } = await talkRaw(port, `GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`)
  assert.deepEqual(statuses, [200])
  assert.deepEqual(served, ['GET /silent', 'GET /'])
})
