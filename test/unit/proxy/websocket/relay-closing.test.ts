import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { closeFrame } from '../../../../src/proxy/websocket/frames.ts'
import type { TunnelDeps } from '../../../../src/proxy/websocket/tunnel.ts'
import { steadyNow } from '../../../kit/steady.ts'
import { isWholeHead, type RawClient, rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'
import {
  closing,
  handshake,
  openTunnel,
  SESSION,
  SWITCHED,
  tunnelTo,
} from '../../../kit/upstream/tunnel-kit.ts'

const ENDED = closeFrame('server', 1008, 'session ended').toString('latin1')
/** A binary frame of ten bytes from a server, and from a client with an idle mask. */
const TEN = '\x82\x0a0123456789'
const TEN_MASKED = '\x82\x8a\0\0\0\x000123456789'

/** A tunnel between two raw sockets; `far` is the upstream's, and what it received after the handshake. */
async function openRawTunnel(t: TestContext) {
  const connected = Promise.withResolvers<Socket>()
  const upstream = await rawUpstream(t, (socket, received) => {
    if (!received.endsWith('\r\n\r\n')) return
    socket.write(`${SWITCHED}\r\n`)
    connected.resolve(socket)
  })
  const listening = await tunnelTo(t, upstream.origin)
  const client = rawClient(t, listening.port, handshake())
  await client.until(isWholeHead)
  const far = await connected.promise
  const said = () => upstream.received[0]!.split('\r\n\r\n').slice(1).join('')
  return { ...listening, client, far, said, farClosed: upstream.closed[0]!, heard: () => bodyOf(client) }
}

function bodyOf(client: RawClient): string {
  return client.text().slice(client.text().indexOf('\r\n\r\n') + 4)
}

describe('how a tunnel closes', { concurrency: true }, () => {
  test('the client of a session that ended is told 1008, and its upstream 1001', async (t) => {
    const { client, far, tunnel } = await openTunnel(t)
    const told = Promise.all([closing(client), closing(far)])
    tunnel.endSession(SESSION.hash)
    assert.deepEqual(await told, [
      [1008, 'session ended'],
      [1001, ''],
    ])
  })

  test('at shutdown both are told 1001', async (t) => {
    const { client, far, tunnel } = await openTunnel(t)
    const told = Promise.all([closing(client), closing(far)])
    tunnel.closeAll()
    assert.deepEqual(await told, [
      [1001, 'shutting down'],
      [1001, ''],
    ])
  })

  test('a client that keeps sending hears of the end all the same', async (t) => {
    const { client, far, tunnel } = await openTunnel(t)
    const sending = setInterval(() => client.send(Buffer.alloc(60_000)), 1)
    t.after(() => clearInterval(sending))
    await once(far, 'message')
    tunnel.endSession(SESSION.hash)
    const [code] = await closing(client)
    assert.equal(code, 1008)
  })

  test('a frame on its way to the client arrives whole, and nothing after it but the close frame', async (t) => {
    const { client, far, farClosed, heard, tunnel } = await openRawTunnel(t)
    far.write(TEN + TEN.slice(0, 5), 'latin1')
    await client.until(() => heard().length === 17)
    tunnel.endSession(SESSION.hash)
    far.write(TEN.slice(5) + TEN, 'latin1')
    await client.until(() => heard().endsWith(ENDED))
    assert.equal(heard(), TEN + TEN + ENDED)
    client.socket.write(closeFrame('client', 1008, ''))
    far.write(closeFrame('server', 1001, ''))
    await Promise.all([client.closed, farClosed])
    assert.equal(heard(), TEN + TEN + ENDED)
  })

  test('a frame on its way to the upstream arrives whole, and nothing after it but a close frame', async (t) => {
    const { client, farClosed, said, tunnel } = await openRawTunnel(t)
    client.socket.write(TEN_MASKED.slice(0, 9), 'latin1')
    while (said().length < 9) await setImmediate()
    tunnel.endSession(SESSION.hash)
    client.socket.write(TEN_MASKED.slice(9) + TEN_MASKED, 'latin1')
    await farClosed
    assert.equal(said().slice(0, 16), TEN_MASKED)
    assert.equal(said().length, 16 + 8)
    assert.equal(said().slice(16, 18), '\x88\x82')
  })

  test('a frame that does not end within a second is cut by closing the connection', async (t) => {
    const { client, far, farClosed, heard, said, tunnel } = await openRawTunnel(t)
    far.write(TEN.slice(0, 5), 'latin1')
    await client.until(() => heard().length === 5)
    const startedAt = steadyNow()
    tunnel.endSession(SESSION.hash)
    await client.closed
    assert.equal(heard(), TEN.slice(0, 5))
    assert.ok(steadyNow() - startedAt < 1_500)
    assert.match(said(), /^\x88\x82/, 'the upstream is told at once')
    await farClosed
    assert.ok(steadyNow() - startedAt < 2_500)
  })

  test('a client that does not answer the close frame is left after two seconds', async (t) => {
    const { client, farClosed, heard, tunnel } = await openRawTunnel(t)
    const startedAt = steadyNow()
    tunnel.endSession(SESSION.hash)
    await Promise.all([client.closed, farClosed])
    assert.equal(heard(), ENDED)
    assert.ok(steadyNow() - startedAt < 2_500)
  })

  test('what is no WebSocket is closed without a frame', async (t) => {
    const { client, far, farClosed, heard, tunnel } = await openRawTunnel(t)
    far.write('HTTP/1.1 200 OK\r\n', 'latin1')
    client.socket.write('GET / HTTP/1.1\r\n')
    await client.until(() => heard() !== '')
    tunnel.endSession(SESSION.hash)
    await Promise.all([client.closed, farClosed])
    assert.equal(heard(), 'HTTP/1.1 200 OK\r\n')
  })

  test('after a close frame of the upstream no second one is sent', async (t) => {
    const { client, far, farClosed, heard, tunnel } = await openRawTunnel(t)
    const bye = closeFrame('server', 1000, 'bye').toString('latin1')
    far.write(bye, 'latin1')
    await client.until(() => heard() === bye)
    tunnel.endSession(SESSION.hash)
    await Promise.all([client.closed, farClosed])
    assert.equal(heard(), bye)
  })

  test('a reset while it closes ends both sides', async (t) => {
    const { client, far, farClosed, heard, tunnel } = await openRawTunnel(t)
    far.write(TEN.slice(0, 5), 'latin1')
    await client.until(() => heard().length === 5)
    tunnel.endSession(SESSION.hash)
    far.resetAndDestroy()
    await Promise.all([client.closed, farClosed])
    while (tunnel.count() > 0) await setImmediate()
  })

  test('a session that ends while its tunnel is being opened gets none', async (t) => {
    const dialled = Promise.withResolvers<void>()
    const upstream = await rawUpstream(t, () => dialled.resolve())
    const { port, tunnel } = await tunnelTo(t, upstream.origin)
    const client = rawClient(t, port, handshake())
    await dialled.promise
    tunnel.endSession(SESSION.hash)
    assert.match((await client.closed).text, /session_required$/)
    await upstream.closed[0]
  })

  test('nor does one open while this process ends', async (t) => {
    const dialled = Promise.withResolvers<void>()
    const upstream = await rawUpstream(t, () => dialled.resolve())
    const { port, tunnel } = await tunnelTo(t, upstream.origin)
    const client = rawClient(t, port, handshake())
    await dialled.promise
    tunnel.closeAll()
    assert.match((await client.closed).text, /upstream_unreachable$/)
    await upstream.closed[0]
  })

  test('an end that came while the session was being read is seen by the look after it', async (t) => {
    const timeLeft: TunnelDeps['timeLeft'] = async () => undefined
    const upstream = await rawUpstream(t, () => {})
    const { port } = await tunnelTo(t, upstream.origin, { timeLeft })
    assert.match((await rawClient(t, port, handshake()).closed).text, /session_required$/)
  })

  test('the timeout of the session closes with 1008', async (t) => {
    let clock = 0
    const timeLeft: TunnelDeps['timeLeft'] = async () => 30 - clock
    const { client } = await openTunnel(t, { timeLeft })
    clock = 30
    assert.deepEqual(await closing(client), [1008, 'session ended'])
  })
})
