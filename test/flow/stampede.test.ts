import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Browser } from '../kit/browsers/browser.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'
import { steadyNow } from '../kit/steady.ts'

const LIFE_MS = 300_000
const CONCURRENCY = 8
const BATCH = 20
/** `timeout.response` of a route: so long a request waits for its token. */
const DEFAULT_RESPONSE_MS = 30_000
const SHORT_RESPONSE_MS = 2_500
/** From the answer that Cloakroom gives in time to its arrival here, on a machine that is busy with all of them. */
const LATE_MS = 1_500

test('300 sessions whose tokens expire at once: all are served, and the provider sees 8 refreshes at a time', async (t) => {
  const { provider, shop, clock, browsers } = await signedIn(t, 300)
  const before = provider.counters.refreshCalls
  clock.advance(LIFE_MS)
  provider.control.latencyMs = 50
  const { answers, longestMs } = await askAllTimed(browsers)
  for (const answer of answers) assert.deepEqual(verdict(answer), [200, ORDERS])
  assert.ok(longestMs < DEFAULT_RESPONSE_MS, `a request waited for ${longestMs} ms`)
  const { refreshCalls, reuseDetected, mostConcurrentRefreshes } = provider.counters
  assert.deepEqual(
    { refreshes: refreshCalls - before, reuseDetected, mostConcurrentRefreshes },
    { refreshes: 300, reuseDetected: 0, mostConcurrentRefreshes: CONCURRENCY },
  )
  assert.deepEqual(provider.violations, [])
  const metrics = await (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()
  for (const line of [
    'cloakroom_provider_calls_in_flight 0',
    'cloakroom_provider_queue 0',
    'cloakroom_provider_breaker_state 0',
    'cloakroom_provider_call_duration_seconds_count{grant="authorization_code",outcome="ok"} 300',
    'cloakroom_provider_call_duration_seconds_count{grant="refresh_token",outcome="ok"} 300',
  ]) {
    assert.ok(metrics.split('\n').includes(line), line)
  }
})

test('a provider that answers 503 to a stampede is not asked for as long as its Retry-After says, and then serves all', async (t) => {
  const { provider, shop, clock, browsers } = await signedIn(t, 60)
  const logged = (text: string) => shop.cloakroom.logs.filter((line) => line.includes(text)).length
  clock.advance(LIFE_MS)
  provider.control.latencyMs = 20
  provider.control.fault = { kind: 'status', status: 503, retryAfter: '20', leg: 'refresh' }
  for (const answer of await askAll(browsers)) {
    assert.deepEqual(verdict(answer), [503, 'provider_unavailable'])
    const seconds = Number(answer.headers['retry-after'])
    // Replicas that are told the same second come back up to a tenth later.
    assert.ok(seconds > 0 && seconds <= 22, String(seconds))
  }
  const asked = provider.counters.refreshCalls
  assert.ok(asked >= 5 && asked < 5 + CONCURRENCY, `${asked} refreshes reached it`)
  clock.advance(10_000)
  await askAll(browsers)
  assert.equal(provider.counters.refreshCalls, asked, 'it is not asked')

  clock.advance(13_000)
  assert.deepEqual(verdict(await browsers[0]!.fetch('/api/orders')), [503, 'provider_unavailable'])
  assert.equal(provider.counters.refreshCalls, asked + 1, 'one probe goes')

  provider.control.fault = undefined
  clock.advance(23_000)
  assert.deepEqual(verdict(await browsers[1]!.fetch('/api/orders')), [200, ORDERS])
  for (const answer of await askAll(browsers)) assert.deepEqual(verdict(answer), [200, ORDERS])
  assert.deepEqual([logged('fails again and again'), logged('answers again')], [1, 1])
  assert.equal(provider.counters.reuseDetected, 0)
})

test('a reload in the middle of a stampede: 8 refreshes at a time all the same, and a breaker that is open stays open', async (t) => {
  const { provider, shop, clock, browsers } = await signedIn(t, 40)
  clock.advance(LIFE_MS)
  provider.control.latencyMs = 200
  const before = provider.counters.refreshCalls
  const first = askAll(browsers.slice(0, 20))
  await eventually('all places are taken', () => provider.counters.refreshCalls - before >= CONCURRENCY)
  await shop.cloakroom.reload({})
  const second = askAll(browsers.slice(20))
  for (const answer of [...(await first), ...(await second)]) assert.deepEqual(verdict(answer), [200, ORDERS])
  assert.equal(provider.counters.mostConcurrentRefreshes, CONCURRENCY)

  provider.control.fault = { kind: 'status', status: 503, retryAfter: '20', leg: 'refresh' }
  clock.advance(LIFE_MS)
  await askAll(browsers)
  await shop.cloakroom.reload({})
  const asked = provider.counters.refreshCalls
  await askAll(browsers)
  assert.equal(provider.counters.refreshCalls, asked)
  const metrics = await (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()
  assert.ok(metrics.includes('\ncloakroom_provider_breaker_state 2\n'))
})

test('a provider that is slower than all of them can wait: no request waits beyond the time that the route has for an answer', async (t) => {
  const { provider, shop, clock, browsers } = await signedIn(t, 60)
  await shop.cloakroom.reload({ routes: ordersWithin(shop.orders.url, SHORT_RESPONSE_MS) })
  clock.advance(LIFE_MS)
  // 8 at a time: a last one would wait for 8 s.
  provider.control.latencyMs = 1_000
  const { answers, longestMs } = await askAllTimed(browsers)
  assert.ok(longestMs < SHORT_RESPONSE_MS + LATE_MS, `a request waited for ${longestMs} ms`)
  const seen = new Map<string, number>()
  for (const answer of answers) {
    const found = verdict(answer).join(' ')
    seen.set(found, (seen.get(found) ?? 0) + 1)
    if (answer.status === 503) assert.ok(Number(answer.headers['retry-after']) >= 1)
  }
  assert.deepEqual([...seen.keys()].toSorted(), [`200 ${ORDERS}`, '503 provider_unavailable'])
  assert.ok((seen.get('503 provider_unavailable') ?? 0) >= 30, `${[...seen]}`)
  assert.ok(provider.counters.mostConcurrentRefreshes <= CONCURRENCY)

  provider.control.latencyMs = 10
  for (const browser of browsers)
    await eventually('all are served', async () => (await browser.fetch('/api/orders')).status === 200)
  assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [browsers.length, 0])
})

/** So many people, each signed in with a browser of their own. */
async function signedIn(t: TestContext, people: number) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    // Every one of them is to be served, however slow the machine is.
    provider: { ...provider.settings, concurrency: CONCURRENCY, timeout: '60s' },
    jwks: provider.endpoints.jwks,
    now: clock.now,
  })
  const browsers = Array.from({ length: people }, () => shop.browser())
  for (let start = 0; start < people; start += BATCH) {
    await Promise.all(browsers.slice(start, start + BATCH).map((browser) => browser.signIn()))
  }
  return { provider, shop, clock, browsers }
}

function ordersWithin(upstream: string, responseMs: number): object[] {
  const timeout = { response: `${responseMs}ms` }
  return [
    { path: '/api/orders', id: 'orders', upstream, resource: 'orders', timeout },
    { path: '/api/billing', id: 'billing', upstream, resource: 'billing' },
  ]
}

async function askAll(browsers: readonly Browser[]) {
  return (await askAllTimed(browsers)).answers
}

/** All ask at once; the answers, and how long the last of them took to come. */
async function askAllTimed(browsers: readonly Browser[]) {
  let longestMs = 0
  const answers = await Promise.all(
    browsers.map(async (browser) => {
      const askedAt = steadyNow()
      const answer = await browser.fetch('/api/orders')
      longestMs = Math.max(longestMs, steadyNow() - askedAt)
      return answer
    }),
  )
  return { answers, longestMs }
}
