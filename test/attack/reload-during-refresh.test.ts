import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, BILLING, movableClock, ORDERS, startApis, verdict } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { bearerToken, startUpstream } from '../kit/upstream/upstream.ts'

/** Signed in, with a token for both resources, and a provider that takes its time. */
async function setUp(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const redis = await startRedis()
  t.after(() => redis.stop())
  const clock = movableClock()
  const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
  const apis = await startApis(t, { provider: provider.settings, jwks: provider.endpoints.jwks })
  const cloakroom = await startCloakroom({ ...apis.config, session }, { now: clock.now })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn({ returnUrl: '/' })
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
  assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
  const fields = async () => {
    const [key = ''] = await redis.cli('KEYS', 'cloakroom:{*}:tokens')
    return (await redis.cli('HKEYS', key)).toSorted()
  }
  const before = provider.counters.refreshCalls
  /** Makes every token old and asks for one; resolves when the provider is being asked, with the answer to come. */
  async function refreshing(path: string) {
    clock.advance(400_000)
    provider.control.latencyMs = 400
    const asked = provider.counters.refreshCalls
    const elsewhere = browser.clone()
    t.after(() => elsewhere.close())
    const answer = elsewhere.fetch(path)
    await eventually('the provider is asked', () => provider.counters.refreshCalls === asked + 1)
    return { answer }
  }
  return { ...apis, provider, redis, clock, cloakroom, browser, fields, before, refreshing }
}

const routesOf = (config: Record<string, unknown>) => config.routes as { id: string }[]
const noReuse = (provider: { counters: { reuseDetected: number } }) =>
  assert.equal(provider.counters.reuseDetected, 0)

