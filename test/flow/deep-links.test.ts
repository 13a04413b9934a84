import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const PERSON = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }

async function setUp(t: TestContext, { sameSite = 'strict', urlLength = '16KiB' } = {}) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const pages = await startUpstream()
  t.after(() => pages.close())
  const cloakroom = await startCloakroom({
    provider: { ...provider.settings },
    session: { store: { type: 'memory' }, keys: [sessionKey()], cookie: { sameSite } },
    limits: { urlLength },
    routes: [
      { path: '/packages', upstream: pages.url, csrf: 'fetch-metadata', encodedSlashes: 'pass' },
      { path: '/', upstream: pages.url, csrf: 'fetch-metadata' },
    ],
  })
  t.after(() => cloakroom.close())
  const open = (path: string) => cloakroom.browser().navigate(cloakroom.publicUrl + path, { headers: PERSON })
  return { provider, pages, cloakroom, open }
}

for (const sameSite of ['strict', 'lax'])
  test(`every page that is served to a user is returned to after sign-in (sameSite: ${sameSite})`, async (t) => {
    const { open, pages } = await setUp(t, { sameSite })
    for (const path of [
      '/',
      '/users/@alice',
      '/@scope/pkg',
      '/@evil.test',
      '/packages/@scope%2Fname/1.0.0',
      '/a:b,c;'.slice(0, -1),
      '/caf%C3%A9/%E2%82%AC?x=%2F%2Fevil.test',
      '/q?a=%27b%27&c=d+e&f=%26&g[]=h|i',
      `/long/${'x'.repeat(3_000)}?${'y'.repeat(3_000)}`,
      `/percent?q=${'%26'.repeat(1_500)}`,
    ]) {
      const before = pages.requests.length
      const page = await open(path)
      assert.equal(page.status, 200, path)
      assert.equal(page.url.pathname + page.url.search, path)
      assert.equal(pages.requests.length, before + 1)
    }
  })

test('a URL that no login URL can hold is come back to as far as that is safe: its path, else one above it', async (t) => {
  const { open } = await setUp(t, { urlLength: '2KiB' })
  const cases: [string, string][] = [
    [`/a/b?${'%26'.repeat(600)}`, '/a/b'],
    [`/a/b/${'%C3%A9'.repeat(320)}`, '/a/b/'],
    [`/${'%C3%A9'.repeat(330)}`, '/'],
    [`/a/${'b'.repeat(1_900)}?x=1`, `/a/${'b'.repeat(1_900)}?x=1`],
  ]
  for (const [path, back] of cases) {
    const page = await open(path)
    assert.equal(page.status, 200, `${path.slice(0, 20)} ${page.body.slice(0, 200)}`)
    assert.equal(page.url.pathname + page.url.search, back)
  }
})

test('"Try again" leads back to where the sign-in came from, whatever failed', async (t) => {
  const { cloakroom, provider } = await setUp(t)
  const back = /href="\/bff\/login\?returnUrl=%2Fdeep%3Fx%3D1(?:&amp;[^"]*)?">Try again</
  const start = '/bff/login?returnUrl=%2Fdeep%3Fx%3D1&prompt=login'
  const browser = cloakroom.browser()
  provider.control.authorizationError = { error: 'access_denied' }
  assert.match((await browser.navigate(start)).body, back)
  delete provider.control.authorizationError
  for (const fault of [{ kind: 'status', status: 500 }, { kind: 'drop-after' }] as const) {
    provider.control.fault = { ...fault, leg: 'code', times: 1 }
    const failed = await browser.navigate(start)
    assert.match(failed.body, back)
  }
  provider.control.idTokenClaims = { nonce: 'another' }
  const failed = await browser.navigate(start)
  assert.equal(failed.status, 400)
  assert.match(failed.body, back)
  const [, retry = ''] = /href="([^"]*)">Try again/.exec(failed.body) ?? []
  provider.control.idTokenClaims = {}
  const landing = await browser.navigate(retry.replaceAll('&amp;', '&'))
  assert.equal(landing.url.pathname + landing.url.search, '/deep?x=1')
})

