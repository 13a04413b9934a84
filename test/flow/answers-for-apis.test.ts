import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { movableClock, type Scope, startShop, verdict } from '../kit/shops/shop.ts'

const LIFE_MS = 400_000

/** Two APIs told apart by their scopes alone, at a provider that narrows in silence when it is told to. */
async function setScene(t: Scope) {
  const provider = await startRotatingProvider({ control: { idTokenOnRefresh: true } })
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: {
      ...{ ...provider.settings, resourceDialect: 'scope' },
      scopes: ['openid', 'offline_access'],
    },
    jwks: provider.endpoints.jwks,
    audiences: { orders: 'urn:default-audience', billing: 'urn:default-audience' },
    resources: { orders: { scopes: ['orders'] }, billing: { scopes: ['billing'] } },
    now: clock.now,
  })
  const lines = () => shop.cloakroom.logs.map((line) => JSON.parse(line) as Record<string, unknown>)
  const metrics = async () => (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()
  return { provider, clock, lines, metrics, ...shop, browser: shop.browser() }
}

const NARROWED = 'openid offline_access orders'

test("a refresh narrowed to another API's scopes reaches no API; consent is asked for once, and then it is the operator's", async (t) => {
  const { provider, browser, billing, lines, metrics } = await setScene(t)
  await browser.signIn()
  provider.control.editAnswer = (answer, leg) => {
    if (leg === 'refresh') answer.scope = NARROWED
  }
  const refused = await browser.fetch('/api/billing')
  assert.deepEqual(
    [...verdict(refused), refused.json().reason],
    [401, 'reauthentication_required', 'scope_not_granted'],
  )
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, 'urn:default-audience'])
  const told = lines().find(({ outcome }) => outcome === 'scope_not_granted')
  assert.deepEqual([told?.expected, told?.actual], ['billing', NARROWED])
  assert.match(
    await metrics(),
    /cloakroom_refreshes_total\{resource="billing",outcome="scope_not_granted"\} 1/,
  )
  assert.doesNotMatch(await metrics(), /cloakroom_provider_config_fault\{resource="billing"[^}]*\} 1/)

  const landing = await browser.navigate(refused.json().login_url)
  const asked = landing.exchanges.find(({ url }) => url.pathname === '/authorize')?.url.searchParams
  assert.equal(asked?.get('prompt'), 'consent')
  assert.equal(asked?.get('scope'), 'openid offline_access billing orders')
  const again = await browser.fetch('/api/billing')
  assert.deepEqual([...verdict(again), again.json().reason], [502, 'provider_rejected', 'scope_not_granted'])
  assert.match(
    await metrics(),
    /cloakroom_provider_config_fault\{resource="billing",error="scope_not_granted"\} 1/,
  )
  assert.equal(billing.requests.length, 0)
})

test('what a user declined at sign-in is not asked for by a refresh: the log and the answer say so, and consent brings it', async (t) => {
  const { provider, browser, clock, billing } = await setScene(t)
  provider.control.editAnswer = (answer, leg) => {
    if (leg === 'code') answer.scope = NARROWED
  }
  await browser.signIn()
  // The code's token is for orders alone, and is used for it.
  const refreshes = provider.counters.refreshCalls
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, 'urn:default-audience'])
  const refused = await browser.fetch('/api/billing')
  assert.equal(refused.json().reason, 'scope_not_granted')
  assert.equal(provider.counters.refreshCalls, refreshes)
  clock.advance(LIFE_MS)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, 'urn:default-audience'])
  delete provider.control.editAnswer
  await browser.navigate(refused.json().login_url)
  assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, 'urn:default-audience'])
  assert.equal(billing.requests.length, 1)
})

test('a code answer without an access token signs in when nothing needs it, because each API gets its own by a refresh', async (t) => {
  const { provider, browser } = await setScene(t)
  provider.control.editAnswer = (answer, leg) => {
    if (leg === 'code') delete answer.access_token
  }
  const landing = await browser.signIn({ returnUrl: '/home' })
  assert.equal(landing.status, 200)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, 'urn:default-audience'])
  provider.control.editAnswer = (answer, leg) => {
    if (leg === 'code') delete answer.access_token
    delete answer.refresh_token
  }
  const other = browser.clone()
  t.after(() => other.close())
  assert.equal((await other.signIn()).status, 400)
})

test('a token that is bound to a key is not sent as if it were not', async (t) => {
  const { provider, browser, billing } = await setScene(t)
  await browser.signIn()
  provider.control.editAnswer = (answer) => {
    answer.token_type = 'DPoP'
  }
  assert.deepEqual(verdict(await browser.fetch('/api/billing')), [502, 'provider_rejected'])
  assert.equal(billing.requests.length, 0)
  provider.control.editAnswer = (answer) => {
    answer.token_type = 'urn:example:opaque'
  }
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, 'urn:default-audience'])
})
