import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import type { StatusDocument } from '../../src/admin/console/status.ts'
import { type ScriptedAzure, startEntraV2 } from '../kit/azure/azure-ad.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { createTestClock, type TestClock } from '../kit/clock.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { sendText, startLocalServer } from '../kit/local-server.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { rsaKey, selfSigned } from '../kit/self-signed.ts'
import { APP, type Scope } from '../kit/shops/shop.ts'
import { accessRule } from '../kit/store/access-rule.ts'
import { startRedis, type TestRedis } from '../kit/store/redis.ts'

const MINUTE_MS = 60_000
/** Less than a minute, so that each minute renews all of them. */
const TOKEN_SECONDS = 50
const USERS = 3
/** Minutes before the fault. */
export const QUIET_MINUTES = 2
const REDIS_PASSWORD = 'the-password-of-the-redis-user'

/** What all drills share, because to start it costs more than a drill. */
export type Stage = {
  readonly redis: TestRedis
  readonly rotating: RotatingProvider
  readonly entra: ScriptedAzure
  /** The upstream of `orders`, with TLS. */
  readonly orders: TlsUpstream
  readonly billing: PlainUpstream
  /** Of all machines, and how far that of the rotating provider is set ahead of it. */
  readonly clock: TestClock
  readonly provider: { aheadMs: number }
}

/** A service whose day has all that a night may break: a minute of it is three users' requests, and a sign-in. */
export type Scene = Stage & {
  readonly cloakroom: RunningCloakroom
  /** The `session:` section. */
  readonly session: { readonly store: ConfigData; readonly keys: readonly string[] }
  /** What is known to nobody but the parties: none of it may be logged. */
  secrets(): readonly string[]
  /** The text of `/metrics` at the end of each minute so far. */
  readonly scrapes: readonly string[]
  /** Status and problem code of the users' requests in the last minute, by path. */
  readonly answers: Readonly<Record<string, string>>
  /** Lets a minute go by. */
  minute(): Promise<void>
  status(): Promise<StatusDocument>
}

/** Starts a redis-server, two providers and two upstreams. */
export async function setStage(t: Scope): Promise<Stage> {
  const clock = createTestClock(Date.now())
  const provider = { aheadMs: 0 }
  t.after(letRun(clock))
  const [redis, rotating, entra, orders, billing] = await Promise.all([
    startRedis(),
    startRotatingProvider({ now: () => clock.now() + provider.aheadMs }),
    startEntraV2({ policy: { accessTokenSeconds: TOKEN_SECONDS }, date: clock.now }),
    startTlsUpstream(),
    startPlainUpstream(),
  ])
  Object.assign(rotating.control, { accessTokenSeconds: TOKEN_SECONDS, idTokenOnRefresh: true })
  t.after(() => Promise.all([redis.stop(), ...[rotating, entra, orders, billing].map((one) => one.close())]))
  return { redis, rotating, entra, orders, billing, clock, provider }
}

/** Time goes by by itself, too, for what waits within a minute. Returns what stops it. */
function letRun(clock: TestClock): () => void {
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    clock.advance(now - last)
    last = now
  }, 10)
  return () => clearInterval(timer)
}

/** A server that can be taken away, and come back at the same address. */
async function startPlainUpstream() {
  let server = await startLocalServer((_request, res) => sendText(res, 200, 'a bill'))
  const { origin: url, port } = server
  return {
    url,
    stop: () => server.close(),
    async start() {
      server = await startLocalServer((_request, res) => sendText(res, 200, 'a bill'), port)
    },
    close: () => server.close(),
  }
}

type PlainUpstream = Awaited<ReturnType<typeof startPlainUpstream>>
type TlsUpstream = Awaited<ReturnType<typeof startTlsUpstream>>

/** A server with a certificate for localhost. */
async function startTlsUpstream() {
  const key = rsaKey()
  const good = selfSigned(['localhost'], { key })
  const expired = selfSigned(['localhost'], { key, days: -1 })
  const server = createTlsServer(good, (_req, res) => res.end('an order'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `https://localhost:${port}`,
    ca: good.cert + expired.cert,
    /** What new connections are shown; those that are open end. */
    show(which: 'good' | 'expired') {
      server.setSecureContext(which === 'good' ? good : expired)
      server.closeAllConnections()
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Everything is well again, and a new Cloakroom has served it for two minutes. */
export async function setScene(
  t: Scope,
  stage: Stage,
  { provider = 'rotating' }: { provider?: 'rotating' | 'entra' } = {},
): Promise<Scene> {
  const { redis, orders, billing, clock } = stage
  await redis.cli('FLUSHALL')
  await redis.cli(...accessRule(REDIS_PASSWORD))
  const key = sessionKey()
  const session = {
    store: { type: 'redis', url: redis.url, username: 'cloakroom', password: REDIS_PASSWORD },
    keys: [key],
  }
  const config: ConfigData = {
    publicUrl: APP,
    provider: stage[provider].settings,
    session,
    resources:
      provider === 'rotating'
        ? { orders: { resource: ORDERS }, billing: { resource: BILLING } }
        : { orders: { scopes: [`${ORDERS}/read`] }, billing: { scopes: [`${BILLING}/read`] } },
    routes: [
      { path: '/api/orders', id: 'orders', upstream: orders.url, tls: { ca: orders.ca }, resource: 'orders' },
      { path: '/api/billing', id: 'billing', upstream: billing.url, resource: 'billing' },
    ],
  }
  const cloakroom = await startCloakroom(config, { clock })
  t.after(() => cloakroom.close())
  const users = Array.from({ length: USERS }, () => cloakroom.browser())
  for (const user of users) await user.signIn()
  const scrapes: string[] = []
  const answers: Record<string, string> = {}
  async function ask(user: Browser, path: string): Promise<void> {
    const answer = await user.fetch(path)
    const code = answer.headers['cloakroom-error']
    const told = [answer.status, code].filter(Boolean).join(' ')
    answers[path] = answers[path] === undefined || answers[path] === told ? told : `${answers[path]}, ${told}`
  }
  async function minute(): Promise<void> {
    await clock.elapse(MINUTE_MS)
    for (const path of Object.keys(answers)) delete answers[path]
    for (const user of users) for (const path of ['/api/orders', '/api/billing']) await ask(user, path)
    const visitor = cloakroom.browser()
    await visitor.signIn().catch(() => undefined)
    visitor.close()
    await turn()
    scrapes.push(await (await fetch(`${cloakroom.adminUrl}/metrics`)).text())
  }
  for (let quiet = 0; quiet < QUIET_MINUTES; quiet += 1) await minute()
  return {
    ...stage,
    cloakroom,
    session,
    scrapes,
    answers,
    minute,
    secrets: () =>
      [
        ...[REDIS_PASSWORD, key, stage.rotating.clientSecret, stage.entra.clientSecret ?? ''],
        ...stage.rotating.issuedSecrets,
        ...stage.entra.issuedSecrets,
        ...users.map((user) => user.cookieHeader()),
      ].filter(Boolean),
    status: async () => (await fetch(`${cloakroom.adminUrl}/api/status`)).json() as Promise<StatusDocument>,
  }
}

export const ORDERS = 'https://orders.example.com'
export const BILLING = 'https://billing.example.com'
