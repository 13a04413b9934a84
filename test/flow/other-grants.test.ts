import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { startEntraV2 } from '../kit/azure/azure-ad.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { field, sendJson } from '../kit/local-server.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import {
  APP,
  BILLING,
  movableClock,
  ORDERS,
  type Scope,
  type Shop,
  startApis,
  startShop,
  verdict,
} from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { bearerToken } from '../kit/upstream/upstream.ts'

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'
const LIFE_SECONDS = 600

describe("the client's own token", () => {
  test('is one for the whole cluster: two replicas, two users, one request for it, and it lies sealed in Redis', {
    skip: skipWithoutRedis(),
  }, async (t) => {
    const provider = await startRotatingProvider({ control: { latencyMs: 50 } })
    t.after(() => provider.close())
    const redis = await startRedis()
    t.after(() => redis.stop())
    const { config } = await startApis(t, {
      provider: provider.settings,
      jwks: provider.endpoints.jwks,
      redisUrl: redis.url,
      resources: CLIENT_RESOURCES,
      session: { keys: [sessionKey()] },
    })
    const clock = movableClock()
    const start = async () => {
      const replica = await startCloakroom(config, { now: clock.now })
      t.after(() => replica.close())
      const browser = replica.browser()
      await browser.signIn()
      return browser
    }
    const browsers = [await start(), await start()]
    const everybodyAsks = async () => {
      const answers = await Promise.all(
        [...browsers, ...browsers, ...browsers].map((browser) => browser.fetch('/api/billing')),
      )
      for (const answer of answers) assert.deepEqual(verdict(answer), [200, BILLING])
      return new Set(answers.map((answer) => answer.json().headers.authorization.jti))
    }
    const first = await everybodyAsks()
    assert.deepEqual([clientCalls(provider), first.size], [1, 1])

    clock.advance(300_000)
    const second = await everybodyAsks()
    assert.deepEqual([clientCalls(provider), second.size], [2, 1])
    assert.notDeepEqual(second, first)

    const keys = await redis.cli('KEYS', 'cloakroom:client*')
    assert.match(keys.join(), /^cloakroom:client:[\w-]{43}$/)
    const [sealed = ''] = await redis.cli('GET', keys[0]!)
    const [leftMs] = await redis.cli('PTTL', keys[0]!)
    assert.ok(Number(leftMs) > 200_000 && Number(leftMs) <= 300_000)
    assert.match(sealed, /^1\.[\w-]{8}\.[\w-]+$/)
    assertNoSecrets({ sealed }, [...provider.issuedSecrets, provider.clientSecret])
  })

  test('is dropped when an upstream rejects it, asked for once more, and that at most once a minute', async (t) => {
    const { provider, shop, browser, clock } = await signedIn(t, CLIENT_RESOURCES)
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    Object.assign(shop.billing.answer, REJECTION)
    const rejected = await browser.fetch('/api/billing')
    assert.equal(rejected.status, 401)
    assert.equal(rejected.headers['cloakroom-error'], undefined, "it is the upstream's own answer")
    await browser.fetch('/api/billing')
    assert.equal(clientCalls(provider), 2)
    Object.assign(shop.billing.answer, { times: 0 })
    clock.advance(61_000)
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    assert.equal(clientCalls(provider), 2, 'the new one is kept')
  })

  test('refused with what would end a session is our configuration: no session ends, and no user is asked to sign in', async (t) => {
    const { provider, browser, clock } = await signedIn(t, CLIENT_RESOURCES)
    let asked = 0
    for (const body of [
      { error: 'invalid_grant' },
      { error: 'invalid_grant', error_codes: [501051] },
      { error: 'invalid_grant', suberror: 'message_only', error_codes: [53003] },
      { error: 'consent_required' },
    ]) {
      provider.control.intercept = ({ form }, res) => {
        if (field(form, 'grant_type') !== 'client_credentials') return false
        asked += 1
        sendJson(res, 400, body)
        return true
      }
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [502, 'provider_rejected'])
      assert.deepEqual(verdict(await browser.fetch('/api/billing')), [502, 'provider_rejected'])
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      clock.advance(61_000)
    }
    assert.equal(asked, 4, 'each refusal is remembered for a while')
  })
})

