import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setUp as setUpSignIn } from '../kit/attack/sign-in.ts'
import type { Browser, Landing } from '../kit/browsers/browser.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const ELSEWHERE = 'https://elsewhere.test'

async function setUp(t: TestContext, { sameSite = 'strict', store = { type: 'memory' } as ConfigData } = {}) {
  const session = { store, keys: [sessionKey()], cookie: { sameSite } }
  const setup = await setUpSignIn(t, { config: { session } })
  const { provider, cloakroom } = setup
  /** A sign-in that a link on another site begins; the provider, too, is another site. */
  const fromElsewhere = (browser: Browser, returnUrl = '/') =>
    browser.navigate(`${cloakroom.publicUrl}/bff/login?returnUrl=${encodeURIComponent(returnUrl)}`, {
      from: ELSEWHERE,
    })
  /** Stops before the response is delivered. */
  async function begin(browser: Browser, returnUrl: string) {
    const { headers } = await browser.open(`/bff/login?returnUrl=${encodeURIComponent(returnUrl)}`)
    const answer = await fetch(String(headers.location), { redirect: 'manual' })
    const url = String(answer.headers.get('location'))
    return (using = browser) => using.navigate(url, { from: provider.origin })
  }
  return { ...setup, fromElsewhere, begin }
}

const clearsCache = ({ exchanges }: Landing) =>
  exchanges.some(
    ({ url, headers }) => url.pathname === '/bff/callback' && headers['clear-site-data'] === '"cache"',
  )

