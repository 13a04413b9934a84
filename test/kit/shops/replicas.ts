import assert from 'node:assert/strict'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { type Browser, createBrowser } from '../browsers/browser.ts'
import { type RotatingProvider, startRotatingProvider } from '../provider/rotating-provider.ts'
import { type Replica, startTwoReplicas } from '../replica.ts'
import { steadyNow } from '../steady.ts'
import { startRedis } from '../store/redis.ts'
import { untilAfter } from './deadline.ts'
import { APP, BILLING, ORDERS, type Scope, startApis, verdict } from './shop.ts'

/** Two Cloakroom processes on one Redis, and a provider that ends the grant when a refresh token comes twice. */
export type Replicas = { readonly provider: RotatingProvider; readonly a: Replica; readonly b: Replica }

/** What one round measured. */
export type Round = {
  /** From the first of the requests to the last answer. */
  readonly renewalMs: number
  /** From the answer to the logout on A to the first 401 of B. */
  readonly logoutSeenMs: number
  /** Requests that B still served in that time. */
  readonly servedAfterLogout: number
}

const REQUESTS = 200
const PATHS = { '/api/orders': ORDERS, '/api/billing': BILLING }
/** Long enough at the provider for every request of both replicas to be waiting. */
const PROVIDER_LATENCY_MS = 150

/** Starts everything; both replicas are ready. */
export async function startReplicas(t: Scope): Promise<Replicas> {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const redis = await startRedis()
  t.after(() => redis.stop())
  const { config } = await startApis(t, {
    provider: provider.settings,
    jwks: provider.endpoints.jwks,
    redisUrl: redis.url,
  })
  const [a, b] = await startTwoReplicas(t, config)
  return { provider, a, b }
}

/** A new session: all its tokens expire, everybody comes at once to both replicas, then it ends on one of them. */
export async function playRound(replicas: Replicas): Promise<Round> {
  const { a, b, provider } = replicas
  const browser = createBrowser({ origin: APP, connect: { [APP]: a.listenUrl } })
  provider.control.accessTokenSeconds = 2
  provider.control.latencyMs = 0
  const issuedBefore = provider.issuedSecrets.length
  await browser.signIn()
  await callEach(browser, [a, b])
  await untilExpired(provider.issuedSecrets.slice(issuedBefore))
  provider.control.accessTokenSeconds = 300
  const renewalMs = await assertRenewedOnce(replicas, browser)
  await callEach(browser, [a, b])
  const seen = await assertLogoutSeen(replicas, browser)
  assert.deepEqual(provider.violations, [])
  browser.close()
  return { renewalMs, ...seen }
}

/** A new session that ends on one of them. */
export async function measureLogout(replicas: Replicas): Promise<Omit<Round, 'renewalMs'>> {
  const { a, b } = replicas
  const browser = createBrowser({ origin: APP, connect: { [APP]: a.listenUrl } })
  await browser.signIn()
  await callEach(browser, [a, b])
  const seen = await assertLogoutSeen(replicas, browser)
  browser.close()
  return seen
}

async function callEach(browser: Browser, replicas: readonly Replica[]): Promise<void> {
  for (const { listenUrl: via } of replicas)
    for (const [path, audience] of Object.entries(PATHS))
      assert.deepEqual(verdict(await browser.fetch(path, { via })), [200, audience])
}

/** Nobody asks meanwhile, so no newer token can appear; a second more, because the provider counts in whole ones. */
async function untilExpired(issued: readonly string[]): Promise<void> {
  const ends = issued.map((secret) => jwtClaims(secret)).filter((claims) => claims?.client_id)
  await untilAfter((Math.max(...ends.map((claims) => Number(claims?.exp))) + 1) * 1000)
}

async function assertRenewedOnce({ provider, a, b }: Replicas, browser: Browser): Promise<number> {
  const { counters } = provider
  provider.control.latencyMs = PROVIDER_LATENCY_MS
  const before = { ...counters, refreshesByResource: { ...counters.refreshesByResource } }
  counters.mostConcurrentRefreshes = 0
  const paths = Object.keys(PATHS)
  const startedAt = performance.now()
  const answers = await Promise.all(
    Array.from({ length: REQUESTS }, (_, index) =>
      browser.fetch(paths[index % 2]!, { via: [a, b][(index >> 1) % 2]!.listenUrl }),
    ),
  )
  const renewalMs = performance.now() - startedAt
  const verdicts = answers.map((answer, index) => [paths[index % 2], ...verdict(answer)].join(' '))
  const wanted = Object.entries(PATHS).map(([path, audience]) => `${path} 200 ${audience}`)
  assert.deepEqual([...new Set(verdicts)].sort(), wanted.sort())
  const made = (audience: string) =>
    (counters.refreshesByResource[audience] ?? 0) - (before.refreshesByResource[audience] ?? 0)
  assert.deepEqual([made(ORDERS), made(BILLING)], [1, 1])
  assert.equal(counters.refreshCalls - before.refreshCalls, 2)
  assert.equal(counters.mostConcurrentRefreshes, 1)
  assert.equal(counters.reuseDetected, 0)
  provider.control.latencyMs = 0
  return renewalMs
}

async function assertLogoutSeen({ a, b }: Replicas, browser: Browser): Promise<Omit<Round, 'renewalMs'>> {
  // The clone keeps the cookie that the logout takes from the browser.
  const elsewhere = browser.clone()
  const commands = await storeCommands(b)
  await callEach(elsewhere, [b])
  assert.equal(await storeCommands(b), commands, 'B serves this session from its own copies')

  const logout = await browser.fetch('/bff/logout', { method: 'POST', via: a.listenUrl })
  const answeredAt = steadyNow()
  assert.equal(logout.status, 200)
  for (let servedAfterLogout = 0; ; servedAfterLogout += 1) {
    const answer = await elsewhere.fetch('/api/orders', { via: b.listenUrl })
    const logoutSeenMs = steadyNow() - answeredAt
    if (answer.status === 401) {
      elsewhere.close()
      return { logoutSeenMs, servedAfterLogout }
    }
    assert.ok(logoutSeenMs < 10_000, 'B never hears of the logout')
  }
}

/**
 * How many commands a replica has sent to Redis for its users: all but its own heartbeat and probes, and what it writes
 * beside their requests of from where a session was used.
 */
async function storeCommands({ adminUrl }: Replica): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  const counts = text.matchAll(
    /^cloakroom_store_command_duration_seconds_count\{command="(\w+)".*\} (\d+)$/gm,
  )
  const own = new Set([...['heartbeat', 'ping', 'subscribe', 'noteAbout', 'indexUser', 'indexIdpSession']])
  return [...counts].reduce((sum, [, command = '', count]) => sum + (own.has(command) ? 0 : Number(count)), 0)
}
