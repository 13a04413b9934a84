import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { listenOnLoopback } from '../../src/demo/loopback-server.ts'
import { createIdentityProvider } from '../../src/demo/provider/identity-provider.ts'
import type { TokenRequest } from '../../src/demo/provider/identity-provider-options.ts'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import type { Browser, Exchange } from '../kit/browsers/browser.ts'
import {
  CLIENT_ID,
  type ClientAuthentication,
  clientAuthentications,
} from '../kit/provider/oidc-client-auth.ts'
import { untilAfter } from '../kit/shops/deadline.ts'
import { APP, BILLING, ORDERS, type Scope, startShop, verdict } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { bearerToken, type Upstream } from '../kit/upstream/upstream.ts'

const COOKIE = '__Host-Http-cloakroom'
const TOKEN_SECONDS = 3
const GENERATIONS = 2

describe('oidc-provider with rotation', { skip: skipWithoutRedis(), concurrency: true }, () => {
  for (const auth of clientAuthentications()) {
    test(`with ${auth.method}: one sign-in, two APIs, tokens renewed in silence, one logout for all`, async (t) => {
      const scene = await setScene(t, auth)
      const { browser, shop, tokenRequests } = scene
      const landing = await browser.signIn({ returnUrl: '/home' })
      assert.deepEqual([landing.status, landing.url.href], [200, `${APP}/home`])
      assertPushedRequest(browser, scene.issuer)
      const user = await browser.fetch('/bff/user')
      assert.deepEqual(
        [user.status, user.json().sub, user.json().email],
        [200, 'ada', 'ada@example.com'],
        user.body,
      )

      const used = new Set<string>()
      for (let generation = 0; generation <= GENERATIONS; generation += 1) {
        for (const [path, audience, api] of [
          ['/api/orders/1', ORDERS, shop.orders],
          ['/api/billing/1', BILLING, shop.billing],
        ] as const) {
          assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])
          used.add(lastToken(api))
        }
        assert.equal(
          used.size,
          2 * (generation + 1),
          'each API has a token of its own, new in each generation',
        )
        if (generation < GENERATIONS) await untilAllExpired([...used])
      }
      const grants = tokenRequests.map(({ grantType, status }) => `${grantType} ${status}`)
      assert.equal(grants[0], 'authorization_code 200')
      assert.deepEqual(new Set(grants.slice(1)), new Set(['refresh_token 200']))
      assertEachRefreshTokenUsedOnce(tokenRequests)

      await assertLogoutEndsEverything(scene)
    })
  }
})

type Scene = Awaited<ReturnType<typeof setScene>>

async function setScene(t: Scope, auth: ClientAuthentication) {
  const tokenRequests: TokenRequest[] = []
  const resource = (audience: string) => ({ audience, scope: 'read', accessTokenTtlSeconds: TOKEN_SECONDS })
  const provider = await listenOnLoopback(
    (issuer) =>
      createIdentityProvider({
        issuer,
        clients: [
          {
            ...auth.registration,
            clientId: CLIENT_ID,
            redirectUris: [`${APP}/bff/callback`],
            postLogoutRedirectUris: [`${APP}/bff/logged-out`],
          },
        ],
        resources: { [ORDERS]: resource(ORDERS), [BILLING]: resource(BILLING) },
        onTokenRequest: (request) => tokenRequests.push(request),
      }).callback,
  )
  t.after(() => provider.close())
  const redis = await startRedis()
  t.after(() => redis.stop())
  const issuer = provider.origin
  const shop = await startShop(t, {
    provider: {
      ...{ issuer, clientId: CLIENT_ID, clientAuth: auth.config, resourceDialect: 'resource-indicator' },
      ...{ scopes: ['openid', 'profile', 'email', 'offline_access'], par: 'auto' },
    },
    jwks: `${issuer}/jwks`,
    redisUrl: redis.url,
  })
  return { auth, browser: shop.browser(), issuer, redis, shop, tokenRequests }
}

/** RFC 9126 §4: the browser carries only a reference to the request. */
function assertPushedRequest(browser: Browser, issuer: string): void {
  const request = browser.exchanges.find(({ url }) => url.href.startsWith(`${issuer}/auth?`))
  assert.deepEqual([...(request?.url.searchParams.keys() ?? [])].sort(), ['client_id', 'request_uri'])
}

function lastToken(api: Upstream): string {
  const request = api.requests.at(-1)
  return (request && bearerToken(request)) ?? ''
}

/** A second more than `exp` says, because the provider counts in whole seconds and from later than Cloakroom does. */
async function untilAllExpired(tokens: string[]): Promise<void> {
  const latest = Math.max(...tokens.map((token) => Number(jwtClaims(token)?.exp)))
  await untilAfter((latest + 1) * 1000)
}

function assertEachRefreshTokenUsedOnce(requests: readonly TokenRequest[]): void {
  const spent = requests.flatMap(({ params }) => params.refresh_token ?? [])
  assert.ok(spent.length >= 2 * GENERATIONS + 1)
  assert.equal(new Set(spent).size, spent.length)
}

async function assertLogoutEndsEverything({ auth, browser, issuer, redis, tokenRequests }: Scene) {
  const refreshToken = String(tokenRequests.at(-1)?.answer.refresh_token)
  const before = browser.clone()
  const kept = await redis.cli('KEYS', 'cloakroom:{*}:*')
  assert.deepEqual(kept.map((key) => key.split(':').at(-1)).sort(), ['about', 'life', 'session', 'tokens'])

  const logout = await browser.fetch('/bff/logout', { method: 'POST' })
  assert.equal(logout.status, 200)
  assert.deepEqual(
    cookieAttributes(logout),
    cookieAttributes(browser.exchanges.find(({ url }) => url.pathname === '/bff/callback')),
  )
  assert.deepEqual(
    browser.cookies.filter(({ name }) => name === COOKIE),
    [],
  )
  assert.deepEqual(await redis.cli('KEYS', 'cloakroom:{*}:*'), [])
  for (const path of ['/bff/user', '/api/orders/1', '/api/billing/1'])
    assert.deepEqual(verdict(await before.fetch(path)), [401, 'session_required'], 'with the old cookie')

  const { form, headers } = await auth.sign(
    { grant_type: 'refresh_token', refresh_token: refreshToken, resource: ORDERS },
    issuer,
  )
  const refused = await fetch(`${issuer}/token`, { method: 'POST', headers, body: new URLSearchParams(form) })
  assert.deepEqual(
    [refused.status, ((await refused.json()) as { error?: string }).error],
    [400, 'invalid_grant'],
  )

  const { redirect } = logout.json()
  assert.ok(redirect.startsWith(`${issuer}/session/end?`), redirect)
  const signingOut = await browser.navigate(redirect, { from: APP })
  assert.equal((await browser.submit(signingOut)).url.href, `${APP}/`)
  const again = await browser.navigate(`${APP}/bff/login?returnUrl=/`)
  assert.ok(again.url.href.startsWith(`${issuer}/interaction/`), 'the provider asks who it is')
  before.close()
}

/** Name and attributes of the session cookie in an answer; only what says when it ends is left out. */
function cookieAttributes(answer: Exchange | undefined): string[] {
  const line = answer?.headers['set-cookie']?.find((one) => one.startsWith(`${COOKIE}=`))
  assert.ok(line, 'the answer sets the session cookie')
  const [, ...attributes] = line.split(';').map((part) => part.trim().toLowerCase())
  return attributes.filter((one) => !/^(expires|max-age)=/.test(one)).sort()
}
