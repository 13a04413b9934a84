import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { lastForm, signedInAtAzure } from '../kit/azure/azure-shop.ts'

const CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1635527790"}}}'
const POLICY_CLAIMS = '{"access_token":{"polids":{"essential":true,"Values":["c1"]}}}'

const base64 = (text: string) => Buffer.from(text).toString('base64')
const caeAnswer = (claims = CHALLENGE) => ({
  status: 401,
  headers: {
    'www-authenticate': `Bearer realm="", authorization_uri="https://evil.test/authorize", error="insufficient_claims", claims="${base64(claims)}"`,
  },
})

async function scene(t: TestContext) {
  const made = await signedInAtAzure(t, 'v2')
  await made.browser.fetch('/api/orders/1')
  await made.browser.fetch('/api/billing/1')
  return { ...made, refreshes: () => made.azure.tokenRequests().length }
}

test('an API whose policy wants more is cured by the sign-in that login_url leads to, and only that API waits for it', async (t) => {
  const { browser, azure, shop, advance, setBilling } = await scene(t)
  setBilling({ outcome: 'step-up', claims: POLICY_CLAIMS })
  advance(700)
  const refused = await browser.fetch('/api/billing/1')
  assert.equal(refused.status, 401)
  const { code, reason, login_url } = refused.json()
  assert.deepEqual([code, reason], ['reauthentication_required', 'interaction_required'])
  assert.match(login_url, /^\/bff\/login\?challenge=[\w-]{43}$/)
  assert.ok(!refused.body.includes('polids'))
  assert.equal((await browser.fetch('/api/orders/1')).status, 200)

  const before = browser.clone()
  const landing = await browser.navigate(`${shop.cloakroom.publicUrl}${login_url}&returnUrl=/spa`)
  assert.equal(landing.status, 200)
  assert.equal(
    (await before.fetch('/bff/user')).status,
    401,
    'the id before the step-up is no session any more',
  )
  const authorization = azure.requests.filter(({ path }) => path.includes('/authorize')).at(-1)
  const query = new URLSearchParams(authorization?.query)
  assert.equal(query.get('claims'), POLICY_CLAIMS)
  assert.ok(query.get('scope')?.includes('https://billing.contoso.com/read'))
  assert.equal((await browser.fetch('/api/billing/1')).status, 200)
  assert.equal((await browser.fetch('/api/orders/1')).status, 200)
})

test('a handle is good for one sign-in that is finished; a spent, unknown or repeated one is told, with the way back, and begins no sign-in', async (t) => {
  const { browser, shop, azure, advance, setBilling } = await scene(t)
  setBilling({ outcome: 'step-up', claims: POLICY_CLAIMS })
  advance(700)
  const { login_url } = (await browser.fetch('/api/billing/1')).json()
  const first = await browser.open(login_url)
  assert.equal(new URL(String(first.headers.location)).searchParams.get('claims'), POLICY_CLAIMS)
  await browser.navigate(`${shop.cloakroom.publicUrl}${login_url}&returnUrl=/spa`)
  const begun = browser.cookies.length
  for (const url of [
    login_url,
    `/bff/login?challenge=${'x'.repeat(43)}`,
    '/bff/login?challenge=%7B%22access_token%22%7D',
    '/bff/login?challenge=',
    `${login_url}&challenge=${'x'.repeat(43)}`,
  ]) {
    const answer = await browser.open(`${url}&returnUrl=/spa?x=1`)
    assert.equal(answer.status, 400, url)
    const { code, reason, login_url: again } = answer.json()
    assert.deepEqual([code, reason], ['bad_request', 'step_up_expired'])
    assert.equal(again, '/bff/login?returnUrl=%2Fspa%3Fx%3D1')
    const page = await browser.navigate(`${url}&returnUrl=/spa?x=1`)
    assert.equal(page.status, 400)
    assert.match(page.body, /href="\/spa\?x=1">Back to the application</)
  }
  assert.equal(browser.cookies.length, begun)
  assert.ok(azure)
})

test('another user coming back from a step-up is refused, and the session before stays', async (t) => {
  const { browser, azure, shop, advance, setBilling } = await scene(t)
  setBilling({ outcome: 'step-up', claims: POLICY_CLAIMS })
  advance(700)
  const { login_url } = (await browser.fetch('/api/billing/1')).json()
  azure.policy.user = 'mallory'
  const page = await browser.navigate(shop.cloakroom.publicUrl + login_url)
  assert.equal(page.status, 400)
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  assert.equal((await browser.fetch('/api/orders/1')).status, 200)
})

