import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { STRICT_CLIENT, type StrictProvider, startStrictProvider } from '../kit/provider/strict-provider.ts'
import { movableClock, type Scope } from '../kit/shops/shop.ts'
import { bearerToken, startUpstream, type Upstream } from '../kit/upstream/upstream.ts'

const APP = 'https://app.example.test'
const ORDERS = 'https://orders.example.com'
const BILLING = 'https://billing.example.com'
const LIFE_MS = 3_700_000

const SCOPED = { orders: { scopes: ['orders'] }, billing: { scopes: ['billing'] } }

describe('oidc-provider with its own strict defaults', { concurrency: true }, () => {
  test('one sign-in serves two APIs: it asks for all scopes, and each API gets a token with its own only', async (t) => {
    const { browser, call, provider } = await setScene(t, { resources: SCOPED })
    const landing = await browser.signIn({ returnUrl: '/home' })
    assert.equal(landing.url.href, `${APP}/home`)
    assert.deepEqual(await call('orders'), [200, ['orders']])
    assert.deepEqual(await call('billing'), [200, ['billing']])
    assertNoRefusals(provider)
  })

  test('its tokens are renewed in silence, and never with more than the sign-in asked for', async (t) => {
    const { browser, call, provider, clock } = await setScene(t, { resources: SCOPED })
    await browser.signIn()
    for (let generation = 0; generation < 2; generation += 1) {
      assert.deepEqual(await call('orders'), [200, ['orders']])
      assert.deepEqual(await call('billing'), [200, ['billing']])
      clock.advance(LIFE_MS)
    }
    assertNoRefusals(provider)
    const refreshes = provider.tokenRequests.filter(({ params }) => params.grant_type === 'refresh_token')
    assert.equal(refreshes.length, 4)
    assert.deepEqual(
      new Set(refreshes.map(({ params }) => params.scope)),
      new Set(['orders offline_access openid', 'billing offline_access openid']),
    )
  })

  test('with RFC 8707, each API gets a token with its own audience', async (t) => {
    const { browser, call, provider } = await setScene(t, {
      dialect: 'resource-indicator',
      resources: {
        orders: { resource: ORDERS, scopes: ['orders'] },
        billing: { resource: BILLING, scopes: ['billing'] },
      },
      indicators: { [ORDERS]: 'orders', [BILLING]: 'billing' },
    })
    await browser.signIn()
    assert.deepEqual(await call('orders'), [200, ['orders'], ORDERS])
    assert.deepEqual(await call('billing'), [200, ['billing'], BILLING])
    assertNoRefusals(provider)
  })

  test('offlineConsent auto: the first sign-in is repeated once with prompt=consent, and later ones begin so', async (t) => {
    const { browser, another, asked, sessions, logs } = await setScene(t, { resources: SCOPED })
    await browser.signIn()
    assert.deepEqual(asked(browser), [null, 'consent'])
    assert.deepEqual(asked(await another()), ['consent'])
    assert.equal(await sessions(), 2)
    assert.deepEqual(
      logs().filter(({ reason }) => reason === 'no_refresh_token'),
      [],
    )
  })

  test('offlineConsent never: a token that is good for both APIs is used for neither, and the log names the setting', async (t) => {
    const { browser, asked, logs, call, clock } = await setScene(t, { resources: SCOPED, consent: 'never' })
    await browser.signIn()
    assert.deepEqual(asked(browser), [null])
    const [warning] = logs().filter(({ reason }) => reason === 'no_refresh_token')
    assert.match(String(warning?.msg), /provider\.offlineConsent/)
    // Good for both APIs, and so for neither.
    assert.deepEqual(await call('orders'), [502, 'provider_rejected', 'no_refresh_token'])
    clock.advance(LIFE_MS)
    assert.deepEqual(await call('billing'), [502, 'provider_rejected', 'no_refresh_token'])
  })

  test('without a refresh token the one API of a sign-in is served until its token expires, and then asks for another sign-in', async (t) => {
    const { browser, call, clock } = await setScene(t, {
      resources: { orders: { scopes: ['orders'] } },
      consent: 'never',
    })
    await browser.signIn()
    assert.deepEqual(await call('orders'), [200, ['orders']])
    clock.advance(LIFE_MS)
    assert.deepEqual(await call('orders'), [401, 'reauthentication_required', 'no_refresh_token'])
    await browser.signIn()
    clock.advance(-LIFE_MS)
    assert.deepEqual(await call('orders'), [200, ['orders']])
  })
})

async function setScene(
  t: Scope,
  options: {
    resources: Record<string, ConfigData>
    dialect?: string
    indicators?: Record<string, string>
    consent?: string
  },
) {
  const provider = await startStrictProvider({
    redirectUri: `${APP}/bff/callback`,
    scopes: ['orders', 'billing'],
    ...(options.indicators && { resources: options.indicators }),
  })
  t.after(() => provider.close())
  const apis: Record<string, Upstream> = {}
  for (const name of Object.keys(options.resources)) {
    const api = await startUpstream()
    t.after(() => api.close())
    apis[name] = api
  }
  const spa = await startUpstream()
  t.after(() => spa.close())
  const clock = movableClock()
  const cloakroom = await startCloakroom(
    {
      publicUrl: APP,
      provider: {
        issuer: provider.issuer,
        clientId: STRICT_CLIENT.clientId,
        clientAuth: { method: 'client_secret_basic', secret: STRICT_CLIENT.clientSecret },
        scopes: ['openid', 'offline_access'],
        // So that the browser carries what is asked for.
        par: 'off',
        ...(options.dialect === undefined ? {} : { resourceDialect: options.dialect }),
        ...(options.consent === undefined ? {} : { offlineConsent: options.consent }),
      },
      resources: options.resources,
      session: { idleTimeout: '12h', absoluteTimeout: '24h' },
      routes: [
        ...Object.entries(apis).map(([name, { url }]) => ({
          path: `/api/${name}`,
          id: name,
          upstream: url,
          resource: name,
        })),
        { path: '/', id: 'spa', upstream: spa.url, auth: 'anonymous' },
      ],
    },
    { now: clock.now },
  )
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()

  /** What an API saw of its token; or why Cloakroom refused. */
  async function call(name: string) {
    const answer = await browser.fetch(`/api/${name}`)
    if (answer.status !== 200) return [answer.status, answer.json().code, answer.json().reason]
    const token = await provider.inspect(bearerToken(apis[name]!.requests.at(-1)!) ?? '')
    const scopes = token?.scopes.filter((scope) => !['openid', 'offline_access'].includes(scope))
    return [200, scopes, ...(token?.aud === undefined ? [] : [token.aud])]
  }
  const asked = (by: typeof browser) =>
    by.exchanges
      .filter(({ url }) => url.origin === provider.issuer && url.pathname === '/auth')
      .map(({ url }) => url.searchParams.get('prompt'))
  const another = async () => {
    const other = cloakroom.browser()
    await other.signIn({ user: 'bob' })
    return other
  }
  const sessions = async () => {
    const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    return Number(/^cloakroom_sessions_total\{event="started"[^}]*\} (\d+)/m.exec(metrics)?.[1])
  }
  const logs = () => cloakroom.logs.map((line) => JSON.parse(line) as Record<string, unknown>)
  return { provider, browser, another, call, clock, asked, sessions, logs }
}

function assertNoRefusals(provider: StrictProvider): void {
  assert.deepEqual(
    provider.tokenRequests.filter(({ status }) => status !== 200).map(({ answer }) => answer),
    [],
  )
}