test('"Try again" of a sign-in that could not begin is the same sign-in', async (t) => {
  const { cloakroom, provider } = await setUp(t)
  await provider.close()
  const failed = await cloakroom.browser().navigate('/bff/login?returnUrl=%2Fdeep&prompt=login')
  assert.equal(failed.status, 503)
  assert.match(failed.body, /href="\/bff\/login\?returnUrl=%2Fdeep&amp;prompt=login">Try again</)
  const refused = await cloakroom.browser().navigate('/bff/login?returnUrl=//evil.test')
  assert.equal(refused.status, 400)
  assert.match(refused.body, /href="\/bff\/login">Try again</)
})

test('the reference on a failure page is the request id of the lines that tell why', async (t) => {
  const { cloakroom, provider } = await setUp(t)
  provider.control.authorizationError = { error: 'invalid_scope' }
  const page = await cloakroom.browser().navigate('/bff/login?returnUrl=/')
  const [, id = ''] = /<dt>Request<\/dt><dd>([\w-]{36})<\/dd>/.exec(page.body) ?? []
  assert.ok(id)
  const lines = cloakroom.logs.map((line) => JSON.parse(line)).filter(({ request_id }) => request_id === id)
  assert.ok(lines.some(({ level, oauthError }) => level === 'warn' && oauthError === 'invalid_scope'))
  assert.ok(lines.some(({ msg }) => msg === 'request'))
})

test('a page that a service worker fetches is a navigation, and one that is fetched ahead is none', async (t) => {
  const { cloakroom } = await setUp(t)
  const browser = cloakroom.browser()
  const asked = (headers: Record<string, string>) => browser.open('/page', { headers })
  assert.equal((await asked({ 'sec-fetch-dest': 'empty' })).status, 302)
  assert.equal((await asked({ 'sec-fetch-dest': 'iframe' })).status, 403)
  for (const ahead of ['sec-purpose', 'purpose', 'x-moz'])
    assert.equal((await asked({ [ahead]: 'prefetch' })).status, 403, ahead)
  await browser.signIn()
  assert.equal((await asked({ 'sec-fetch-dest': 'empty', 'sec-fetch-site': 'cross-site' })).status, 200)
  assert.equal(
    (await browser.fetch('/page', { headers: { 'x-csrf': '' }, from: 'https://evil.test' })).status,
    403,
  )
})

test('before a download that began a sign-in, sameSite: lax shows a page of ours, too', async (t) => {
  const { open } = await setUp(t, { sameSite: 'lax' })
  const page = await open('/report.pdf')
  const steps = page.exchanges.map(({ url, status }) => `${url.pathname} ${status}`)
  assert.deepEqual(steps.slice(-3), ['/bff/callback 303', '/bff/landing 200', '/report.pdf 200'])
})

test('B/user shows no token that a provider has put into a claim, and answers 204 without a session when asked to', async (t) => {
  const { cloakroom, provider } = await setUp(t)
  const browser = cloakroom.browser()
  const jwt = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl'
  provider.control.idTokenClaims = {
    ...{ email: 'a@example.test', idp_access_token: 'secret-1', refresh_token: 'secret-2', upstream: jwt },
    _claim_sources: { src1: { endpoint: 'https://x.test', access_token: 'secret-3' }, src2: { JWT: jwt } },
    list: ['kept', jwt],
  }
  assert.equal((await browser.fetch('/bff/user?anonymous=204')).status, 204)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
  assert.equal((await browser.fetch('/bff/user?anonymous=204', { headers: { 'x-csrf': '' } })).status, 403)
  await browser.signIn()
  const { body, json } = await browser.fetch('/bff/user?anonymous=204')
  assert.doesNotMatch(body, /secret-|eyJ/)
  const { email, list, _claim_sources: sources } = json()
  assert.deepEqual(
    [email, list, sources],
    ['a@example.test', ['kept'], { src1: { endpoint: 'https://x.test' }, src2: {} }],
  )
})