test('a step-up that does not help ends in access_denied, not in a circle', async (t) => {
  const { browser, shop, advance, setBilling } = await scene(t)
  setBilling({ outcome: 'step-up', claims: POLICY_CLAIMS, curable: false, legs: 'both' })
  advance(700)
  const { login_url } = (await browser.fetch('/api/billing/1')).json()
  setBilling({ outcome: 'step-up', claims: POLICY_CLAIMS, curable: false })
  await browser.navigate(`${shop.cloakroom.publicUrl}${login_url}&returnUrl=/spa`)
  advance(700)
  const again = await browser.fetch('/api/billing/1')
  assert.equal(again.status, 403)
  assert.deepEqual([again.json().code, again.json().reason], ['access_denied', 'step_up_did_not_help'])
  assert.equal((await browser.fetch('/api/orders/1')).status, 200)
})

test("an API's claims challenge is answered silently by a refresh with these claims, and the request sent again", async (t) => {
  const { browser, shop, refreshes, ...rest } = await scene(t)
  const before = refreshes()
  Object.assign(shop.billing.answer, { ...caeAnswer(), times: 1 })
  const answer = await browser.fetch('/api/billing/1', { method: 'POST', body: 'amount=1' })
  assert.equal(answer.status, 200)
  assert.equal(answer.json().bodyBytes, 8)
  assert.equal(refreshes(), before + 1)
  assert.equal(lastForm({ ...rest, browser, shop }).claims, CHALLENGE)
})

test('a challenge that a refresh does not satisfy asks the user to sign in with these claims', async (t) => {
  const { browser, shop, azure } = await scene(t)
  Object.assign(shop.billing.answer, { ...caeAnswer(), times: 3 })
  const first = await browser.fetch('/api/billing/1')
  assert.equal(first.status, 401, 'the second answer is relayed')
  const second = await browser.fetch('/api/billing/1')
  assert.deepEqual([second.status, second.json().code], [401, 'reauthentication_required'])
  await browser.open(second.json().login_url).then(({ headers }) => {
    assert.equal(new URL(String(headers.location)).searchParams.get('claims'), CHALLENGE)
  })
  assert.ok(azure)
})

test('insufficient_user_authentication leads to a sign-in with acr_values and max_age (RFC 9470)', async (t) => {
  const { browser, shop } = await scene(t)
  const challenge =
    'Bearer error="insufficient_user_authentication", acr_values="urn:gold urn:silver", max_age="5"'
  Object.assign(shop.orders.answer, { status: 401, headers: { 'www-authenticate': challenge }, times: 1 })
  const refused = await browser.fetch('/api/orders/1')
  assert.deepEqual([refused.status, refused.json().code], [401, 'reauthentication_required'])
  assert.equal(refused.json().reason, 'insufficient_user_authentication')
  const login = await browser.open(refused.json().login_url)
  const query = new URL(String(login.headers.location)).searchParams
  assert.deepEqual([query.get('acr_values'), query.get('max_age')], ['urn:gold urn:silver', '5'])
})

test('a token that an API rejects is renewed once, out of turn, and the request sent again; a storm renews once a minute', async (t) => {
  const { browser, shop, refreshes, advance } = await scene(t)
  const rejected = { status: 401, headers: { 'www-authenticate': 'Bearer error="invalid_token"' } }
  Object.assign(shop.orders.answer, { ...rejected, times: 1 })
  let before = refreshes()
  assert.equal((await browser.fetch('/api/orders/1')).status, 200)
  assert.equal(refreshes(), before + 1)
  Object.assign(shop.orders.answer, { ...rejected, times: 1000 })
  before = refreshes()
  const storm = await Promise.all(Array.from({ length: 20 }, () => browser.fetch('/api/orders/1')))
  for (const { status } of storm) assert.equal(status, 401)
  assert.equal(refreshes(), before, 'the last forced renewal was less than a minute ago')
  advance(61)
  await Promise.all(Array.from({ length: 20 }, () => browser.fetch('/api/orders/1')))
  assert.equal(refreshes(), before + 1)
  assert.equal((await browser.fetch('/api/billing/1')).status, 200)
})
