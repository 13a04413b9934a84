import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startChatUpstream } from '../kit/shops/websocket-shop.ts'

/** A Cloakroom behind a load balancer at 127.0.0.3, which clients may also reach directly. */
async function setUp(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const chat = await startChatUpstream(t)
  const cloakroom = await startCloakroom({
    publicUrl: 'https://app.test',
    trustProxy: ['127.0.0.3'],
    limits: { connectionsPerClient: 3, webSocketsPerClient: 2 },
    provider: provider.settings,
    resources: {},
    routes: [{ path: '/chat', upstream: chat.url, auth: 'anonymous', websocket: true }],
  })
  t.after(() => cloakroom.close())
  const port = Number(new URL(cloakroom.listenUrl).port)

  /** The status that a connection from `localAddress` gets for a WebSocket, or 0 when it is closed. */
  async function webSocketStatus(localAddress: string, forwardedFor?: string): Promise<number> {
    const socket = connect({ port, host: '127.0.0.1', localAddress })
    t.after(() => socket.destroy())
    socket.write(
      'GET /chat HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
        `${forwardedFor ? `X-Forwarded-For: ${forwardedFor}\r\n` : ''}\r\n`,
    )
    const said = await Promise.race([once(socket, 'data').then(String), once(socket, 'close').then(String)])
    return Number(/^HTTP\/1\.1 (\d{3})/.exec(said)?.[1] ?? 0)
  }
  return { cloakroom, webSocketStatus }
}

test('strangers share the connections and anonymous WebSockets of their address; a trusted proxy tells whose they are', async (t) => {
  const { cloakroom, webSocketStatus } = await setUp(t)
  const direct = [101, 101, 429]
  for (const status of direct) assert.equal(await webSocketStatus('127.0.0.1', '9.9.9.9'), status)
  for (const client of ['1.1.1.1', '2001:db8::1', '2.2.2.2'])
    for (const status of direct) assert.equal(await webSocketStatus('127.0.0.3', client), status, client)
  assert.equal(await webSocketStatus('127.0.0.3', '2001:db8::2'), 429)
  assert.equal(await webSocketStatus('127.0.0.2'), 101)
  const warnings = cloakroom.logs.filter((line) => line.includes('webSocketsPerClient'))
  assert.equal(warnings.length, 1)
})

test('connections beyond those of one address are closed and counted, those of a trusted proxy are not', async (t) => {
  const { cloakroom } = await setUp(t)
  const open = async (localAddress: string) => {
    const socket = connect({
      port: Number(new URL(cloakroom.listenUrl).port),
      host: '127.0.0.1',
      localAddress,
    })
    t.after(() => socket.destroy())
    await once(socket, 'connect')
    return socket
  }
  for (let n = 0; n < 3; n += 1) await open('127.0.0.1')
  await once((await open('127.0.0.1')).resume(), 'close')
  for (let n = 0; n < 5; n += 1) await open('127.0.0.3')
  const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
  assert.match(metrics, /^cloakroom_connections_refused_total\{reason="client_limit"\} 1$/m)
  assert.equal(cloakroom.logs.filter((line) => line.includes('connectionsPerClient')).length, 1)
})
