import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { FetchAnswer } from '../kit/browsers/browser.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { BILLING, movableClock, ORDERS, startApis, verdict } from '../kit/shops/shop.ts'

const LIFE_MS = 300_000
const AWAY = [503, 'provider_unavailable']

/** A signed-in browser, APIs that give up after 300 ms, and a provider whose token endpoint can be held up. */
async function setUp(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const apis = await startApis(t, { provider: provider.settings, jwks: provider.endpoints.jwks })
  const routes = (apis.config.routes as object[]).map((route) => ({
    ...route,
    timeout: { response: '300ms' },
  }))
  const cloakroom = await startCloakroom({ ...apis.config, routes }, { now: clock.now })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn()
  function holdUp(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    provider.control.intercept = async ({ path }) => {
      if (path === '/token') await promise
      return false
    }
    t.after(() => resolve())
    return resolve
  }
  return { ...apis, provider, clock, browser, holdUp }
}

function isAway(answer: FetchAnswer): void {
  assert.deepEqual(verdict(answer), AWAY)
  assert.equal(answer.headers['retry-after'], '2')
}

test('a slow provider keeps no request beyond the response timeout, and its late answer serves the session', async (t) => {
  const { provider, clock, browser, holdUp } = await setUp(t)
  clock.advance(LIFE_MS)
  const release = holdUp()
  const paths = ['/api/orders/1', '/api/billing/1', '/api/orders/2']
  for (const answer of await Promise.all(paths.map((path) => browser.fetch(path)))) isAway(answer)
  const before = provider.counters.refreshCalls
  release()
  assert.deepEqual(verdict(await browser.fetch('/api/orders/1')), [200, ORDERS])
  assert.deepEqual(verdict(await browser.fetch('/api/billing/1')), [200, BILLING])
  assert.equal(provider.counters.refreshCalls, before + 2, 'one refresh for each API: those that had begun')
  assert.equal(provider.counters.reuseDetected, 0)
})

test('nor while the successor of a rejected token is on its way', async (t) => {
  const { provider, orders, browser, holdUp } = await setUp(t)
  await browser.fetch('/api/orders/1')
  const release = holdUp()
  const challenge = { 'www-authenticate': 'Bearer error="invalid_token"' }
  Object.assign(orders.answer, { status: 401, headers: challenge, times: 1 })
  isAway(await browser.fetch('/api/orders/1'))
  const seen = orders.requests.length
  isAway(await browser.fetch('/api/orders/2'))
  assert.equal(orders.requests.length, seen, 'the rejected token is not sent again')
  const before = provider.counters.refreshCalls
  release()
  assert.deepEqual(verdict(await browser.fetch('/api/orders/1')), [200, ORDERS])
  assert.equal(provider.counters.refreshCalls, before + 1)
})
