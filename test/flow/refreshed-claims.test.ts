import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { movableClock, type Scope, startApis } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const LIFE_MS = 400_000

/** Two replicas, a header made from a claim, and a provider whose refreshes bring ID tokens. */
async function setScene(t: Scope) {
  const provider = await startRotatingProvider({ control: { idTokenOnRefresh: true } })
  t.after(() => provider.close())
  provider.control.idTokenClaims = { roles: ['admin'], acr: 'mfa', department: 'R&D' }
  const redis = await startRedis()
  t.after(() => redis.stop())
  const { config, orders } = await startApis(t, {
    provider: provider.settings,
    jwks: provider.endpoints.jwks,
    redisUrl: redis.url,
    session: { keys: [sessionKey()] },
  })
  const routes = (config.routes as { id: string }[]).map((route) =>
    route.id === 'orders' ? { ...route, headers: { 'x-department': '{claims.department}' } } : route,
  )
  const clock = movableClock()
  const start = async () => {
    const replica = await startCloakroom({ ...config, routes }, { now: clock.now })
    t.after(() => replica.close())
    return replica
  }
  const [first, second] = [await start(), await start()]
  const browser = first!.browser()
  const user = async (via: string) => (await browser.fetch('/bff/user', { via })).json()
  const called = async (via: string) => {
    const answer = await browser.fetch('/api/orders', { via })
    return [answer.status, orders.requests.at(-1)?.headers['x-department']]
  }
  const redisTexts = async () => {
    const keys = await redis.cli('KEYS', '*:session')
    return (await Promise.all(keys.map((key) => redis.cli('GET', key)))).flat().join()
  }
  return { provider, clock, browser, user, called, redisTexts, at: [first!.listenUrl, second!.listenUrl] }
}

test('claims follow a refresh, in headers and in B/user, on all replicas', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const { provider, clock, browser, user, called, redisTexts, at } = await setScene(t)
  const [here = '', there = ''] = at
  await browser.signIn()
  assert.deepEqual(await called(there), [200, 'R&D'])
  assert.deepEqual((await user(there)).roles, ['admin'])
  // The last role is taken away, and the user moves on; how she signed in is as it was.
  provider.control.idTokenClaims = { acr: '0', department: 'Sales' }
  clock.advance(LIFE_MS)
  await called(here)
  for (const via of at) {
    assert.deepEqual(await called(via), [200, 'Sales'])
    const { roles, acr, department, name, sub } = await user(via)
    assert.deepEqual([roles, acr, department, name, sub], [undefined, 'mfa', 'Sales', 'alice', 'alice'])
  }
  assert.doesNotMatch(await redisTexts(), /Sales|alice/)
})

test('a session that ends while its claims are stored stays ended', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const { provider, clock, browser, at, redisTexts } = await setScene(t)
  const [here = '', there = ''] = at
  await browser.signIn()
  clock.advance(LIFE_MS)
  provider.control.idTokenClaims = { department: 'Sales' }
  provider.control.latencyMs = 300
  const calling = browser.fetch('/api/orders', { via: here })
  await browser.fetch('/bff/logout', { method: 'POST', via: there })
  assert.equal((await calling).status, 401)
  assert.equal(await redisTexts(), '')
})
