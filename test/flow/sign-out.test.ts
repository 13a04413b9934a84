import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setUp as setUpSignIn } from '../kit/attack/sign-in.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'

const ELSEWHERE = 'https://elsewhere.test'

async function setUp(
  t: TestContext,
  { cookie = {}, claims = {} }: { cookie?: ConfigData; claims?: object } = {},
) {
  const session = { store: { type: 'memory' }, keys: [sessionKey()], cookie }
  const setup = await setUpSignIn(t, {
    config: { session },
    provider: { control: { idTokenClaims: { ...claims } } },
  })
  const logoutUrl = async (browser: Browser) => (await browser.fetch('/bff/user')).json()['bff:logout_url']
  return { ...setup, logoutUrl }
}

/** An ID token of groups and roles: no URL holds it. */
const FAT = { groups: Array.from({ length: 200 }, (_, index) => `group-${index}-of-many`) }

describe('a sign-out that another site causes', () => {
  test('brings no Strict cookie: nothing changes, no cookie is cleared, and it goes on to returnUrl', async (t) => {
    const { browser, cloakroom, provider, logoutUrl } = await setUp(t)
    await browser.signIn()
    for (const link of ['/bff/logout', '/bff/logout?sid=x', await logoutUrl(browser)]) {
      const url = `${link}${link.includes('?') ? '&' : '?'}returnUrl=/bye`
      const answer = await browser.open(url, { from: ELSEWHERE })
      assert.deepEqual([answer.status, answer.headers.location], [302, '/bye'], url)
      assert.equal(answer.headers['set-cookie'], undefined)
    }
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    assert.equal(provider.revoked.length, 0)
    const away = await browser.open('/bff/logout?returnUrl=//evil.test', { from: ELSEWHERE })
    assert.equal(away.status, 400)
    assert.ok(cloakroom.logs.length > 0)
  })

  test('is refused with sameSite: lax, because only the provider has the sid', async (t) => {
    const { browser, provider } = await setUp(t, { cookie: { sameSite: 'lax' } })
    await browser.signIn()
    for (const link of ['/bff/logout', '/bff/logout?sid=x']) {
      const answer = await browser.open(link, { from: ELSEWHERE })
      assert.deepEqual([answer.status, answer.headers['set-cookie']], [400, undefined])
    }
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    assert.equal(provider.revoked.length, 0)
  })

  test('is refused when it is no navigation, with the right sid too; so is a sign-in, and nothing is stored or counted', async (t) => {
    const { browser, cloakroom, provider, logoutUrl } = await setUp(t)
    await browser.signIn()
    const urls = [await logoutUrl(browser), '/bff/login?returnUrl=/']
    const before = provider.requests.length
    const fields: Record<string, string>[] = [
      { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' },
      { 'sec-fetch-mode': 'cors' },
      { 'sec-purpose': 'prefetch' },
      { 'sec-purpose': 'prefetch;prerender' },
      { purpose: 'prefetch' },
    ]
    for (const headers of fields)
      for (const url of urls) {
        const answer = await browser.open(url, { headers })
        assert.deepEqual(
          [answer.status, answer.json().code],
          [403, 'origin_forbidden'],
          JSON.stringify(headers),
        )
        assert.equal(answer.headers['set-cookie'], undefined)
      }
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    assert.equal(provider.requests.length, before)
    const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    assert.doesNotMatch(metrics, /cloakroom_rate_limited_total\{[^}]*\} [1-9]/)
  })

  test('clients that send no Fetch Metadata sign in and out as ever', async (t) => {
    const { cloakroom, logoutUrl } = await setUp(t)
    const plain = cloakroom.browser({ fetchMetadata: false })
    assert.equal((await plain.signIn({ returnUrl: '/home' })).url.pathname, '/home')
    const out = await plain.open(await logoutUrl(plain))
    assert.equal(out.status, 302)
    assert.equal((await plain.fetch('/bff/user')).status, 401)
  })
})

