import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { createListeners, listenOn } from '../../../../src/http/server/listeners.ts'
import { createPublicServer } from '../../../../src/http/server/public-server.ts'
import type { RequestGuard } from '../../../../src/http/server/request-guard.ts'
import { startBusyClients } from '../../../kit/busy-clients.ts'
import { captureLog } from '../../../kit/cloakroom.ts'

const GET = 'GET / HTTP/1.1\r\nHost: app.test\r\n\r\n'
const LIMITS = {
  ...{
    connections: 2_000,
    connectionsPerClient: 2_000,
    headerSize: 8_192,
    headerCount: 20,
    urlLength: 1_000,
  },
  ...{
    headerTimeoutMs: 10_000,
    keepAliveMs: 60_000,
    webSocketsPerSession: 5,
    webSocketsPerClient: 5,
    bodyRate: 240,
  },
}
const FREE = { host: '127.0.0.1', port: 0 }

/** Both listeners; the public one answers as it is told to. */
async function setUp(
  t: TestContext,
  answer: (req: IncomingMessage, res: ServerResponse) => void,
  times: { drainMs?: number; idleGraceMs?: number; delayMs?: () => number } = {},
) {
  const publicServer = createPublicServer({
    objects: { IncomingMessage, ServerResponse },
    limits: LIMITS,
    guard: () => ({ admit: () => true, admitUpgrade: () => true }) as unknown as RequestGuard,
    log: captureLog().log,
    isTrustedPeer: () => false,
    observeRefused() {},
    request: answer,
    upgrade(_req, socket) {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n')
      setTimeout(() => socket.end('bye'), 700)
    },
  })
  const listeners = createListeners({
    ...{ publicServer, adminServer: createServer(), addresses: { public: FREE, admin: FREE } },
    ...{ drainMs: 10_000, idleGraceMs: 300, onStop() {}, onDrain() {}, release: async () => {}, ...times },
  })
  const { publicPort: port } = await listeners.listen()
  t.after(() => listeners.close())
  async function close(): Promise<number> {
    const begun = performance.now()
    await listeners.close()
    return performance.now() - begun
  }
  return { port, close, listeners }
}

/** A connection and everything that came on it. */
async function open(t: TestContext, port: number, text = '') {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  t.after(() => socket.destroy())
  const said = { text: '', isReset: false }
  socket.on('error', () => {
    said.isReset = true
  })
  socket.on('data', (chunk) => {
    said.text += chunk
  })
  const closed = new Promise<number>((resolve) => socket.on('close', () => resolve(performance.now())))
  await once(socket, 'connect')
  socket.write(text)
  const until = async (what: RegExp) => {
    while (!what.test(said.text)) await once(socket, 'data')
  }
  return { socket, said, closed, until }
}

const answersIn = (text: string) => text.match(/HTTP\/1\.1 200/g)?.length ?? 0

test('clients that ask again and again over kept connections lose no request to a shutdown', async (t) => {
  const served = new Set<unknown>()
  const answer = ({ socket }: IncomingMessage, res: ServerResponse) => {
    served.add(socket)
    setTimeout(() => res.end('ok'), 3)
  }
  const { port, close } = await setUp(t, answer, { idleGraceMs: 1_000 })
  const crowd = startBusyClients(port, { clients: 40, pausesMs: [0, 1, 5, 200] })
  // A connection that the kernel holds and nobody has accepted is reset when the listener closes.
  await t.waitFor(() => assert.equal(served.size, 40), { timeout: 20_000 })
  await delay(500)
  assert.equal(crowd.closed(), 0, 'no connection ends with its answer before the drain')
  const tookMs = await close()
  const { answered, failures } = await crowd.gone()
  assert.deepEqual(failures, {})
  assert.ok(answered > 100, `${answered}`)
  assert.ok(tookMs < 5_000, `${tookMs} ms`)
})

test('an answer under way, and the last of several that wait, say that the connection ends with them', async (t) => {
  const { port, close } = await setUp(t, (_req, res) => void setTimeout(() => res.end('ok'), 200))
  const one = await open(t, port, GET)
  const three = await open(t, port, GET.repeat(3))
  await delay(50)
  await close()
  await Promise.all([one.closed, three.closed])
  assert.match(one.said.text, /^HTTP\/1\.1 200 (?:.*\r\n)+connection: close\r$/im)
  assert.equal(answersIn(three.said.text), 3)
  assert.equal(three.said.text.match(/^connection: close\r$/gim)?.length, 1)
  assert.equal(one.said.isReset || three.said.isReset, false)
})

