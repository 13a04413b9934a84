import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { basicCredentials } from '../../src/demo/scripted/client-check.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startSeedProvider } from '../kit/provider/seed-provider.ts'
import { APP, BILLING, movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'

const LIFE_SECONDS = 600

describe('a provider with Basic revocation and error screens', () => {
  for (const [discovery, method] of [
    ['discovered', 'client_secret_post'],
    ['discovered', 'client_secret_basic'],
    ['configured', 'client_secret_post'],
    ['configured', 'client_secret_basic'],
    ['discovered', 'none'],
    ['configured', 'none'],
  ] as const)
    test(`endpoints ${discovery}, ${method} at the token endpoint: two audiences, revoked with Basic at logout`, async (t) => {
      const { provider, browser } = await signedIn(t, { discovery, method })
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
      assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
      const { client_id, client_secret, refresh_token, ...asked } = formOf(provider.tokenRequests().at(-1))
      assert.deepEqual(asked, { grant_type: 'refresh_token', audience: BILLING })
      const inForm = {
        client_secret_basic: [],
        client_secret_post: [provider.clientId, provider.clientSecret],
        none: [provider.clientId],
      }
      assert.deepEqual([client_id, client_secret].filter(Boolean), inForm[method])
      const newest = provider.issuedSecrets.findLast((secret) => secret.startsWith('Z1FiWXJZV2'))
      assert.notEqual(refresh_token, newest)

      const logout = await browser.fetch('/bff/logout', { method: 'POST' })
      assert.equal(logout.status, 200)
      assert.deepEqual(provider.revoked, [newest])
      const revocation = provider.requests.findLast(({ path }) => path === '/auth/oauth2/revoke')
      assert.ok(revocation)
      const { id, secret } = basicCredentials(revocation) ?? {}
      assert.equal(id, provider.clientId)
      if (method !== 'none') assert.equal(secret, provider.clientSecret)
      assert.equal(formOf(revocation).token, newest)
      assert.equal(formOf(revocation).client_secret, undefined)
      assert.ok(logout.json().redirect.startsWith(`${provider.endpoints.endSession}?`))
      assert.equal((await browser.navigate(logout.json().redirect, { from: APP })).url.href, `${APP}/`)
    })

  for (const blockedStatus of [403, 200])
    test(`a blocked user's error screen (HTML, ${blockedStatus}): 503, and the session stays for when it passes`, async (t) => {
      const { provider, browser, clock } = await signedIn(t, {})
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
      provider.control.blocked = true
      provider.control.blockedStatus = blockedStatus
      clock.advance(LIFE_SECONDS * 600)
      assert.deepEqual(
        verdict(await browser.fetch('/api/billing')),
        [200, BILLING],
        'a living token is used on',
      )
      clock.advance(LIFE_SECONDS * 400)
      const refused = await browser.fetch('/api/billing')
      assert.deepEqual(verdict(refused), [503, 'provider_unavailable'])
      assert.ok(Number(refused.headers['retry-after']) > 0)
      assert.doesNotMatch(refused.body, /html|blocked/i)
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      provider.control.blocked = false
      clock.advance(61_000)
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    })

  test('an error screen at sign-in is a page with a way to try again, and no session', async (t) => {
    const { provider, shop } = await signedIn(t, {})
    provider.control.blocked = true
    const browser = shop.browser()
    const page = await browser.signIn()
    assert.equal(page.url.pathname, '/bff/callback')
    assert.ok(page.status >= 500, String(page.status))
    assert.match(page.body, /href="\/bff\/login/)
    assert.doesNotMatch(page.body, /blocked/)
    assert.equal((await browser.fetch('/bff/user')).status, 401)
  })
})

async function signedIn(
  t: TestContext,
  { discovery = 'discovered', method = 'client_secret_post' }: { discovery?: string; method?: string },
) {
  const provider = await startSeedProvider({
    control: { accessTokenSeconds: LIFE_SECONDS },
    ...(method === 'none' ? { clientSecret: '' } : {}),
  })
  t.after(() => provider.close())
  const clock = movableClock()
  const known: ConfigData = discovery === 'configured' ? { endpoints: provider.endpoints } : {}
  const byAudience = (name: string) => ({ resource: name, audience: name })
  const shop = await startShop(t, {
    provider: {
      ...{ ...provider.settings, ...known },
      clientAuth: { method, ...(method === 'none' ? {} : { secret: provider.clientSecret }) },
    },
    jwks: provider.endpoints.jwks,
    resources: { orders: byAudience(ORDERS), billing: byAudience(BILLING) },
    session: { idleTimeout: '5h' },
    now: clock.now,
  })
  const browser = shop.browser()
  await browser.signIn()
  return { provider, shop, browser, clock }
}

function formOf(request: { form: [string, string][] } | undefined): Record<string, string> {
  return Object.fromEntries(request?.form ?? [])
}