describe('the way back from the provider', () => {
  test('is one fixed URI, and from there to the returnUrl of that sign-out, once', async (t) => {
    const { browser, cloakroom, provider, logoutUrl } = await setUp(t)
    await browser.signIn()
    const out = await browser.open(
      `${await logoutUrl(browser)}&returnUrl=${encodeURIComponent('/bye?a=1#b')}`,
    )
    const end = new URL(String(out.headers.location))
    assert.equal(end.origin + end.pathname, provider.endpoints.endSession)
    assert.deepEqual([...end.searchParams.keys()].sort(), [
      ...['client_id', 'id_token_hint', 'post_logout_redirect_uri', 'state'],
    ])
    assert.equal(end.searchParams.get('post_logout_redirect_uri'), `${cloakroom.publicUrl}/bff/logged-out`)
    const state = end.searchParams.get('state')
    assert.match(state ?? '', /^[\w-]{43}$/)
    const back = `/bff/logged-out?state=${state}`
    const ahead = await browser.open(back, { headers: { 'sec-purpose': 'prefetch' } })
    assert.equal(ahead.status, 403, 'a prefetch uses nothing up')
    const first = await browser.open(back, { from: provider.origin })
    assert.deepEqual([first.status, first.headers.location], [302, '/bye?a=1#b'])
    for (const url of [
      back,
      '/bff/logged-out',
      '/bff/logged-out?state=',
      '/bff/logged-out?state=//evil.test',
    ])
      assert.equal((await browser.open(url)).headers.location, '/', url)
  })

  test('leads a browser over a page of ours to a redirect of ours, which clears what it keeps for the way back', async (t) => {
    const { browser, cloakroom, provider, logoutUrl } = await setUp(t)
    const hops = async (returnUrl: string) => {
      await browser.signIn()
      const link = `${cloakroom.publicUrl}${await logoutUrl(browser)}&returnUrl=${encodeURIComponent(returnUrl)}`
      const { exchanges, url } = await browser.navigate(link, { from: cloakroom.publicUrl })
      assert.equal(url.pathname + url.search, '/bye?a=1&b=%22')
      return exchanges
        .filter(({ url: { origin, pathname } }) => origin === cloakroom.publicUrl && pathname !== '/bye')
        .map(({ url: { pathname }, status, headers }) => [pathname, status, headers['clear-site-data']])
    }
    const clearing = '"cache"'
    const onward = [
      ['/bff/logged-out', 200, clearing],
      ['/bff/logged-out', 302, clearing],
    ]
    assert.deepEqual(await hops('/bye?a=1&b=%22'), [['/bff/logout', 302, clearing], ...onward])
    const { endSession: _none, ...endpoints } = provider.endpoints
    await cloakroom.reload({ provider: { ...provider.settings, endpoints } })
    provider.control.metadata = { end_session_endpoint: undefined }
    assert.deepEqual(await hops('/bye?a=1&b=%22'), [
      ['/bff/logout', 200, clearing],
      ['/bff/logged-out', 302, clearing],
    ])
    const away = await browser.open('/bff/logged-out?returnUrl=//evil.test')
    assert.deepEqual([away.status, away.json().code], [400, 'invalid_return_url'])
    const framed = await browser.open('/bff/logged-out', {
      headers: { accept: 'text/html', 'sec-fetch-dest': 'iframe' },
    })
    assert.deepEqual(
      [framed.status, framed.headers.location],
      [302, '/'],
      'no page of ours may be in a frame',
    )
  })

  test('needs no state of a provider that sends none, and no end-session endpoint at all', async (t) => {
    const { browser, cloakroom, provider, logoutUrl } = await setUp(t)
    await browser.signIn()
    provider.control.intercept = ({ path }, res) => {
      if (path !== '/end-session') return false
      res.writeHead(302, { location: `${cloakroom.publicUrl}/bff/logged-out` }).end()
      return true
    }
    const left = await browser.navigate(`${cloakroom.publicUrl}${await logoutUrl(browser)}&returnUrl=/bye`)
    assert.deepEqual([left.status, left.url.pathname], [200, '/'])
  })
})

describe('an ID token that is too long for a URL', () => {
  test('is posted by the page that the link leads to, and the way back works', async (t) => {
    const { browser, cloakroom, provider, logoutUrl } = await setUp(t, { claims: FAT })
    await browser.signIn()
    const page = await browser.navigate(`${cloakroom.publicUrl}${await logoutUrl(browser)}&returnUrl=/bye`, {
      from: cloakroom.publicUrl,
    })
    assert.deepEqual([page.status, page.url.pathname], [200, '/bff/logout'])
    assert.equal(page.headers['clear-site-data'], '"cache"')
    assert.match(
      String(page.headers['content-security-policy']),
      /;form-action http:\/\/127\.0\.0\.1:\d+ https: 'self'/,
    )
    const left = await browser.submit(page)
    assert.deepEqual([left.status, left.url.pathname], [200, '/bye'])
    const [asked] = provider.endSessions
    assert.equal(asked?.method, 'POST')
    const form = Object.fromEntries(asked?.form ?? [])
    assert.ok((form.id_token_hint?.length ?? 0) > 2000)
    assert.equal(form.post_logout_redirect_uri, `${cloakroom.publicUrl}/bff/logged-out`)
    assert.equal(form.client_id, provider.clientId)
  })

  test('is posted from a page of ours when a script signs out: the URL that it gets is good once', async (t) => {
    const { browser, cloakroom, provider } = await setUp(t, { claims: FAT })
    await browser.signIn()
    const out = await browser.fetch('/bff/logout?returnUrl=/bye', { method: 'POST' })
    const { redirect } = out.json()
    assert.match(redirect, /^\/bff\/end-session\?handle=[\w-]{43}$/)
    assert.equal((await browser.fetch('/bff/user')).status, 401)
    const page = await browser.navigate(cloakroom.publicUrl + redirect, { from: cloakroom.publicUrl })
    const left = await browser.submit(page)
    assert.deepEqual([left.status, left.url.pathname], [200, '/bye'])
    assert.ok(Object.fromEntries(provider.endSessions[0]?.form ?? []).id_token_hint)
    const again = await browser.navigate(cloakroom.publicUrl + redirect)
    assert.deepEqual([again.status, again.url.pathname], [200, '/'])
    assert.equal(provider.endSessions.length, 1)
  })
})
