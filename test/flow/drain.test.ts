import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { startBusyClients } from '../kit/busy-clients.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { writeReplicaConfig } from '../kit/replica.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const ORDERS = 'https://orders.test'

test('no request of busy users is lost to a shutdown, on routes and on our own endpoints', async (t) => {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  api.answer.delayMs = 5
  const cloakroom = await startCloakroom(
    {
      publicUrl: 'https://app.test',
      provider: provider.settings,
      resources: { orders: { resource: ORDERS, audience: ORDERS } },
      routes: [{ path: '/api', upstream: api.url, resource: 'orders' }],
    },
    { idleGraceMs: 1_000 },
  )
  const alice = cloakroom.browser()
  await alice.signIn({ returnUrl: '/api' })
  const headers = { host: 'app.test', 'x-csrf': '1', cookie: alice.cookieHeader() }
  const port = Number(new URL(cloakroom.listenUrl).port)
  const crowds = ['/api/x', '/bff/user'].map((path) =>
    startBusyClients(port, { clients: 10, pausesMs: [0, 3, 50], path, headers }),
  )
  await t.waitFor(() => assert.ok(crowds.every((crowd) => crowd.answered() > 50)), { timeout: 60_000 })
  await cloakroom.close()
  const [onRoute, onOwn] = await Promise.all(crowds.map((crowd) => crowd.gone()))
  assert.deepEqual([onRoute!.failures, onOwn!.failures], [{}, {}])
  assert.ok(onRoute!.answered > 50 && onOwn!.answered > 50)
})

test('a signal that comes before it listens is not lost: it ends with exit code 0', async (t) => {
  // A Redis that says nothing holds the start up for 2 s.
  const redis = createServer((socket) => {
    socket.on('error', () => {})
    child.kill('SIGTERM')
  }).listen(0, '127.0.0.1')
  t.after(() => redis.close())
  await once(redis, 'listening')
  const { port } = redis.address() as AddressInfo
  const config = await writeReplicaConfig({
    provider: {
      issuer: 'http://127.0.0.1:9',
      clientId: 'cloakroom',
      clientAuth: { method: 'none' },
      resourceDialect: 'scope',
    },
    session: {
      store: { type: 'redis', url: `redis://127.0.0.1:${port}` },
      keys: [randomBytes(32).toString('base64url')],
    },
    resources: {},
    routes: [{ path: '/', upstream: 'http://127.0.0.1:9', auth: 'anonymous' }],
  })
  t.after(() => config.remove())
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
  const env = { ...inherited, PUBLIC_PORT: '0', ADMIN_PORT: '0' }
  const child = spawn(process.execPath, [MAIN, 'serve', '--config', config.file], { env, stdio: 'ignore' })
  t.after(() => child.kill('SIGKILL'))
  assert.deepEqual(await once(child, 'exit'), [0, null])
})
