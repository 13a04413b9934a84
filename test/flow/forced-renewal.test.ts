import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'
import { bearerToken } from '../kit/upstream/upstream.ts'

const REJECTED = { status: 401, headers: { 'www-authenticate': 'Bearer error="invalid_token"' } }
const AWAY = [503, 'provider_unavailable']

/** A session whose token for orders was just rejected, while the provider answers 503. */
async function setUp(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const { settings, endpoints, control, counters } = provider
  const shop = await startShop(t, { provider: settings, jwks: endpoints.jwks, now: clock.now })
  const browser = shop.browser()
  await browser.signIn()
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
  Object.assign(shop.orders.answer, { ...REJECTED, times: 1 })
  control.fault = { kind: 'status', status: 503, leg: 'refresh' }
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), AWAY)
  const before = counters.refreshCalls
  return { shop, clock, browser, control, refreshes: () => counters.refreshCalls - before }
}

test('once the provider is back, the next request after a short pause gets the new token', async (t) => {
  const { shop, clock, browser, control, refreshes } = await setUp(t)
  const [rejected] = shop.orders.requests.slice(-1).map(bearerToken)
  const seen = shop.orders.requests.length
  control.fault = undefined
  for (let call = 0; call < 5; call += 1) {
    const answer = await browser.fetch('/api/orders')
    assert.deepEqual(verdict(answer), AWAY)
    assert.ok(Number(answer.headers['retry-after']) <= 5)
  }
  assert.equal(refreshes(), 0, 'nothing is hammered')
  clock.advance(5_000)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
  assert.equal(refreshes(), 1)
  const sent = shop.orders.requests.slice(seen).map(bearerToken)
  assert.equal(sent.length, 1)
  assert.notEqual(sent[0], rejected)
})

test('the renewal that got an answer is the only one for a minute', async (t) => {
  const { shop, clock, browser, control, refreshes } = await setUp(t)
  control.fault = undefined
  clock.advance(5_000)
  await browser.fetch('/api/orders')
  Object.assign(shop.orders.answer, { ...REJECTED, times: 100 })
  for (let call = 0; call < 5; call += 1) {
    assert.equal((await browser.fetch('/api/orders')).status, 401)
    clock.advance(10_000)
  }
  assert.equal(refreshes(), 1)
  clock.advance(10_000)
  await browser.fetch('/api/orders')
  assert.equal(refreshes(), 2)
})

test('as long as the provider is away, it is asked at the pace of any other renewal', async (t) => {
  const { shop, clock, browser, refreshes } = await setUp(t)
  const seen = shop.orders.requests.length
  for (let call = 0; call < 80; call += 1) {
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), AWAY)
    clock.advance(250)
  }
  assert.ok(refreshes() <= 10, `${refreshes()} in 20 s`)
  assert.equal(shop.orders.requests.length, seen, 'the rejected token is not sent again')
})
