import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { opaque, unsignedJwt } from '../../src/demo/scripted/signing.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { type Conformance, signingKey, startConformance } from '../kit/provider/conformance-provider.ts'

/*
 * The OpenID Foundation's logout plans for Relying Parties: oidcc-client-rp-initiated-logout-rp-…, …-frontchannel-… and
 * …-backchannel-rp-basic. There is no session management by iframe (test/REQUIREMENTS.md).
 */

const EVENT = 'http://schemas.openid.net/event/backchannel-logout'

let system: Conformance
const cleanUps: (() => unknown)[] = []
before(async () => {
  system = await startConformance({ after: (cleanUp) => void cleanUps.unshift(cleanUp) })
})
after(async () => {
  for (const cleanUp of cleanUps) await cleanUp()
})

/** Signs in; gives the names of user and session at the provider. */
async function signedIn() {
  const [sub, sid] = [opaque('ada-', 6), opaque('sid-', 6)]
  system.provider.control.user = sub
  const { browser, isSignedIn } = await system.play({ claims: (claims) => ({ ...claims, sid }) })
  assert.equal(isSignedIn, true)
  return { browser, sub, sid }
}

const isSignedIn = async (browser: Browser) => (await browser.fetch('/bff/user')).status === 200

/** Signs out, and stops where the browser leaves for the provider. */
async function leaving(returnUrl: string) {
  const { browser } = await signedIn()
  const { 'bff:logout_url': url } = (await browser.fetch('/bff/user')).json()
  const out = await browser.open(`${url}&returnUrl=${encodeURIComponent(returnUrl)}`)
  assert.equal(await isSignedIn(browser), false)
  return { browser, end: new URL(String(out.headers.location)) }
}

describe('a sign-out that begins here', () => {
  const back = (browser: Browser, query: string) =>
    browser.navigate(`${system.cloakroom.publicUrl}/bff/logged-out${query}`, { from: system.provider.origin })

  test('oidcc-client-test-rp-init-logout: the provider gets the hint, the registered URI and a state, and the way back works', async () => {
    const { browser, end } = await leaving('/bye')
    const { provider, cloakroom } = system
    assert.equal(end.origin + end.pathname, provider.endpoints.endSession)
    const asked = Object.fromEntries(end.searchParams)
    assert.match(asked.id_token_hint ?? '', /^ey/)
    assert.equal(asked.post_logout_redirect_uri, `${cloakroom.publicUrl}/bff/logged-out`)
    assert.match(asked.state ?? '', /^[\w-]{43}$/)
    const page = await browser.navigate(end.href)
    assert.equal(page.url.pathname, '/bye')
    assert.equal(await isSignedIn(browser), false)
  })

  test('oidcc-client-test-rp-init-logout-other-state: a state that is not ours leads to the start page', async () => {
    const { browser } = await leaving('/bye')
    assert.equal((await back(browser, '?state=another')).url.pathname, '/')
    assert.equal(await isSignedIn(browser), false)
  })

  test('oidcc-client-test-rp-init-logout-no-state: without a state, too', async () => {
    const { browser } = await leaving('/bye')
    assert.equal((await back(browser, '')).url.pathname, '/')
    assert.equal(await isSignedIn(browser), false)
  })
})

describe('a front-channel logout', () => {
  /** The provider's page loads this in a frame: no cookie comes along. */
  async function framed(sid: string) {
    const query = new URLSearchParams({ iss: system.provider.issuer, sid })
    const answer = await fetch(`${system.cloakroom.listenUrl}/bff/frontchannel-logout?${query}`, {
      headers: { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe', 'sec-fetch-site': 'cross-site' },
    })
    assert.deepEqual([answer.status, answer.headers.get('cache-control')], [200, 'no-store'])
    assert.match(String(answer.headers.get('content-security-policy')), /frame-ancestors http/)
  }

  test('oidcc-client-test-rp-frontchannel-rpinitlogout: after a sign-out here the frame of the provider changes nothing more, and is answered', async () => {
    const { browser, sid } = await signedIn()
    const other = await signedIn()
    const { 'bff:logout_url': url } = (await browser.fetch('/bff/user')).json()
    await browser.navigate(`${system.cloakroom.publicUrl}${url}`, { from: system.cloakroom.publicUrl })
    await framed(sid)
    assert.deepEqual([await isSignedIn(browser), await isSignedIn(other.browser)], [false, true])
  })

  test('oidcc-client-test-rp-frontchannel-opinitlogout: a sign-out at the provider ends the session of that sid, and no other', async () => {
    const [one, other] = [await signedIn(), await signedIn()]
    await framed(one.sid)
    assert.deepEqual([await isSignedIn(one.browser), await isSignedIn(other.browser)], [false, true])
  })
})

describe('a back-channel logout', () => {
  type Token = (about: { sub: string; sid: string }) => string | Promise<string>
  const sound = (claims: Record<string, unknown>) => system.provider.logoutToken(claims)

  async function delivered(token: Token) {
    const { browser, sub, sid } = await signedIn()
    const answer = await fetch(`${system.cloakroom.listenUrl}/bff/backchannel-logout`, {
      method: 'POST',
      body: new URLSearchParams({ logout_token: await token({ sub, sid }) }),
    })
    assert.equal(answer.headers.get('cache-control'), 'no-store')
    return { status: answer.status, text: await answer.text(), isStill: await isSignedIn(browser) }
  }

  test('oidcc-client-test-rp-backchannel-rpinitlogout: a sound logout token ends the session', async () => {
    const { status, isStill } = await delivered(sound)
    assert.deepEqual([status, isStill], [200, false])
  })

  const claimsOf = (about: object) => ({
    ...{ iss: system.provider.issuer, aud: system.provider.clientId, events: { [EVENT]: {} }, ...about },
    ...{ iat: Math.floor(Date.now() / 1000), exp: Math.floor(Date.now() / 1000) + 120, jti: opaque('jti-') },
  })
  const REFUSED: Record<string, Token> = {
    'oidcc-client-test-rp-backchannel-rpinitlogout-alg-none: an unsigned logout token ends nothing': (
      about,
    ) => unsignedJwt(claimsOf(about)),
    'oidcc-client-test-rp-backchannel-rpinitlogout-no-event: one without events ends nothing': (about) =>
      sound({ ...about, events: undefined }),
    'oidcc-client-test-rp-backchannel-rpinitlogout-with-nonce: one with a nonce ends nothing': (about) =>
      sound({ ...about, nonce: 'n' }),
    'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-alg: one by an algorithm that is not the provider’s ends nothing':
      async (about) => (await signingKey('ES256', 'another')).sign(claimsOf(about), { typ: 'logout+jwt' }),
    'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-aud: one for another client ends nothing': (about) =>
      sound({ ...about, aud: 'another-client' }),
    'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-event: one of another event ends nothing': (about) =>
      sound({ ...about, events: { [`${EVENT}/other`]: {} } }),
    'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-iss: one of another issuer ends nothing': (about) =>
      sound({ ...about, iss: `${system.provider.issuer}/other` }),
  }
  for (const [title, token] of Object.entries(REFUSED))
    test(title, async () => {
      const { status, text, isStill } = await delivered(token)
      assert.deepEqual([status, JSON.parse(text).error, isStill], [400, 'invalid_request', true])
    })
})