describe('the session before', () => {
  for (const sameSite of ['strict', 'lax']) {
    test(`ends, and its grant is revoked, in every sign-in that another site begins (sameSite: ${sameSite})`, {
      skip: skipWithoutRedis(),
    }, async (t) => {
      const redis = await startRedis()
      t.after(() => redis.stop())
      const store = { type: 'redis', url: redis.url }
      const { browser, provider, fromElsewhere } = await setUp(t, { sameSite, store })
      await browser.signIn()
      for (let again = 0; again < 4; again += 1) {
        const landing = await fromElsewhere(browser, `/page?${again}`)
        assert.deepEqual([landing.status, landing.url.search], [200, `?${again}`])
      }
      assert.equal((await redis.cli('KEYS', 'cloakroom:{*}:session')).length, 1)
      assert.equal(new Set(provider.revoked).size, 4)
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      const { cookies } = browser
      assert.deepEqual(cookies.map(({ name, path }) => [name, path]).sort(), [
        ['cloakroom', '/'],
        ...(sameSite === 'lax' ? [] : [['cloakroom-before', '/bff']]),
      ])
    })

    test(`ends in a browser that says nothing of where a navigation began (sameSite: ${sameSite})`, async (t) => {
      const { cloakroom, provider, fromElsewhere } = await setUp(t, { sameSite })
      const browser = cloakroom.browser({ fetchMetadata: false })
      await browser.signIn()
      for (let again = 0; again < 4; again += 1) {
        const before = browser.clone()
        const landing = await fromElsewhere(browser, `/page?${again}`)
        assert.deepEqual([landing.status, landing.url.search], [200, `?${again}`])
        assert.equal((await before.fetch('/bff/user')).status, 401)
      }
      assert.equal(new Set(provider.revoked).size, 4)
      assert.equal((await browser.fetch('/bff/user')).status, 200)
    })

    test(`is the one of another tab, which began before or after this sign-in (sameSite: ${sameSite})`, async (t) => {
      const { browser, provider, begin } = await setUp(t, { sameSite })
      const tabs = []
      for (const path of ['/one', '/two', '/three', '/four']) tabs.push(await begin(browser, path))
      const [first, ...others] = tabs
      assert.equal((await first!()).url.pathname, '/one')
      const ended = [browser.clone()]
      for (const finish of others) {
        assert.equal((await finish()).status, 200)
        ended.push(browser.clone())
      }
      ended.pop()
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      for (const before of ended) assert.equal((await before.fetch('/bff/user')).status, 401)
      assert.equal(provider.revoked.length, 3)
    })

    test(`does not end the new one: four tabs that finish at once leave the browser signed in (sameSite: ${sameSite})`, async (t) => {
      for (let round = 0; round < 5; round += 1) {
        const { browser, begin, cloakroom } = await setUp(t, { sameSite })
        const tabs = []
        for (const path of ['/one', '/two', '/three', '/four']) tabs.push(await begin(browser, path))
        const landings = await Promise.all(tabs.map((finish) => finish()))
        for (const { status } of landings) assert.equal(status, 200)
        assert.equal((await browser.fetch('/bff/user')).status, 200, 'the browser is signed in')
        await cloakroom.close()
      }
    })
  }

  test('stays until the new one stands: a sign-in that another site begins, and that fails, changes nothing', async (t) => {
    const { browser, provider, fromElsewhere } = await setUp(t)
    await browser.signIn()
    provider.control.fault = { kind: 'status', status: 500, leg: 'code' }
    assert.equal((await fromElsewhere(browser)).status, 503)
    provider.control.authorizationError = { error: 'access_denied' }
    assert.equal((await fromElsewhere(browser)).status, 403)
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    assert.equal(provider.revoked.length, 0)
  })

  test('ends whatever the link says that began it, and the link leads to the provider at once', async (t) => {
    const { browser, cloakroom, provider } = await setUp(t)
    await browser.signIn()
    const url = `${cloakroom.publicUrl}/bff/login?returnUrl=/x&step=same-site`
    const landing = await browser.navigate(url, { from: ELSEWHERE })
    assert.deepEqual([landing.status, landing.exchanges[0]?.status], [200, 302])
    assert.equal(provider.revoked.length, 1)
  })

  test('is named by a cookie that is no session, and a forged one, or one under another key, names nothing', async (t) => {
    const { browser, cloakroom, provider, fromElsewhere } = await setUp(t)
    await browser.signIn()
    const named = browser.cookies.find(({ name }) => name === 'cloakroom-before')!
    assert.deepEqual([named.sameSite, named.httpOnly, named.expiresAt], ['lax', true, undefined])
    for (const name of ['cloakroom', 'cloakroom-before']) {
      const thief = cloakroom.browser()
      thief.jar.store(new URL(cloakroom.publicUrl), [`${name}=${named.value}; Path=/`])
      assert.equal((await thief.fetch('/bff/user')).status, 401)
    }
    const other = cloakroom.browser()
    const tag = 'of-login-'
    for (const value of ['', tag, `${tag}.`, `${tag}x.1.y.z`, `${named.value}x`, named.value.slice(3)]) {
      other.jar.store(new URL(cloakroom.publicUrl), [`cloakroom-before=${value}; Path=/`])
      assert.equal((await fromElsewhere(other)).status, 200, value)
    }
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    assert.equal(provider.revoked.length, 5, 'of its own alone')
  })

  test("is not revoked where that would take the new one with it: the same session of the provider's", async (t) => {
    const { browser, provider, fromElsewhere } = await setUp(t)
    provider.control.idTokenClaims = { sid: 'one-session' }
    await browser.signIn()
    const before = browser.clone()
    await fromElsewhere(browser)
    assert.equal((await before.fetch('/bff/user')).status, 401)
    assert.equal(provider.revoked.length, 0)
    provider.control.idTokenClaims = { sid: 'another-session' }
    await fromElsewhere(browser)
    assert.equal(provider.revoked.length, 1)
    provider.control.idTokenClaims = { sid: 'another-session' }
    provider.control.user = 'mallory'
    await fromElsewhere(browser)
    assert.equal(provider.revoked.length, 2)
  })

  test('is the browser’s own: what the browser of an attacker knows ends no session of a victim', async (t) => {
    const { browser, cloakroom, provider, begin } = await setUp(t)
    await browser.signIn()
    const attacker = cloakroom.browser()
    const deliver = await begin(attacker, '/stolen')
    const refused = await deliver(browser)
    assert.equal(refused.status, 400)
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    assert.equal(provider.tokenRequests().length, 1)
  })
})

