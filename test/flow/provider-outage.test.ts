import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { listenOnLoopback } from '../../src/demo/loopback-server.ts'
import { createIdentityProvider } from '../../src/demo/provider/identity-provider.ts'
import type { FetchAnswer } from '../kit/browsers/browser.ts'
import { freePort } from '../kit/ports.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, BILLING, movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'

const LIFE_SECONDS = 300
const BOTH = [
  ['/api/orders', ORDERS],
  ['/api/billing', BILLING],
] as const

test('the provider away: living tokens are used on, then 503 until it is back; all sessions stay', async (t) => {
  const { provider, shop, clock, browser } = await signedIn(t)
  for (const [path, audience] of BOTH) assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])

  await provider.down()
  for (const passedSeconds of [0, LIFE_SECONDS * 0.6]) {
    clock.advance(passedSeconds * 1000)
    for (const [path, audience] of BOTH) assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])
  }
  clock.advance(LIFE_SECONDS * 0.4 * 1000)
  for (const [path] of BOTH) assertProviderUnavailable(await browser.fetch(path))
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  // The request would be pushed to the provider first.
  assertProviderUnavailable(await browser.open('/bff/login?returnUrl=/'))
  assert.equal((await fetch(`${shop.cloakroom.adminUrl}/livez`)).status, 200)

  await provider.up()
  clock.advance(5_000)
  for (const [path, audience] of BOTH) assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])
  assert.equal((await browser.open('/bff/login?returnUrl=/')).status, 302)
})

test('signing out while the provider is away ends the session here', async (t) => {
  const { provider, browser } = await signedIn(t)
  await provider.down()
  const elsewhere = browser.clone()
  t.after(() => elsewhere.close())
  const logout = await browser.fetch('/bff/logout', { method: 'POST' })
  assert.equal(logout.status, 200)
  assert.deepEqual(verdict(await elsewhere.fetch('/bff/user')), [401, 'session_required'])
})

test('the provider away at the start: the process starts all the same, and sign-in works when it comes', async (t) => {
  const { provider, shop, clock, browser } = await openShop(t, await createSwitchableProvider(t))
  assert.equal((await fetch(`${shop.cloakroom.adminUrl}/livez`)).status, 200)
  assert.equal((await browser.fetch('/')).status, 200)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [401, 'session_required'])
  assertProviderUnavailable(await browser.open('/bff/login?returnUrl=/'))
  const page = await browser.navigate(`${APP}/bff/login?returnUrl=/`)
  assert.equal(page.status, 503)
  assert.match(page.body, /href="\/bff\/login/, 'a person gets a page and a way to try again')

  await provider.up()
  clock.advance(31_000)
  await eventually('sign-ins begin', async () => (await browser.open('/bff/login')).status === 302)
  await browser.signIn()
  for (const [path, audience] of BOTH) assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])
})

async function signedIn(t: TestContext) {
  const provider = await createSwitchableProvider(t)
  await provider.up()
  const opened = await openShop(t, provider)
  await opened.browser.signIn()
  assert.equal((await opened.browser.fetch('/bff/user')).status, 200)
  return opened
}

type SwitchableProvider = Awaited<ReturnType<typeof createSwitchableProvider>>

async function openShop(t: TestContext, provider: SwitchableProvider) {
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: {
      ...{ issuer: provider.issuer, clientId: 'shop', resourceDialect: 'resource-indicator', par: 'auto' },
      clientAuth: { method: 'client_secret_basic', secret: 'outage-client-secret' },
    },
    jwks: `${provider.issuer}/jwks`,
    now: clock.now,
  })
  return { provider, shop, clock, browser: shop.browser() }
}

/** A provider that is down: nothing listens on its port, and it loses nothing by that. */
async function createSwitchableProvider(t: TestContext) {
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  const resource = (audience: string) => ({ audience, scope: 'read', accessTokenTtlSeconds: LIFE_SECONDS })
  const { callback } = createIdentityProvider({
    issuer,
    clients: [
      {
        ...{ clientId: 'shop', clientSecret: 'outage-client-secret', authMethod: 'client_secret_basic' },
        redirectUris: [`${APP}/bff/callback`],
      },
    ],
    resources: { [ORDERS]: resource(ORDERS), [BILLING]: resource(BILLING) },
  })
  let listening: Awaited<ReturnType<typeof listenOnLoopback>> | undefined
  const down = async () => {
    await listening?.close()
    listening = undefined
  }
  t.after(down)
  return {
    issuer,
    down,
    async up() {
      listening = await listenOnLoopback(() => callback, port)
    },
  }
}

function assertProviderUnavailable(answer: FetchAnswer): void {
  assert.deepEqual(verdict(answer), [503, 'provider_unavailable'])
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.ok(Number(answer.headers['retry-after']) > 0)
  assert.equal(answer.headers['set-cookie'], undefined)
}
