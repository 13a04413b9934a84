import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Browser } from '../kit/browser.ts'
import { startRotatingProvider } from '../kit/rotating-provider.ts'
import { movableClock, ORDERS, startShop, verdict } from './shop.ts'

const LIFE_MS = 300_000
const CONCURRENCY = 8
const BATCH = 20

test('300 sessions whose tokens expire at once: all are served, and the provider sees 8 refreshes at a time', async (t) => {
  const { provider, shop, clock, browsers } = await signedIn(t, 300)
  const before = provider.counters.refreshCalls
  clock.advance(LIFE_MS)
  provider.control.latencyMs = 50
  const answers = await askAll(browsers)
  for (const answer of answers) assert.deepEqual(verdict(answer), [200, ORDERS])
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

test('a provider that answers 503 to a stampede is left alone as long as it asks, and then serves everybody', async (t) => {
  const { provider, shop, clock, browsers } = await signedIn(t, 60)
  const logged = (text: string) => shop.cloakroom.logs.filter((line) => line.includes(text)).length
  clock.advance(LIFE_MS)
  provider.control.latencyMs = 20
  provider.control.fault = { kind: 'status', status: 503, retryAfter: '20', leg: 'refresh' }
  for (const answer of await askAll(browsers)) {
    assert.deepEqual(verdict(answer), [503, 'provider_unavailable'])
    const seconds = Number(answer.headers['retry-after'])
    assert.ok(seconds > 0 && seconds <= 20, String(seconds))
  }
  const asked = provider.counters.refreshCalls
  assert.ok(asked >= 5 && asked < 5 + CONCURRENCY, `${asked} refreshes reached it`)
  clock.advance(10_000)
  await askAll(browsers)
  assert.equal(provider.counters.refreshCalls, asked, 'it is left alone')

  clock.advance(11_000)
  assert.deepEqual(verdict(await browsers[0]!.fetch('/api/orders')), [503, 'provider_unavailable'])
  assert.equal(provider.counters.refreshCalls, asked + 1, 'one probe goes')

  provider.control.fault = undefined
  clock.advance(21_000)
  assert.deepEqual(verdict(await browsers[1]!.fetch('/api/orders')), [200, ORDERS])
  for (const answer of await askAll(browsers)) assert.deepEqual(verdict(answer), [200, ORDERS])
  assert.deepEqual([logged('fails again and again'), logged('answers again')], [1, 1])
  assert.equal(provider.counters.reuseDetected, 0)
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

function askAll(browsers: readonly Browser[]) {
  return Promise.all(browsers.map((browser) => browser.fetch('/api/orders')))
}