describe("what the browser's cache holds", () => {
  for (const sameSite of ['strict', 'lax']) {
    test(`is cleared when another user signs in, and when the user before is not known (sameSite: ${sameSite})`, async (t) => {
      const { browser, provider, fromElsewhere, advance } = await setUp(t, { sameSite })
      assert.equal(clearsCache(await browser.signIn()), false, 'no user was signed in before')
      assert.equal(clearsCache(await browser.signIn()), false, 'the same user')
      assert.equal(clearsCache(await fromElsewhere(browser)), false, 'the same user, from another site')
      provider.control.user = 'mallory'
      assert.equal(clearsCache(await browser.signIn()), true)
      provider.control.user = 'alice'
      assert.equal(clearsCache(await fromElsewhere(browser)), true)
      advance(24 * 3_600_000)
      assert.equal((await browser.fetch('/bff/user')).status, 401)
      assert.equal(clearsCache(await browser.signIn()), true, 'the session of an unknown user is over')
      advance(24 * 3_600_000)
      assert.equal(clearsCache(await fromElsewhere(browser)), true)
    })
  }

  test('is cleared at every sign-out: by link, by script, without a session, and on the way back', async (t) => {
    const { browser, cloakroom } = await setUp(t)
    await browser.signIn()
    const { 'bff:logout_url': url } = (await browser.fetch('/bff/user')).json()
    const left = await browser.navigate(`${cloakroom.publicUrl}${url}&returnUrl=/bye`)
    assert.equal(left.url.pathname, '/bye')
    const clearing = left.exchanges.filter(({ headers }) => headers['clear-site-data'] === '"cache"')
    assert.deepEqual(
      clearing.map(({ url: { pathname } }) => pathname),
      ['/bff/logout', '/bff/logged-out', '/bff/logged-out'],
    )
    assert.equal((await browser.open('/bff/logout')).headers['clear-site-data'], '"cache"')
    await browser.signIn()
    const byScript = await browser.fetch('/bff/logout', { method: 'POST' })
    assert.equal(byScript.headers['clear-site-data'], '"cache"')
    await browser.signIn()
    const refused = await browser.open('/bff/logout?sid=wrong')
    assert.deepEqual([refused.status, refused.headers['clear-site-data']], [400, undefined])
  })
})

describe('a callback that was good already', () => {
  for (const sameSite of ['strict', 'lax']) {
    test(`goes on to the application, even if a link from elsewhere led back to it (sameSite: ${sameSite})`, async (t) => {
      const { browser, cloakroom, provider } = await setUp(t, { sameSite })
      const landing = await browser.signIn({ returnUrl: '/deep?x=1' })
      const callback = landing.exchanges.find(({ url }) => url.pathname === '/bff/callback')!.url.href
      for (const from of [undefined, cloakroom.publicUrl, provider.origin]) {
        const again = await browser.navigate(callback, from === undefined ? {} : { from })
        assert.deepEqual([again.status, again.url.pathname + again.url.search], [200, '/deep?x=1'])
      }
      assert.equal(provider.tokenRequests().length, 1)
      await browser.signIn({ returnUrl: '/other' })
      const afterwards = await browser.navigate(callback, { from: provider.origin })
      assert.deepEqual([afterwards.status, afterwards.url.pathname], [200, '/'], 'the session is another')
      await browser.fetch('/bff/logout', { method: 'POST' })
      assert.equal((await browser.navigate(callback, { from: provider.origin })).status, 400)
    })
  }

  test('goes on in a browser, too, that says nothing of where a navigation began', async (t) => {
    const { cloakroom, provider } = await setUp(t)
    const browser = cloakroom.browser({ fetchMetadata: false })
    const landing = await browser.signIn({ returnUrl: '/deep?x=1' })
    const callback = landing.exchanges.find(({ url }) => url.pathname === '/bff/callback')!.url.href
    for (const from of [undefined, cloakroom.publicUrl, provider.origin]) {
      const again = await browser.navigate(callback, from === undefined ? {} : { from })
      assert.deepEqual([again.status, again.url.pathname + again.url.search], [200, '/deep?x=1'])
    }
    await browser.fetch('/bff/logout', { method: 'POST' })
    assert.equal((await browser.navigate(callback, { from: provider.origin })).status, 400)
  })

  test('leads no other session to its page', async (t) => {
    const { browser, cloakroom, provider } = await setUp(t)
    const landing = await browser.signIn({ returnUrl: '/dangerous' })
    const callback = landing.exchanges.find(({ url }) => url.pathname === '/bff/callback')!.url.href
    const stranger = cloakroom.browser()
    assert.equal((await stranger.navigate(callback, { from: provider.origin })).status, 400)
    await stranger.signIn({ returnUrl: '/mine' })
    const led = await stranger.navigate(callback, { from: ELSEWHERE })
    assert.equal(led.url.pathname, '/')
  })
})
