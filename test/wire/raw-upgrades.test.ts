import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UPGRADE_CASES } from './cases/upgrades.ts'
import { inTime, openRawClient } from './raw-kit.ts'
import { playTable } from './suite.ts'
import { startWorld } from './world.ts'

playTable('upgrades', UPGRADE_CASES)

const HANDSHAKE =
  'Host: app.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://app.example.test\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n'
const SWITCHED =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n'

test('I4: a tunnel ends with close code 1008 within 5 s of its session, and its upstream with it', async (t) => {
  const world = await startWorld()
  t.after(() => world.close())
  world.upstream.scripts.set('/ws/x', { reply: SWITCHED })
  const client = openRawClient(world.port, () => ['GET'])
  client.write(`GET /ws/x HTTP/1.1\r\n${HANDSHAKE}Cookie: ${world.values.cookie}\r\n\r\n`)
  await inTime(
    client.until(() => client.text().includes('101')),
    () => 'the tunnel',
  )
  const out = await world.alice.fetch('/bff/logout', { method: 'POST' })
  assert.equal(out.status, 200)
  await inTime(client.closed, () => 'the end of the tunnel')
  await inTime(world.upstream.connections.at(-1)!.closed, () => "the end of the upstream's side")
  const { tunnel } = client.received()
  assert.equal(tunnel.charCodeAt(0), 0x88)
  assert.equal(tunnel.charCodeAt(2) * 256 + tunnel.charCodeAt(3), 1008)
})

test('I6: a token in the query of a handshake or request is not in the log', async (t) => {
  const world = await startWorld()
  t.after(() => world.close())
  for (const target of ['/ws/x', '/api/public/x']) {
    const client = openRawClient(world.port, () => ['GET'])
    const fields = target.startsWith('/ws') ? HANDSHAKE : 'Host: app.example.test\r\nConnection: close\r\n'
    world.upstream.scripts.set(`${target}?access_token=evil-token`, {
      reply: 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n',
    })
    client.write(
      `GET ${target}?access_token=evil-token HTTP/1.1\r\n${fields}Cookie: ${world.values.cookie}\r\n\r\n`,
    )
    await inTime(client.closed, () => 'the answer')
    assert.ok([400, 403].includes(client.received().answers[0]?.status ?? 0))
  }
  assert.ok(!world.cloakroom.logs.join('').includes('evil-token'))
})
