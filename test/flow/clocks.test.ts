import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { BILLING, ORDERS, type ShopParts, startShop, verdict } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

/** A machine's two clocks: time goes by on both, and only one of them can be set. */
function clocksAheadBy(aheadMs: number) {
  const startedAt = Date.now()
  const clock = { passedMs: 0, setMs: aheadMs }
  return {
    now: () => startedAt + clock.passedMs + clock.setMs,
    monotonicNow: () => clock.passedMs,
    pass(ms: number): void {
      clock.passedMs += ms
    },
    set(ms: number): void {
      clock.setMs += ms
    },
  }
}

/** A provider whose clock is its own, unless it is to be on the same machine. */
async function openShop(t: TestContext, more: Partial<ShopParts> = {}, isSameMachine = false) {
  const clocks = clocksAheadBy(0)
  const provider = await startRotatingProvider(isSameMachine ? { now: clocks.now } : {})
  t.after(() => provider.close())
  const parts = { provider: provider.settings, jwks: provider.endpoints.jwks, ...more }
  const shop = await startShop(t, { ...parts, now: clocks.now, monotonicNow: clocks.monotonicNow })
  return { provider, parts, shop, clocks, browser: shop.browser() }
}

for (const [name, byMs] of [
  ['back', -HOUR_MS],
  ['forward', HOUR_MS],
] as const)
  describe(`a clock that is set ${name} by an hour`, () => {
    test('leaves a provider that failed alone for as long as it would have been', async (t) => {
      const { provider, clocks, browser } = await openShop(t)
      await browser.signIn()
      provider.control.fault = { kind: 'status', status: 500 }
      // Each refusal is remembered for 5 s; the last ones make the breaker open.
      for (let fault = 0; fault < 6; fault += 1) {
        clocks.pass(5_500)
        assert.deepEqual(verdict(await browser.fetch('/api/billing')), [503, 'provider_unavailable'])
      }
      delete provider.control.fault
      clocks.set(byMs)
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [503, 'provider_unavailable'])
      clocks.pass(5_500)
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    })

    test('ends no session that is used, and keeps none that is not', async (t) => {
      const { clocks, browser } = await openShop(t)
      await browser.signIn()
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      clocks.set(byMs)
      for (let minutes = 0; minutes < 60; minutes += 20) {
        assert.equal((await browser.fetch('/bff/user')).status, 200, `after ${minutes} minutes`)
        clocks.pass(20 * MINUTE_MS)
      }
      clocks.pass(11 * MINUTE_MS)
      assert.equal((await browser.fetch('/bff/user')).status, 401)
    })

    test('does not make the metadata of the provider last longer', async (t) => {
      const { provider, shop, clocks } = await openShop(t, {}, true)
      await shop.browser().signIn()
      clocks.set(byMs)
      clocks.pass(MINUTE_MS)
      await shop.browser().signIn()
      clocks.pass(HOUR_MS)
      const discoveries = () =>
        provider.requests.filter(({ path }) => /openid-configuration/.test(path)).length
      const before = discoveries()
      await shop.browser().signIn()
      assert.ok(discoveries() > before, 'an hour later the metadata is read again')
    })
  })

describe('replicas whose clocks differ', { skip: skipWithoutRedis() }, () => {
  test('one that is far ahead refuses what has expired by its clock, and ends no session', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const { parts, browser } = await openShop(t, { redisUrl: redis.url, session: KEYS })
    const ahead = clocksAheadBy(11 * HOUR_MS)
    const other = await startShop(t, { ...parts, now: ahead.now, monotonicNow: ahead.monotonicNow })
    await browser.signIn()
    const via = other.cloakroom.listenUrl
    for (let round = 0; round < 3; round += 1) {
      for (const path of ['/bff/user', '/api/orders'])
        assert.deepEqual(verdict(await browser.fetch(path, { via })), [401, 'session_required'])
      assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
      assert.equal((await browser.fetch('/bff/user')).status, 200)
    }
    const kept = (await redis.cli('KEYS', '*:session')).length
    assert.equal(kept, 1)
  })

  for (const hours of [-1, 1])
    test(`one that is ${Math.abs(hours)} hour ${hours < 0 ? 'behind' : 'ahead'} serves the same session, and so does the other`, async (t) => {
      const redis = await startRedis()
      t.after(() => redis.stop())
      const { parts, browser } = await openShop(t, { redisUrl: redis.url, session: KEYS })
      const skewed = clocksAheadBy(hours * HOUR_MS)
      const other = await startShop(t, { ...parts, now: skewed.now, monotonicNow: skewed.monotonicNow })
      await browser.signIn()
      for (let round = 0; round < 3; round += 1)
        for (const via of [other.cloakroom.listenUrl, undefined])
          for (const [path, audience] of [
            ['/api/orders', ORDERS],
            ['/api/billing', BILLING],
          ] as const)
            assert.deepEqual(verdict(await browser.fetch(path, via ? { via } : {})), [200, audience])
    })
})

const KEYS = { keys: [sessionKey()] }
