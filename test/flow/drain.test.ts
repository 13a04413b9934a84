import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startBusyClients } from '../kit/busy-clients.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const MAIN = process.env.CLOAKROOM_MAIN ?? fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const ORDERS = 'https://orders.test'

function serve(file: string, ports: Record<string, string>) {
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env
  const env = { ...inherited, ...ports }
  return spawn(process.execPath, [MAIN, 'serve', '--config', file], {
    env,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
}

/** The lines of one that ends by itself. */
async function outputOf(file: string, ports: Record<string, string>): Promise<string[]> {
  const { stdout } = serve(file, ports)
  return (await text(stdout)).trim().split('\n')
}

/** Starts a server that accepts connections and never answers; resolves with its port. */
async function startSilent(t: TestContext, onConnection: () => unknown): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    onConnection()
  }).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

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
  const port = await startSilent(t, () => child.kill('SIGTERM'))
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
  const child = serve(config.file, { PUBLIC_PORT: '0', ADMIN_PORT: '0' })
  t.after(() => child.kill('SIGKILL'))
  assert.deepEqual(await once(child, 'exit'), [0, null])
})

test('a provider that is asked for its endpoints and never answers does not keep the process after a signal', async (t) => {
  const asked = Promise.withResolvers<void>()
  const port = await startSilent(t, asked.resolve)
  const config = await writeReplicaConfig({
    provider: {
      ...{ issuer: `http://127.0.0.1:${port}`, timeout: '100s' },
      ...{ clientId: 'cloakroom', clientAuth: { method: 'none' } },
    },
    resources: {},
    routes: [{ path: '/', upstream: 'http://127.0.0.1:9', auth: 'anonymous' }],
  })
  t.after(() => config.remove())
  const replica = await startReplica({ configFile: config.file })
  t.after(() => replica.stop('SIGKILL'))
  await asked.promise
  replica.signal('SIGTERM')
  const ended = await Promise.race([replica.exited, delay(30_000, 'still there', { ref: false })])
  assert.deepEqual(ended, { code: 0, signal: null })
})

test('with drainDelay it is not ready and still accepts; a second signal ends the delay; a port that is taken is named', async (t) => {
  const config = await writeReplicaConfig({
    drainDelay: '10m',
    provider: { issuer: 'http://127.0.0.1:9', clientId: 'cloakroom', clientAuth: { method: 'none' } },
    resources: {},
    routes: [{ path: '/', upstream: 'http://127.0.0.1:9', auth: 'anonymous' }],
  })
  t.after(() => config.remove())
  const replica = await startReplica({ configFile: config.file })
  t.after(() => replica.stop('SIGKILL'))
  const lines = () => replica.stdout.map((line) => JSON.parse(line) as Record<string, unknown>)
  assert.match(String(lines()[0]?.msg), /^cloakroom \d+\.\d+\.\d+ starts with Node\.js 2\d\./)
  assert.match(String(lines()[0]?.version), /^\d+\.\d+\.\d+$/)

  const { port } = new URL(replica.listenUrl)
  const [line] = (await outputOf(config.file, { PUBLIC_PORT: port, ADMIN_PORT: '0' })).slice(-1)
  const { level, path, cure, msg, err } = JSON.parse(line!) as Record<string, unknown>
  assert.deepEqual([level, path, (err as { code: string }).code], ['error', 'listen', 'EADDRINUSE'])
  assert.equal(msg, `cannot start: listen: 127.0.0.1:${port} is taken by another process`)
  assert.match(String(cure), /choose another port/)

  replica.signal('SIGTERM')
  const state = (): Promise<[number, { draining?: boolean }]> =>
    fetch(`${replica.adminUrl}/readyz`).then(
      async (answer) => [answer.status, await answer.json()] as [number, object],
    )
  await eventually('it is not ready', async () => (await state())[0] === 503)
  assert.equal((await state())[1].draining, true)
  const accepted = await fetch(`${replica.listenUrl}/bff/user`, {
    headers: { 'x-csrf': '1', connection: 'close' },
  })
  assert.equal(accepted.status, 401)
  await accepted.arrayBuffer()
  replica.signal('SIGTERM')
  assert.deepEqual(await replica.exited, { code: 0, signal: null })
  assert.match(replica.stdout.join('\n'), /a second signal: the shutdown waits no longer/)
})
