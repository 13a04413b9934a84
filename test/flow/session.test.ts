import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const KEY = sessionKey()

async function setUp(t: TestContext, config: ConfigData = {}) {
  const clock = { offset: 0 }
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: 100_000 } })
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const cloakroom = await startCloakroom(
    {
      provider: { ...provider.settings },
      session: { store: { type: 'memory' }, keys: [KEY], idleTimeout: '30m', absoluteTimeout: '2h' },
      resources: { orders: { resource: 'https://orders.test' } },
      routes: [{ path: '/api/orders', upstream: api.url, resource: 'orders' }],
      ...config,
    },
    { now: () => Date.now() + clock.offset },
  )
  t.after(() => cloakroom.close())
  const wait = (minutes: number) => {
    clock.offset += minutes * 60_000
  }
  return { provider, api, cloakroom, browser: cloakroom.browser(), wait }
}

const setCookies = (headers: Record<string, unknown>) => [headers['set-cookie'] ?? []].flat() as string[]

test('on https the cookie is __Host-Http-, Secure, HttpOnly, SameSite=Strict, Path=/ and lives as long as the browser', async (t) => {
  const { cloakroom, browser } = await setUp(t, { publicUrl: 'https://app.example.test' })
  const landing = await browser.signIn()
  const cookies = landing.exchanges.flatMap(({ url, headers }) =>
    url.origin === cloakroom.publicUrl ? setCookies(headers) : [],
  )
  const session = cookies.find((cookie) => cookie.startsWith('__Host-Http-cloakroom='))
  assert.match(
    session ?? '',
    /^__Host-Http-cloakroom=s%3A[\w-]{43}\.[\w%-]+; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
  )
  const login = cookies.find((cookie) => cookie.startsWith('__Host-Http-cloakroom-login-'))
  assert.match(login ?? '', /; Max-Age=900; Path=\/; Expires=[^;]+; HttpOnly; Secure; SameSite=Lax$/)
  for (const cookie of cookies) {
    assert.match(cookie, /^__(?:Host-Http|Secure)-[^;]*;.* HttpOnly; Secure; SameSite=/)
    assert.doesNotMatch(cookie, /domain/i)
  }
  assert.equal((await browser.fetch('/bff/user')).status, 200)
})

test('activity starts the idle timeout again; without it the session ends', async (t) => {
  const { browser, wait } = await setUp(t)
  await browser.signIn()
  for (let call = 0; call < 3; call += 1) {
    wait(29)
    assert.equal((await browser.fetch('/api/orders/1')).status, 200)
  }
  wait(31)
  assert.equal((await browser.fetch('/api/orders/1')).status, 401)
})

test('no activity outlives the absolute timeout', async (t) => {
  const { browser, wait } = await setUp(t)
  await browser.signIn()
  for (let minutes = 0; minutes < 115; minutes += 5) {
    wait(5)
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  }
  const { json } = await browser.fetch('/bff/user')
  assert.ok(json()['bff:session_expires_in'] <= 300)
  wait(6)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
})

test('asking who is signed in with ?slide=false is no activity', async (t) => {
  const { browser, wait } = await setUp(t)
  await browser.signIn()
  wait(20)
  const before = (await browser.fetch('/bff/user?slide=false')).json()['bff:session_expires_in']
  assert.ok(before > 590 && before <= 600, String(before))
  wait(5)
  assert.ok((await browser.fetch('/bff/user?slide=false')).json()['bff:session_expires_in'] <= 300)
  assert.ok((await browser.fetch('/bff/user')).json()['bff:session_expires_in'] > 1790)
})

test('B/user needs the CSRF header and never shows a token', async (t) => {
  const { browser, provider } = await setUp(t)
  await browser.signIn()
  const without = await browser.fetch('/bff/user', { headers: { 'x-csrf': '' } })
  assert.equal(without.status, 403)
  const { body, json } = await browser.fetch('/bff/user')
  assert.equal(json().sub, 'alice')
  for (const secret of provider.issuedSecrets) assert.ok(!body.includes(secret))
})

