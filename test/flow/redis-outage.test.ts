import assert from 'node:assert/strict'
import { describe, type TestContext } from 'node:test'
import type { Browser, FetchAnswer } from '../kit/browsers/browser.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { BILLING, movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'

/** What is written survives a crash, as in a production setup. */
const DURABLE = ['--appendonly', 'yes', '--appendfsync', 'always']
/** The answer to an outage, not to a hanging one: every request comes back within this. */
const PATIENCE_MS = 1_000

describe('Redis away', { skip: skipWithoutRedis(), concurrency: true }, () => {
  const outages: [string, (redis: TestRedis) => unknown, (redis: TestRedis) => unknown][] = [
    ['crashed (SIGKILL)', (redis) => redis.kill(), (redis) => redis.restart()],
    ['hanging (SIGSTOP)', (redis) => redis.pause(), (redis) => redis.resume()],
  ]
  for (const [name, breakDown, mend] of outages)
    test(`${name}: 503 within a second, no cookie is taken, and the same cookie works when it is back`, async (t) => {
      const { redis, provider, shop, browser } = await signedIn(t)
      for (const path of ['/api/orders', '/bff/user']) assert.equal((await browser.fetch(path)).status, 200)
      const cookie = browser.cookieHeader()
      const admin = (page: string) => fetch(shop.cloakroom.adminUrl + page)

      await breakDown(redis)
      // Copies in the process are trusted only until the subscription is known to be cut.
      await eventually('the outage shows', async () => {
        const answer = await inTime(browser, '/api/orders')
        return answer.status !== 200 && verdict(answer)[1] === 'store_unavailable'
      })
      for (const path of ['/api/orders', '/api/billing', '/bff/user', '/bff/login?returnUrl=/'])
        assertStoreUnavailable(await inTime(browser, path))
      assertStoreUnavailable(await inTime(browser, '/bff/logout', 'POST'))
      assert.equal((await admin('/livez')).status, 200)
      const ready = (await (await admin('/readyz')).json()) as { dependencies: { store: string } }
      assert.equal(ready.dependencies.store, 'unavailable')
      assert.equal(provider.counters.refreshCalls, 0, 'no refresh token is spent that could not be stored')

      await mend(redis)
      await eventually('it is well again', async () => (await inTime(browser, '/bff/user')).status === 200)
      assert.equal(browser.cookieHeader(), cookie)
      assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
      assert.equal((await browser.open('/bff/login?returnUrl=/')).status, 302)
      const another = shop.browser()
      await another.signIn()
      assert.equal((await another.fetch('/bff/user')).status, 200)
    })

  test('a crash while the provider rotates: the new refresh token is still kept, and none is used twice', async (t) => {
    const { redis, provider, browser, clock } = await signedIn(t)
    provider.control.latencyMs = 400
    const answer = browser.fetch('/api/billing')
    await eventually('the provider is asked', () => provider.counters.refreshCalls === 1)
    await redis.restart()
    assert.deepEqual(verdict(await answer), [200, BILLING])
    provider.control.latencyMs = 0
    clock.advance(300_000)
    for (const [path, audience] of [
      ['/api/orders', ORDERS],
      ['/api/billing', BILLING],
    ] as const)
      assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])
    assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [3, 0])
  })

  test('away at the start: the process starts all the same, and all is well when Redis comes', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    await redis.kill()
    const { shop, browser } = await openShop(t, redis)
    assert.equal((await fetch(`${shop.cloakroom.adminUrl}/livez`)).status, 200)
    assert.equal((await browser.fetch('/')).status, 200, 'what needs no session is served')
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [401, 'session_required'])
    assertStoreUnavailable(await inTime(browser, '/bff/login?returnUrl=/'))
    await redis.restart()
    await eventually('sign-ins begin', async () => (await browser.open('/bff/login')).status === 302)
    await browser.signIn()
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
  })
})

async function signedIn(t: TestContext) {
  const redis = await startRedis({ args: DURABLE })
  t.after(() => redis.stop())
  const opened = await openShop(t, redis)
  await opened.browser.signIn()
  return { redis, ...opened }
}

async function openShop(t: TestContext, redis: TestRedis) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: provider.settings,
    jwks: provider.endpoints.jwks,
    redisUrl: redis.url,
    now: clock.now,
  })
  return { provider, shop, clock, browser: shop.browser() }
}

async function inTime(browser: Browser, path: string, method = 'GET'): Promise<FetchAnswer> {
  const startedAt = steadyNow()
  const isNavigation = path.startsWith('/bff/login')
  const answer = await (isNavigation ? browser.open(path) : browser.fetch(path, { method }))
  const tookMs = steadyNow() - startedAt
  assert.ok(tookMs < PATIENCE_MS, `${method} ${path} took ${tookMs.toFixed(0)} ms`)
  return answer
}

function assertStoreUnavailable(answer: FetchAnswer): void {
  assert.deepEqual(verdict(answer), [503, 'store_unavailable'])
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.equal(answer.headers['cloakroom-error'], 'store_unavailable')
  assert.ok(Number(answer.headers['retry-after']) > 0)
  assert.equal(answer.headers['set-cookie'], undefined)
}
