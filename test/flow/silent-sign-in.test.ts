import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setUp as setUpSignIn } from '../kit/attack/sign-in.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'

async function setUp(t: TestContext, sameSite = 'strict') {
  const session = { store: { type: 'memory' }, keys: [sessionKey()], cookie: { sameSite } }
  const setup = await setUpSignIn(t, { config: { session } })
  const { browser, cloakroom, provider } = setup
  const silently = (returnUrl: string) =>
    browser.navigate(
      `${cloakroom.publicUrl}/bff/login?prompt=none&returnUrl=${encodeURIComponent(returnUrl)}`,
      { from: cloakroom.publicUrl },
    )
  const answer = (error: string) => {
    provider.control.authorizationError = { error }
  }
  return { ...setup, silently, answer }
}

for (const sameSite of ['strict', 'lax']) {
  test(`"not without the user" is an outcome that returnUrl tells, for all four ways to say it (sameSite: ${sameSite})`, async (t) => {
    const { browser, cloakroom, answer, silently } = await setUp(t, sameSite)
    for (const code of [
      'login_required',
      'interaction_required',
      'consent_required',
      'account_selection_required',
    ]) {
      answer(code)
      const landing = await silently('/app/page?x=1&y=%20+')
      assert.equal(landing.status, 200)
      assert.equal(landing.url.pathname + landing.url.search, `/app/page?x=1&y=%20+&login_error=${code}`)
      assert.equal((await silently('/')).url.search, `?login_error=${code}`)
      const once = await silently(`/a?login_error=${code}`)
      assert.equal(once.url.search, `?login_error=${code}`, 'told once, however often')
    }
    assert.equal(browser.cookies.length, 0)
    const warnings = cloakroom.logs.filter((line) => /"level":"(?:warn|error)"/.test(line))
    assert.deepEqual(
      warnings.filter((line) => !line.includes('memory')),
      [],
    )
  })
}

test('the fragment of returnUrl stays behind the outcome', async (t) => {
  const { browser, answer, provider } = await setUp(t)
  answer('login_required')
  const login = await browser.open(`/bff/login?prompt=none&returnUrl=${encodeURIComponent('/a?b#/c?d')}`)
  const response = await fetch(String(login.headers.location), { redirect: 'manual' })
  const callback = new URL(String(response.headers.get('location')))
  const { status, body } = await browser.open(callback.pathname + callback.search, { from: provider.origin })
  assert.equal(status, 200)
  assert.match(body, /content="0;url=\/a\?b&amp;login_error=login_required#\/c\?d"/)
})

test('a session that a silent sign-in could not renew stays as it was', async (t) => {
  const { browser, answer, silently } = await setUp(t)
  await browser.signIn()
  answer('login_required')
  await silently('/')
  assert.equal((await browser.fetch('/bff/user')).status, 200)
})

test('a silent sign-in that works says nothing of an outcome before', async (t) => {
  const { silently } = await setUp(t)
  const landing = await silently('/a?x=1&login_error=login_required')
  assert.equal(landing.url.search, '?x=1')
})

test('other errors are failures as ever, and so is a second login_required for the same page', async (t) => {
  const { browser, cloakroom, answer, silently } = await setUp(t)
  for (const code of ['access_denied', 'invalid_scope', 'login_requiredx']) {
    answer(code)
    assert.ok((await silently('/a')).status >= 400, code)
  }
  answer('login_required')
  const login = `${cloakroom.publicUrl}/bff/login?returnUrl=`
  const told = await browser.navigate(`${login}${encodeURIComponent('/a')}`)
  assert.equal(told.url.search, '?login_error=login_required')
  const again = await browser.navigate(`${login}${encodeURIComponent('/a?login_error=login_required')}`)
  assert.equal(again.status, 400)
  assert.match(again.body, /Sign-in failed/)
})

test('a forged outcome is refused: another state, issuer or browser', async (t) => {
  const { browser, cloakroom, provider } = await setUp(t)
  const login = await browser.open('/bff/login?prompt=none&returnUrl=/a')
  const state = new URL(String(login.headers.location)).searchParams.get('state')
  const callback = `${cloakroom.publicUrl}/bff/callback?error=login_required`
  assert.equal((await browser.navigate(`${callback}&state=x`)).status, 400)
  assert.equal((await cloakroom.browser().navigate(`${callback}&state=${state}`)).status, 400)
  const forged = await browser.navigate(`${callback}&state=${state}&iss=https://evil.test`)
  assert.equal(forged.status, 400)
  assert.equal(provider.tokenRequests().length, 0)
})

test('a provider that sends no refresh token and knows no prompt=consent lets people in after three who were refused', async (t) => {
  const { provider, cloakroom, browser } = await setUp(t)
  const { control } = provider
  control.editAnswer = (answer, leg) => {
    if (leg === 'code') delete answer.refresh_token
    control.authorizationError = { error: 'invalid_request' }
  }
  const statuses: number[] = []
  for (let sign = 0; sign < 4; sign += 1) {
    delete control.authorizationError
    statuses.push((await browser.navigate(`${cloakroom.publicUrl}/bff/login`)).status)
  }
  assert.deepEqual(statuses, [502, 502, 502, 200])
  assert.equal((await browser.fetch('/bff/user')).status, 200)
})
