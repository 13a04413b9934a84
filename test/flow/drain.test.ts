import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { startBusyClients } from '../kit/busy-clients.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/rotating-provider.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { startUpstream } from '../kit/upstream.ts'

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
  await delay(500)
  await cloakroom.close()
  const [onRoute, onOwn] = await Promise.all(crowds.map((crowd) => crowd.gone()))
  assert.deepEqual([onRoute!.failures, onOwn!.failures], [{}, {}])
  assert.ok(onRoute!.answered > 50 && onOwn!.answered > 50)
})