describe('G16: a reload during a refresh', { skip: skipWithoutRedis() }, () => {
  test('G16: takes the resource away: who asked before is served, then its token is deleted and the rest goes on', async (t) => {
    const { cloakroom, config, provider, browser, billing, fields, refreshing } = await setUp(t)
    const { answer } = await refreshing('/api/billing')
    await cloakroom.reload({
      resources: { orders: { resource: ORDERS, audience: ORDERS } },
      routes: routesOf(config).filter(({ id }) => id !== 'billing'),
    })
    assert.deepEqual(verdict(await answer), [200, BILLING])
    const served = billing.requests.length
    assert.ok((await fields()).includes('at:billing'), 'the refresh under way has stored its token')
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
    await eventually('the token is deleted', async () => !(await fields()).includes('at:billing'))
    // The page of the single-page app answers for paths that no API has.
    await browser.fetch('/api/billing')
    assert.equal(billing.requests.length, served)
    noReuse(provider)
  })

  test('G16: gives its name to another resource: neither sees the token of the other', async (t) => {
    const { cloakroom, provider, browser, billing, orders, refreshing } = await setUp(t)
    const { answer } = await refreshing('/api/billing')
    await cloakroom.reload({
      resources: {
        orders: { resource: BILLING, audience: BILLING },
        billing: { resource: ORDERS, audience: ORDERS },
      },
      routes: [
        { path: '/api/orders', id: 'orders', upstream: orders.url, resource: 'billing' },
        { path: '/api/billing', id: 'billing', upstream: billing.url, resource: 'orders' },
      ],
    })
    assert.deepEqual(verdict(await answer), [200, BILLING])
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    const sent = (api: typeof orders) =>
      new Set(api.requests.map((one) => jwtClaims(bearerToken(one) ?? '')?.aud))
    assert.deepEqual([sent(orders), sent(billing)], [new Set([ORDERS]), new Set([BILLING])])
    noReuse(provider)
  })

  test('G16: adds a resource: it is asked for with the refresh token that the refresh under way brings', async (t) => {
    const { cloakroom, config, provider, browser, orders, refreshing } = await setUp(t)
    const { answer } = await refreshing('/api/billing')
    await cloakroom.reload({
      resources: { ...(config.resources as object), stock: { resource: ORDERS, audience: ORDERS } },
      routes: [
        ...routesOf(config),
        { path: '/api/stock', id: 'stock', upstream: orders.url, resource: 'stock' },
      ],
    })
    assert.deepEqual(verdict(await browser.fetch('/api/stock')), [200, ORDERS])
    assert.deepEqual(verdict(await answer), [200, BILLING])
    noReuse(provider)
  })

  test('G16: adds a resource that the sign-in did not ask for: nothing is offered for it, and signing in again brings it', async (t) => {
    const { cloakroom, config, provider, browser, clock } = await setUp(t)
    const stock = 'https://stock.example.test'
    const upstream = await startUpstream()
    t.after(() => upstream.close())
    await cloakroom.reload({
      resources: { ...(config.resources as object), stock: { resource: stock, audience: stock } },
      routes: [
        ...routesOf(config),
        { path: '/api/stock', id: 'stock', upstream: upstream.url, resource: 'stock' },
      ],
    })
    const asked = provider.counters.refreshCalls
    const refusal = await browser.fetch('/api/stock')
    assert.equal(refusal.status, 401)
    const { code, reason, login_url } = refusal.json()
    assert.deepEqual([code, reason], ['reauthentication_required', 'resource_not_granted'])
    assert.equal(provider.counters.refreshCalls, asked)
    // The rest of the session is as it was, renewals too.
    clock.advance(400_000)
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    await browser.navigate(login_url)
    assert.deepEqual(verdict(await browser.fetch('/api/stock')), [200, stock])
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    noReuse(provider)
  })

  test('G16: again and again, under load: every request is answered with the token of its own API', async (t) => {
    const { cloakroom, config, provider, browser, clock } = await setUp(t)
    provider.control.latencyMs = 5
    let isOver = false
    const wrong: unknown[] = []
    let answered = 0
    let late = 0
    let inFlight = 0
    let mayAsk = Promise.withResolvers<void>()
    mayAsk.resolve()
    const asking = Array.from({ length: 8 }, async (_, number) => {
      const [path, audience] = number % 2 ? ['/api/orders', ORDERS] : ['/api/billing', BILLING]
      const client = browser.clone()
      t.after(() => client.close())
      while (!isOver) {
        await mayAsk.promise
        inFlight += 1
        const seen = verdict(await client.fetch(path as string))
        inFlight -= 1
        answered += 1
        // A machine that is busy may keep Redis from answering all eight in time.
        if (seen[1] === 'store_unavailable') late += 1
        else if (seen[0] !== 200 || seen[1] !== audience) wrong.push([path, ...seen])
      }
    })
    for (let reloads = 0; reloads < 20; reloads += 1) {
      const until = answered + 20
      // By the clock, a request in flight would have waited for longer than its route allows.
      mayAsk = Promise.withResolvers()
      await eventually('no request is in flight', () => inFlight === 0, { everyMs: 1 })
      clock.advance(400_000)
      mayAsk.resolve()
      await cloakroom.reload(reloads % 2 ? {} : { routes: [...routesOf(config)].reverse() })
      await eventually('requests go on', () => answered > until)
    }
    isOver = true
    await Promise.all(asking)
    assert.deepEqual(wrong, [])
    assert.ok(late < answered / 4, `${late} of ${answered} without the store`)
    noReuse(provider)
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })
})

test('what only a restart changes is named, and the rest of the file is in use', async (t) => {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const { config } = await startApis(t, { provider: provider.settings, jwks: provider.endpoints.jwks })
  const cloakroom = await startCloakroom(config)
  t.after(() => cloakroom.close())
  const outcome = await cloakroom.reload({ listen: '127.0.0.1:1', basePath: '/auth' })
  assert.deepEqual(outcome, { needRestart: ['listen'] })
  const browser = cloakroom.browser({ basePath: '/auth' })
  assert.equal(cloakroom.publicUrl, APP)
  assert.equal((await browser.open('/auth/login')).status, 302)
})