test('a request that is on its way when the drain begins is served', async (t) => {
  const { port, close } = await setUp(t, (_req, res) => void res.end('ok'))
  const kept = await open(t, port, GET)
  await kept.until(/ok$/)
  const halfway = await open(t, port, `${GET}GET / HTTP/1.1\r\nHo`)
  await halfway.until(/ok$/)
  const fresh = await open(t, port)
  const closing = close()
  await delay(100)
  kept.socket.write(GET)
  halfway.socket.write('st: app.test\r\n\r\n')
  fresh.socket.write(GET)
  await Promise.all([closing, kept.closed, halfway.closed, fresh.closed])
  for (const [{ said }, answers] of [
    [kept, 2],
    [halfway, 2],
    [fresh, 1],
  ] as const) {
    assert.deepEqual([answersIn(said.text), said.isReset], [answers, false])
    assert.match(said.text, /connection: close\r\n(?:[^\r]+\r\n)*\r\nok$/i)
  }
})

test('an answer whose head is out runs to its end, and a tunnel too', async (t) => {
  const { port, close } = await setUp(t, (_req, res) => {
    res.write('begun')
    setTimeout(() => res.end('ended'), 700)
  })
  const stream = await open(t, port, GET)
  const tunnel = await open(t, port, GET.replace('\r\n\r\n', '\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'))
  await stream.until(/begun/)
  await tunnel.until(/ 101 /)
  await close()
  await Promise.all([stream.closed, tunnel.closed])
  assert.match(stream.said.text, /ended\r\n0\r\n\r\n$/)
  assert.match(tunnel.said.text, /bye$/)
})

test('with nothing under way a drain takes no time, and kept connections only the moment of their grace', async (t) => {
  const quick = await setUp(t, (_req, res) => void res.end('ok'))
  assert.ok((await quick.close()) < 100)
  const idle = await setUp(t, (_req, res) => void res.end('ok'))
  const kept = await open(t, idle.port, GET)
  await kept.until(/ok$/)
  await delay(400)
  assert.ok((await idle.close()) < 250, 'one that has idled for its grace already')
  const recent = await setUp(t, (_req, res) => void res.end('ok'))
  const fresh = await open(t, recent.port, GET)
  const silent = await open(t, recent.port)
  const slow = await open(t, recent.port, 'GET / HT')
  await fresh.until(/ok$/)
  const tookMs = await recent.close()
  assert.ok(tookMs > 200 && tookMs < 1_500, `${tookMs} ms`)
  await Promise.all([kept.closed, fresh.closed, silent.closed, slow.closed])
})

test('what is still open at the deadline is cut', async (t) => {
  const { port, close } = await setUp(t, (_req, res) => void res.write('begun'), { drainMs: 400 })
  const stream = await open(t, port, GET)
  await stream.until(/begun/)
  const tookMs = await close()
  assert.ok(tookMs > 300 && tookMs < 2_000, `${tookMs} ms`)
  await stream.closed
  assert.doesNotMatch(stream.said.text, /0\r\n\r\n$/)
})

test('a delay accepts on; the first hurry ends it, the second one cuts what still runs', async (t) => {
  const { port, listeners } = await setUp(t, (_req, res) => void res.write('begun'), {
    delayMs: () => 60_000,
  })
  const closed = listeners.close()
  const late = await open(t, port, GET)
  await late.until(/begun/)
  listeners.hurry()
  const refused = async () => {
    const socket = connect({ port, host: '127.0.0.1' })
    const [event] = await Promise.race(
      ['connect', 'error'].map(async (name) => [name, await once(socket, name)]),
    )
    socket.destroy()
    return event === 'error'
  }
  while (!(await refused().catch(() => true)));
  assert.equal(late.said.isReset, false)
  listeners.hurry()
  await Promise.all([closed, late.closed])
  assert.doesNotMatch(late.said.text, /0\r\n\r\n$/)
})

describe('a socket that cannot be opened is named by its setting, with the cure', () => {
  const listenAt = (addresses: { public: typeof FREE; admin: typeof FREE }) =>
    createListeners({
      ...{ publicServer: createServer(), adminServer: createServer(), addresses, drainMs: 1 },
      ...{ onStop() {}, onDrain() {}, release: async () => {} },
    }).listen()

  test('when its port is taken', async (t) => {
    const taken = createServer()
    t.after(() => taken.close())
    const port = await listenOn(taken, FREE)
    const told = {
      name: 'ListenError',
      code: 'EADDRINUSE',
      port,
      cure: /end that process, or choose another port/,
    }
    const at = { host: '127.0.0.1', port }
    const said = (field: string) => `${field}: 127.0.0.1:${port} is taken by another process`
    await assert.rejects(listenAt({ public: at, admin: FREE }), {
      ...told,
      field: 'listen',
      message: said('listen'),
    })
    await assert.rejects(listenAt({ public: FREE, admin: at }), { ...told, message: said('admin.listen') })
  })

  test('when its address is of another machine, or its name of none', async () => {
    const other = { host: '192.0.2.1', port: 0 }
    await assert.rejects(listenAt({ public: other, admin: FREE }), {
      message: 'listen: 192.0.2.1:0 is no address of this machine',
    })
    await assert.rejects(listenAt({ public: FREE, admin: { host: 'nowhere.invalid', port: 0 } }), {
      message: /^admin\.listen: nowhere\.invalid:0 has a name that/,
    })
  })
})
