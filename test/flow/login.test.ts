import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { type RotatingOptions, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const RESOURCES = { orders: { resource: 'https://orders.test', audience: 'https://orders.test' } }

async function setUp(t: TestContext, options: { provider?: RotatingOptions; config?: ConfigData } = {}) {
  const provider = await startRotatingProvider(options.provider)
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const cloakroom = await startCloakroom({
    provider: { ...provider.settings },
    resources: RESOURCES,
    routes: [
      { path: '/api/orders', upstream: api.url, resource: 'orders' },
      { path: '/files', upstream: api.url, resource: 'orders', csrf: 'fetch-metadata' },
      { path: '/', upstream: api.url, auth: 'anonymous' },
    ],
    ...options.config,
  })
  t.after(() => cloakroom.close())
  return { provider, api, cloakroom, browser: cloakroom.browser() }
}

/** Starts a sign-in, and stops before the provider's answer is delivered. */
async function callbackOf(
  setup: Awaited<ReturnType<typeof setUp>>,
  browser = setup.browser,
  returnUrl = '/',
) {
  const login = await browser.open(`/bff/login?returnUrl=${encodeURIComponent(returnUrl)}`)
  assert.equal(login.status, 302)
  const authorization = await fetch(String(login.headers.location), { redirect: 'manual' })
  return new URL(String(authorization.headers.get('location')))
}

test('the authorization request has PKCE S256, state and nonce, and nothing a caller could add', async (t) => {
  const { browser, provider, cloakroom } = await setUp(t)
  const login = await browser.open(
    '/bff/login?returnUrl=/x&prompt=login&login_hint=ada&scope=evil&claims=%7B%7D&redirect_uri=https://evil.test&resource=x',
  )
  const url = new URL(String(login.headers.location))
  assert.equal(url.origin, provider.origin)
  const query = Object.fromEntries(url.searchParams)
  assert.equal(query.code_challenge_method, 'S256')
  assert.match(query.code_challenge ?? '', /^[\w-]{43}$/)
  for (const name of ['state', 'nonce']) assert.match(query[name] ?? '', /^[\w-]{43}$/)
  assert.equal(query.redirect_uri, `${cloakroom.publicUrl}/bff/callback`)
  assert.equal(query.prompt, 'login')
  assert.equal(query.login_hint, 'ada')
  assert.equal(query.scope, provider.settings.scopes.join(' '))
  assert.deepEqual(url.searchParams.getAll('resource'), ['https://orders.test'])
  assert.equal(query.claims, undefined)
  assert.equal(login.headers['cache-control'], 'no-store')
})

test('returnUrl that is no path on this origin is refused before anything begins', async (t) => {
  const { browser } = await setUp(t)
  for (const value of [
    'https://evil.test',
    '//evil.test',
    '/\\evil.test',
    'javascript:alert(1)',
    '/bff/login',
  ]) {
    const answer = await browser.open(`/bff/login?returnUrl=${encodeURIComponent(value)}`)
    assert.equal(answer.status, 400, value)
    assert.equal(answer.json().code, 'invalid_return_url')
    assert.equal(answer.headers['set-cookie'], undefined)
  }
})

test('a response is good once: again, and ten times at once, the token endpoint is asked once', async (t) => {
  const setup = await setUp(t)
  const callback = await callbackOf(setup)
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => setup.browser.clone().navigate(callback.href)),
  )
  const redeemed = setup.provider.tokenRequests()
  assert.equal(redeemed.length, 1)
  assert.equal(answers.filter(({ exchanges }) => exchanges[0]?.status === 200).length, 1)
  for (const { exchanges } of answers) assert.ok([200, 400].includes(exchanges[0]?.status ?? 0))
})

test('a response in a browser that did not begin it is refused', async (t) => {
  const setup = await setUp(t)
  const attacker = await callbackOf(setup)
  const victim = setup.cloakroom.browser()
  assert.equal((await victim.navigate(attacker.href)).status, 400)
  await callbackOf(setup, victim)
  assert.equal((await victim.navigate(attacker.href)).status, 400)
  assert.equal(setup.provider.tokenRequests().length, 0)
})

test('malformed responses get a page or a problem, never a crash, a loop or a token request', async (t) => {
  const setup = await setUp(t)
  const good = await callbackOf(setup)
  const state = good.searchParams.get('state')
  const queries = [
    '',
    '?',
    '?state=',
    '?state=unknown&code=x',
    `?state=${state}&state=${state}&code=x`,
    '?code=x',
    '?&&&',
    `?state=${'a'.repeat(4000)}`,
    '?state=%00',
    '?error=access_denied',
    '?error=<script>alert(1)</script>&state=x',
  ]
  for (const query of queries) {
    const page = await setup.browser.navigate(`${setup.cloakroom.publicUrl}/bff/callback${query}`)
    assert.equal(page.status, 400, query)
    assert.match(page.headers['content-type'] ?? '', /text\/html/)
    assert.match(page.body, /Try again/)
    assert.ok(!page.body.includes('<script'))
    const answer = await setup.browser.fetch(`/bff/callback${query}`)
    assert.equal(answer.json().code, 'invalid_callback', query)
  }
  assert.equal(setup.provider.tokenRequests().length, 0)
})

