import { setTimeout as delay } from 'node:timers/promises'
import { type Browser, createBrowser } from '../kit/browsers/browser.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { sendText, startLocalServer } from '../kit/local-server.ts'
import { freePort } from '../kit/ports.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../kit/replica.ts'
import type { Scope } from '../kit/shops/shop.ts'
import { startRedis } from '../kit/store/redis.ts'

const REPLICAS = 2
const USERS = 6
const TURN_MS = 250

/** Two replicas on one Redis, a provider, an API that is well, one that fails, and one that is away. */
export async function startService(t: Scope) {
  const [redis, provider] = await Promise.all([startRedis(), startRotatingProvider()])
  t.after(() => redis.stop())
  t.after(() => provider.close())
  Object.assign(provider.control, { accessTokenSeconds: 6, latencyMs: 20 })
  const api = await startLocalServer((request, res) => {
    if (request.path.startsWith('/failing')) return sendText(res, 500, 'an error of its own')
    if (!request.path.startsWith('/events')) return sendText(res, 200, 'fine')
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    const timer = setInterval(() => res.write('data: x\n\n'), 500)
    res.once('close', () => clearInterval(timer))
  })
  t.after(() => api.close())
  const keys = [sessionKey()]
  const config = (changes: object = {}) => ({
    provider: { ...provider.settings, ...changes },
    session: { store: { type: 'redis', url: redis.url }, keys },
    rateLimits: { login: '40/1m' },
    resources: { orders: { resource: 'https://orders.test' }, billing: { resource: 'https://billing.test' } },
    routes: [
      { path: '/orders', upstream: api.origin, resource: 'orders' },
      { path: '/billing', upstream: api.origin, resource: 'billing' },
      { path: '/events', upstream: api.origin, resource: 'orders' },
      { path: '/failing', upstream: api.origin, auth: 'anonymous' },
      { path: '/away', upstream: downUrl, auth: 'anonymous' },
    ],
  })
  const downUrl = `http://127.0.0.1:${await freePort()}`
  const shared = await writeReplicaConfig(config())
  t.after(() => shared.remove())
  const start = async () => {
    const replica = await startReplica({ configFile: shared.file })
    t.after(() => replica.stop())
    return replica
  }
  const replicas = await Promise.all(Array.from({ length: REPLICAS }, start))
  const browserAt = ({ listenUrl }: Replica) =>
    createBrowser({ origin: shared.publicUrl, connect: { [shared.publicUrl]: listenUrl } })
  const reload = async (changes: object) => {
    await shared.rewrite(config(changes))
    for (const replica of replicas) replica.signal('SIGHUP')
  }
  return { provider, redis, replicas, browserAt, reload }
}

type Service = Awaited<ReturnType<typeof startService>>

/** Requests of all kinds for so many seconds, and in parts of that time the faults of a bad day. */
export async function mixedLoad(service: Service, seconds: number): Promise<void> {
  const until = performance.now() + seconds * 1_000
  const isOver = () => performance.now() > until
  const { provider, redis, replicas, browserAt } = service
  const users = Array.from({ length: USERS }, (_, n) => browserAt(replicas[n % REPLICAS]!))
  for (const user of users) await user.signIn()

  async function act(user: Browser): Promise<void> {
    while (!isOver()) {
      await user.fetch('/orders/1').catch(() => undefined)
      await user.fetch('/billing/1').catch(() => undefined)
      await user.fetch('/failing/1').catch(() => undefined)
      await delay(TURN_MS)
    }
  }

  /** Strangers, sign-ins and sign-outs. */
  async function others(): Promise<void> {
    for (let turn = 0; !isOver(); turn += 1) {
      const replica = replicas[turn % REPLICAS]!
      const visitor = browserAt(replica)
      await visitor.signIn().catch(() => undefined)
      await visitor.fetch('/bff/logout', { method: 'POST' }).catch(() => undefined)
      await visitor.fetch('/orders/1').catch(() => undefined)
      visitor.close()
      for (const path of ['/away/1', '/orders/1', '/bff/callback?error=access_denied&state=x', '/nowhere'])
        await fetch(replica.listenUrl + path, { redirect: 'manual' }).catch(() => undefined)
      await delay(3 * TURN_MS)
    }
  }

  const part = (seconds * 1_000) / 12
  async function faults(): Promise<void> {
    await delay(3 * part)
    provider.control.fault = { kind: 'status', status: 503, retryAfter: '1' }
    await delay(part)
    delete provider.control.fault
    await service.reload({ clientAuth: { method: 'client_secret_post', secret: 'the-secret-of-last-year' } })
    await delay(2 * part)
    await service.reload({})
    await delay(part)
    await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
    await delay(part)
    await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
  }
  await Promise.all([...users.map(act), others(), faults()])
  for (const user of users) user.close()
}