test('logout by link needs the sid of this session, and a wrong one leaves it alive', async (t) => {
  const { browser, cloakroom, provider } = await setUp(t)
  await browser.signIn()
  const link = (await browser.fetch('/bff/user')).json()['bff:logout_url']
  for (const path of ['/bff/logout', '/bff/logout?sid=', '/bff/logout?sid=wrong']) {
    const answer = await browser.open(path)
    assert.equal(answer.status, 400, path)
    assert.equal(answer.json().code, 'bad_request')
  }
  const other = cloakroom.browser()
  await other.signIn()
  assert.equal((await other.open(link)).status, 400)
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  const out = await browser.open(`${link}&returnUrl=/bye`)
  assert.equal(out.status, 302)
  const end = new URL(String(out.headers.location))
  assert.equal(end.origin + end.pathname, provider.endpoints.endSession)
  assert.equal(end.searchParams.get('post_logout_redirect_uri'), `${cloakroom.publicUrl}/bff/logged-out`)
  assert.ok(end.searchParams.get('id_token_hint'))
  assert.equal((await browser.fetch('/bff/user')).status, 401)
  assert.equal((await other.fetch('/bff/user')).status, 200)
})

test('logout by script needs the CSRF header, ends the session, revokes the refresh token, clears the cookie', async (t) => {
  const { browser, provider } = await setUp(t)
  await browser.signIn()
  const before = browser.clone()
  const refused = await browser.fetch('/bff/logout', { method: 'POST', headers: { 'x-csrf': '' } })
  assert.equal(refused.status, 403)
  const foreign = await browser.fetch('/bff/logout', {
    method: 'POST',
    headers: { origin: 'https://evil.test' },
  })
  assert.equal(foreign.json().code, 'origin_forbidden')
  const out = await browser.fetch('/bff/logout', { method: 'POST' })
  assert.equal(out.status, 200)
  assert.ok(out.json().redirect.startsWith(provider.endpoints.endSession))
  assert.deepEqual(setCookies(out.headers), [
    'cloakroom=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Strict',
  ])
  assert.equal(provider.revoked.length, 1)
  assert.ok(!provider.isRefreshTokenLive(provider.revoked[0] ?? ''))
  assert.equal((await before.fetch('/bff/user')).status, 401)
  assert.equal((await before.fetch('/api/orders/1')).status, 401)
  const again = await before.fetch('/bff/logout', { method: 'POST' })
  assert.deepEqual([again.status, again.json()], [200, { redirect: '/' }])
})

test('a provider that is away never keeps a user signed in', async (t) => {
  const { browser, provider } = await setUp(t)
  await browser.signIn()
  await provider.close()
  const out = await browser.fetch('/bff/logout', { method: 'POST' })
  assert.equal(out.status, 200)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
})

test('a tampered, truncated, foreign or doubled cookie is no session', async (t) => {
  const { browser, cloakroom } = await setUp(t)
  await browser.signIn()
  const [name, value = ''] = browser.cookieHeader().split('=')
  const flipped = value.slice(0, 10) + (value[10] === 'A' ? 'B' : 'A') + value.slice(11)
  const cookies = [
    `${name}=${flipped}`,
    `${name}=${value.slice(0, -1)}`,
    `${name}=`,
    `${name}=s%3A`,
    `${name}=%zz`,
    `${name}=x.y`,
    `${name}=${value}; ${name}=${value}`,
    `${name?.toUpperCase()}=${value}`,
    `${name}=j%3A%7B%7D`,
    `${name}=${'a'.repeat(6000)}`,
  ]
  for (const cookie of cookies) {
    const stranger = cloakroom.browser()
    const answer = await stranger.fetch('/bff/user', { headers: { cookie } })
    assert.equal(answer.status, 401, cookie)
    assert.equal(answer.json().code, 'session_required')
  }
})

test('two sessions of two users share nothing', async (t) => {
  const { cloakroom, provider } = await setUp(t)
  const [ada, grace] = [cloakroom.browser(), cloakroom.browser()]
  provider.control.user = 'ada'
  await ada.signIn()
  provider.control.user = 'grace'
  await grace.signIn()
  assert.equal((await ada.fetch('/api/orders/1')).json().sub, 'ada')
  assert.equal((await grace.fetch('/api/orders/1')).json().sub, 'grace')
  await ada.fetch('/bff/logout', { method: 'POST' })
  assert.equal((await grace.fetch('/api/orders/1')).status, 200)
})

test('a wrong method at one of our endpoints says which are right, and an unknown endpoint is no route', async (t) => {
  const { browser } = await setUp(t)
  const answer = await browser.fetch('/bff/user', { method: 'DELETE' })
  assert.equal(answer.status, 405)
  assert.equal(answer.headers.allow, 'GET, HEAD')
  assert.equal((await browser.fetch('/bff/nothing')).json().code, 'route_not_found')
  assert.equal((await browser.fetch('/BFF/user')).status, 404)
})