test('a refusal by the provider is told, and the session before stays', async (t) => {
  const setup = await setUp(t)
  await setup.browser.signIn()
  setup.provider.control.authorizationError = { error: 'access_denied', error_description: 'no' }
  const page = await setup.browser.navigate(`${setup.cloakroom.publicUrl}/bff/login`)
  assert.equal(page.status, 403)
  assert.match(page.body, /access_denied/)
  assert.equal((await setup.browser.fetch('/bff/user')).status, 200)
})

test('another issuer in the response is refused (RFC 9207)', async (t) => {
  const setup = await setUp(t)
  const callback = await callbackOf(setup)
  callback.searchParams.set('iss', 'https://evil.test')
  assert.equal((await setup.browser.navigate(callback.href)).status, 400)
  assert.equal(setup.provider.tokenRequests().length, 0)
})

test('seven tabs sign in at once and each lands on its own page; more than eight attempts are not kept, and all are small', async (t) => {
  const setup = await setUp(t)
  const { browser } = setup
  const callbacks: [string, URL][] = []
  for (let tab = 0; tab < 7; tab += 1)
    callbacks.push([`/tab/${tab}`, await callbackOf(setup, browser, `/tab/${tab}`)])
  for (const [path, callback] of callbacks.reverse()) {
    const landing = await browser.navigate(callback.href)
    assert.equal(landing.url.pathname, path)
    assert.equal(landing.status, 200)
  }
  // What is asked for stays here, so that a page with a long name makes no larger cookie.
  for (let tab = 0; tab < 30; tab += 1) await callbackOf(setup, browser, `/${'x'.repeat(3_000)}`)
  const held = browser.cookies.filter(({ name }) => name.includes('-login-'))
  assert.equal(held.length, 8)
  for (const { name, value } of browser.cookies) assert.ok(name.length + value.length <= 256, name)
})

test('sign-in always makes a new session id and ends the one before', async (t) => {
  const { browser, cloakroom } = await setUp(t)
  await browser.signIn()
  const before = browser.clone()
  await browser.signIn()
  assert.notEqual(browser.cookieHeader(), before.cookieHeader())
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  assert.equal((await before.fetch('/bff/user')).status, 401)
  const planted = cloakroom.browser()
  await planted.fetch('/bff/user', { headers: { cookie: 'cloakroom=s%3Afixed.sig' } })
  await planted.signIn()
  assert.ok(!planted.cookieHeader().includes('fixed'))
})

test('with sameSite: lax the landing is a 303 and the browser is signed in there', async (t) => {
  const { browser } = await setUp(t, {
    config: {
      session: { store: { type: 'memory' }, keys: [sessionKey()], cookie: { sameSite: 'lax' } },
    },
  })
  const landing = await browser.signIn({ returnUrl: '/files/report' })
  assert.equal(landing.status, 200)
  const callback = landing.exchanges.find(({ url }) => url.pathname === '/bff/callback')
  assert.equal(callback?.status, 303)
  assert.equal(callback?.headers.location, '/files/report')
})

test('a page opened without a session goes to sign in and comes back to where it was going', async (t) => {
  const { browser, cloakroom, provider } = await setUp(t)
  const page = await browser.navigate(`${cloakroom.publicUrl}/files/report?year=2026`, {
    headers: { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
  })
  assert.equal(page.url.pathname + page.url.search, '/files/report?year=2026')
  assert.equal(page.status, 200)
  assert.equal(provider.tokenRequests().length, 1)
})

test('a script without a session is told where to sign in, and nothing is begun for it', async (t) => {
  const { browser, provider } = await setUp(t)
  const answer = await browser.fetch('/api/orders/1')
  assert.equal(answer.status, 401)
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.equal(answer.headers['cloakroom-error'], 'session_required')
  assert.equal(answer.headers['cache-control'], 'no-store')
  assert.equal(answer.headers['set-cookie'], undefined)
  assert.equal(answer.json().login_url, '/bff/login')
  assert.equal(provider.requests.filter(({ path }) => path.startsWith('/authorize')).length, 0)
})

test('a tenant that is not on the list may not sign in', async (t) => {
  const provider = { control: { idTokenClaims: { tid: 'other-tenant' } } }
  const setup = await setUp(t, { provider })
  await setup.browser.signIn()
  const strict = await startCloakroom({
    provider: { ...setup.provider.settings, allowedTenants: ['our-tenant'] },
    resources: RESOURCES,
    routes: [{ path: '/api/orders', upstream: setup.api.url, resource: 'orders' }],
  })
  t.after(() => strict.close())
  const browser = strict.browser()
  const page = await browser.navigate(`${strict.publicUrl}/bff/login`)
  assert.equal(page.status, 403)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
})