describe('token exchange (RFC 8693)', () => {
  test("gives the API a token in exchange for the session's own, kept until it expires, and spends no refresh token", async (t) => {
    const { provider, shop, browser, clock } = await signedIn(t, EXCHANGED_RESOURCES)
    const answers = await Promise.all(['/1', '/2', '/3'].map((path) => browser.fetch(`/api/billing${path}`)))
    for (const answer of answers) assert.deepEqual(verdict(answer), [200, BILLING])
    assert.deepEqual(provider.counters.callsByGrant, { authorization_code: 1, [EXCHANGE]: 1 })
    assert.deepEqual(Object.fromEntries(provider.tokenRequests().at(-1)!.form), {
      ...{ client_id: provider.clientId, client_secret: provider.clientSecret },
      ...{ grant_type: EXCHANGE, resource: BILLING, scope: 'billing.read' },
      subject_token: await subjectOf(shop, browser),
      ...{ subject_token_type: ACCESS_TOKEN, requested_token_type: ACCESS_TOKEN },
    })
    clock.advance(LIFE_SECONDS * 1000)
    provider.control.accessTokenSeconds = 900
    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, BILLING])
    const { refreshCalls, refreshesByResource } = provider.counters
    assert.deepEqual(
      [refreshCalls, refreshesByResource],
      [1, { [ORDERS]: 1 }],
      'the subject token came first',
    )
    assert.equal(provider.counters.callsByGrant[EXCHANGE], 2)
    const authorization = provider.requests.find(({ path }) => path === '/authorize')
    assert.equal(field(authorization?.query ?? [], 'resource'), ORDERS, 'one signs in for the subject only')
  })

  test('refused for a living subject token asks for a new sign-in; for anything else it is our configuration; the session stays', async (t) => {
    for (const [error, wanted] of [
      ['invalid_grant', [401, 'reauthentication_required']],
      ['invalid_request', [502, 'provider_rejected']],
      ['invalid_target', [502, 'provider_rejected']],
    ] as const) {
      const { provider, browser } = await signedIn(t, EXCHANGED_RESOURCES)
      provider.control.intercept = ({ form }, res) => {
        if (field(form, 'grant_type') !== EXCHANGE) return false
        sendJson(res, 400, { error })
        return true
      }
      const refused = await browser.fetch('/api/billing')
      assert.deepEqual(verdict(refused), wanted, error)
      if (refused.status === 401) assert.match(refused.json().login_url, /^\/bff\/login\?challenge=/)
      assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
      assert.equal(provider.counters.refreshCalls, 0)
    }
  })

  test('is done once more when the upstream rejects the token', async (t) => {
    const { provider, shop, browser } = await signedIn(t, EXCHANGED_RESOURCES)
    await browser.fetch('/api/billing')
    Object.assign(shop.billing.answer, REJECTION)
    assert.equal((await browser.fetch('/api/billing')).status, 401)
    await browser.fetch('/api/billing')
    assert.equal(provider.counters.callsByGrant[EXCHANGE], 2)
  })
})

describe("Entra ID's on-behalf-of flow", () => {
  test('has the form that Microsoft documents, and a claims challenge becomes a step-up', async (t) => {
    const azure = await startEntraV2()
    t.after(() => azure.close())
    const [orders, billing] = ['api://shop', 'https://billing.contoso.com']
    const shop = await startShop(t, {
      provider: azure.settings,
      jwks: azure.endpoints.jwks,
      audiences: { orders, billing },
      resources: {
        orders: { scopes: [`${orders}/.default`], audience: orders },
        billing: {
          ...{ scopes: [`${billing}/read`], audience: billing },
          ...{ grant: 'token_exchange', subject: 'orders', exchange: 'on_behalf_of' },
        },
      },
    })
    const browser = shop.browser()
    await browser.signIn()
    azure.policy.resources = { [billing]: { outcome: 'step-up', times: 1 } }
    const refused = await browser.fetch('/api/billing')
    assert.deepEqual(verdict(refused), [401, 'reauthentication_required'])
    const asked = azure.requests.length
    await browser.navigate(new URL(refused.json().login_url, APP).href)
    const authorization = azure.requests.slice(asked).find(({ path }) => path.endsWith('/authorize'))
    assert.match(field(authorization?.query ?? [], 'claims') ?? '', /access_token/)
    assert.match(field(authorization?.query ?? [], 'scope') ?? '', /api:\/\/shop\/\.default$/)

    assert.deepEqual(verdict(await browser.fetch('/api/billing')), [200, billing])
    assert.deepEqual(Object.fromEntries(azure.tokenRequests().at(-1)!.form), {
      ...{ client_id: azure.clientId, client_secret: azure.clientSecret },
      grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
      ...{ assertion: await subjectOf(shop, browser), requested_token_use: 'on_behalf_of' },
      scope: `${billing}/read`,
    })
    assert.deepEqual(azure.violations, [])
  })
})

const CLIENT_RESOURCES = {
  orders: { resource: ORDERS, audience: ORDERS },
  billing: { resource: BILLING, audience: BILLING, grant: 'client_credentials' },
}
const EXCHANGED_RESOURCES = {
  orders: { resource: ORDERS, audience: ORDERS },
  billing: {
    ...{ resource: BILLING, audience: BILLING, scopes: ['billing.read'] },
    ...{ grant: 'token_exchange', subject: 'orders' },
  },
}

async function signedIn(t: Scope, resources: Record<string, object>) {
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: LIFE_SECONDS } })
  t.after(() => provider.close())
  const clock = movableClock()
  const { settings, endpoints } = provider
  const shop = await startShop(t, { provider: settings, jwks: endpoints.jwks, resources, now: clock.now })
  const browser = shop.browser()
  await browser.signIn()
  return { provider, shop, browser, clock }
}

/** How an API says that a token is no good, until it is told to stop. */
const REJECTION = {
  status: 401,
  headers: { 'www-authenticate': 'Bearer error="invalid_token"' },
  times: 1_000,
}

function clientCalls({ counters }: RotatingProvider): number {
  return counters.callsByGrant.client_credentials ?? 0
}

/** The session's own token for orders, as the API sees it. */
async function subjectOf(shop: Shop, browser: Browser): Promise<string | undefined> {
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  return bearerToken(shop.orders.requests.at(-1)!)
}
