import assert from 'node:assert/strict'
import { request } from 'node:http'
import { describe, type TestContext, test } from 'node:test'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, BILLING, movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { bearerToken } from '../kit/upstream/upstream.ts'

describe('a refresh under way', { skip: skipWithoutRedis() }, () => {
  for (const idTokenOnRefresh of [false, true])
    test(`does not revive a session that logs out meanwhile, what it brings is revoked, and it counts as no fault (${idTokenOnRefresh ? 'with' : 'without'} an ID token)`, async (t) => {
      const { provider, redis, browser, shop } = await signedIn(t)
      provider.control.idTokenOnRefresh = idTokenOnRefresh
      provider.control.latencyMs = 300
      const elsewhere = browser.clone()
      t.after(() => elsewhere.close())
      const answer = elsewhere.fetch('/api/billing')
      await eventually('the provider is asked', () => provider.counters.refreshCalls === 1)
      assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
      assert.deepEqual(verdict(await answer), [401, 'session_required'])
      assert.deepEqual(await redis.cli('KEYS', 'cloakroom:{*}:*'), [])
      const issued = provider.issuedSecrets.filter((secret) => secret.startsWith('rt_'))
      assert.equal(issued.length, 2)
      assert.deepEqual(provider.revoked.toSorted(), issued.toSorted())
      assert.deepEqual(verdict(await elsewhere.fetch('/bff/user')), [401, 'session_required'])
      const errors = shop.cloakroom.logs.filter((line) => JSON.parse(line).level === 'error')
      assert.deepEqual(errors, [])
      const metrics = await (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()
      assert.doesNotMatch(metrics, /^cloakroom_provider_config_fault\{|id_token_ignored"\} [1-9]/m)
    })

  test('is finished and kept when the client that asked for it leaves', async (t) => {
    const { provider, shop, browser } = await signedIn(t)
    provider.control.latencyMs = 300
    const leaving = request(`${shop.cloakroom.listenUrl}/api/billing`, {
      headers: { host: new URL(APP).host, cookie: browser.cookieHeader(), 'x-csrf': '1' },
    })
    leaving.on('error', () => undefined).end()
    await eventually('the provider is asked', () => provider.counters.refreshCalls === 1)
    leaving.destroy()
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [1, 0])
  })

  test('shares nothing between people, however many come at once', async (t) => {
    const { provider, shop, clock } = await signedIn(t)
    const people = Array.from({ length: 8 }, (_, number) => `person-${number}`)
    const browsers = []
    for (const person of people) {
      provider.control.user = person
      const browser = shop.browser()
      await browser.signIn()
      browsers.push(browser)
    }
    clock.advance(300_000)
    provider.control.latencyMs = 20
    const paths = [
      ['/api/orders', ORDERS],
      ['/api/billing', BILLING],
    ] as const
    const calls = browsers.flatMap((browser, number) =>
      Array.from({ length: 10 }, async (_, index) => {
        const [path, audience] = paths[index % 2]!
        const answer = await browser.fetch(`${path}/${people[number]}`)
        assert.deepEqual(verdict(answer), [200, audience])
      }),
    )
    await Promise.all(calls)
    const seen = [...shop.orders.requests, ...shop.billing.requests]
    assert.equal(seen.length, calls.length)
    for (const one of seen)
      assert.equal(jwtClaims(bearerToken(one) ?? '')?.sub, one.path.split('/').at(-1), one.path)
    assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [16, 0])
  })

  test('that answers for another user ends the session', async (t) => {
    const { provider, shop, browser } = await signedIn(t)
    Object.assign(provider.control, { idTokenOnRefresh: true, idTokenClaims: { sub: 'mallory' } })
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [401, 'session_required'])
    assert.equal(shop.billing.requests.length, 0)
    assert.deepEqual(verdict(await browser.fetch('/bff/user')), [401, 'session_required'])
  })
})

async function signedIn(t: TestContext) {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: provider.settings,
    jwks: provider.endpoints.jwks,
    redisUrl: redis.url,
    now: clock.now,
  })
  const browser = shop.browser()
  await browser.signIn()
  return { redis, provider, clock, shop, browser }
}
