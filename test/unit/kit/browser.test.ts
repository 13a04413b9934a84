import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createBrowser } from '../../kit/browsers/browser.ts'
import { createCookieJar } from '../../kit/browsers/cookie-jar.ts'
import { field, type LocalServer, sendHtml, sendJson, startLocalServer } from '../../kit/local-server.ts'
import { type RotatingProvider, startRotatingProvider } from '../../kit/provider/rotating-provider.ts'

describe('scripted browser', () => {
  let provider: RotatingProvider
  let app: LocalServer
  before(async () => {
    provider = await startRotatingProvider()
    app = await startApplication(provider)
  })
  after(async () => {
    await Promise.all([app.close(), provider.close()])
  })

  test('a sign-in goes through a provider form and ends on the page behind the landing page', async () => {
    provider.control.interactive = true
    const browser = createBrowser({ origin: app.origin })
    const page = await browser.signIn({ returnUrl: '/inside', user: 'bob' })
    provider.control.interactive = false
    assert.equal(page.url.href, `${app.origin}/inside`)
    assert.equal(JSON.parse(page.body).cookie, 'strict=1; lax=1')
    const callback = app.requests.find(({ path }) => path === '/bff/callback')
    assert.equal(callback?.headers.cookie, 'login=1', 'no Strict cookie on the way back from the provider')
    assert.equal(callback?.headers['sec-fetch-site'], 'cross-site')
    assert.equal(app.requests.at(-1)?.headers['sec-fetch-site'], 'same-origin')
    assert.deepEqual(
      page.exchanges.map(({ url }) => url.pathname),
      ['/bff/login', '/authorize', '/authorize', '/bff/callback', '/inside'],
    )
    browser.close()
  })

  test('a form_post answer is submitted, cross-site, without Lax cookies', async () => {
    const browser = createBrowser({ origin: app.origin })
    await browser.signIn({ params: { response_mode: 'form_post' } })
    const callback = app.requests.filter(({ path }) => path === '/bff/callback').at(-1)
    assert.deepEqual([callback?.method, callback?.headers.cookie], ['POST', undefined])
    assert.equal(callback?.headers.origin, provider.origin)
    browser.close()
  })

  test('a script request carries the CSRF header, cookies and fetch metadata', async () => {
    const browser = createBrowser({ origin: app.origin })
    await browser.signIn()
    await browser.fetch('/api', { method: 'POST', body: 'x' })
    const { headers } = app.requests.at(-1)!
    assert.equal(headers['x-csrf'], '1')
    assert.equal(headers.cookie, 'strict=1; lax=1')
    assert.deepEqual(
      [headers['sec-fetch-site'], headers['sec-fetch-mode'], headers.origin],
      ['same-origin', 'cors', app.origin],
    )
    await browser.fetch('/api', { from: 'https://evil.example', headers: { 'x-csrf': '' } })
    const foreign = app.requests.at(-1)!.headers
    assert.deepEqual(
      [foreign.cookie, foreign['x-csrf'], foreign['sec-fetch-site'], foreign.origin],
      [undefined, undefined, 'cross-site', 'https://evil.example'],
    )
    browser.close()
  })

  test('an https origin can be served by http on loopback, and one request sent to another replica', async () => {
    const replica = await startApplication(provider)
    const browser = createBrowser({
      origin: 'https://app.example.test',
      connect: { 'https://app.example.test': app.origin },
    })
    await browser.navigate('/secure')
    assert.deepEqual(
      browser.cookies.map(({ name }) => name),
      ['__Host-Http-ticket'],
    )
    await browser.fetch('/api', { via: replica.origin })
    const { headers } = replica.requests.at(-1)!
    assert.equal(headers.host, 'app.example.test')
    assert.equal(headers['x-forwarded-proto'], 'https')
    assert.equal(headers.cookie, '__Host-Http-ticket=1')
    browser.close()
    await replica.close()
  })

  test('cookies that a browser would refuse are refused, with the reason', async () => {
    const browser = createBrowser({ origin: app.origin })
    await browser.navigate('/secure')
    assert.deepEqual(browser.jar.rejected, [
      { line: '__Host-Http-ticket', reason: 'Secure from an http origin' },
      { line: '__Host-bad', reason: 'prefix without Secure' },
    ])
    browser.close()
  })

  test('the answers of the application are at hand for a leak scan', async () => {
    const browser = createBrowser({ origin: app.origin })
    await browser.fetch('/api')
    const texts = browser.haystacks()
    assert.ok(Object.keys(texts).some((label) => label.includes('GET /api → 200, body')))
    browser.close()
  })
})

/** An application that signs in as a BFF does, and nothing else. */
async function startApplication(provider: RotatingProvider): Promise<LocalServer> {
  const server = await startLocalServer((request, res) => {
    const { path, query, headers } = request
    if (path === '/bff/login') {
      const mode = field(query, 'response_mode')
      const location = new URL(provider.endpoints.authorization)
      location.search = new URLSearchParams({
        ...{ client_id: provider.clientId, response_type: 'code', state: 's' },
        ...{ redirect_uri: `${server.origin}/bff/callback`, code_challenge: 'c' },
        ...{ code_challenge_method: 'S256', ...(mode ? { response_mode: mode } : {}) },
      }).toString()
      return res
        .writeHead(302, { location: location.href, 'set-cookie': 'login=1; Path=/bff; SameSite=Lax' })
        .end()
    }
    if (path === '/bff/callback') {
      res.setHeader('set-cookie', ['strict=1; Path=/; SameSite=Strict', 'lax=1; Path=/'])
      const html = '<meta http-equiv="refresh" content="0;url=/inside">'
      return sendHtml(res, 200, html)
    }
    if (path === '/secure')
      res.setHeader('set-cookie', [
        '__Host-Http-ticket=1; Path=/; Secure; HttpOnly; SameSite=Strict',
        '__Host-bad=1; Path=/',
      ])
    sendJson(res, 200, { cookie: headers.cookie })
  })
  return server
}

test('a jar keeps Secure cookies of a loopback host over http only when it is told to, as Chromium does', () => {
  const url = new URL('http://127.0.0.1:9000/')
  const context = { sameSite: true, topLevelGet: true }
  for (const loopbackIsSecure of [true, false]) {
    const jar = createCookieJar({ separatePorts: true, loopbackIsSecure })
    jar.store(url, ['a=1; Secure'])
    jar.store(new URL('http://app.example/'), ['b=1; Secure'])
    assert.equal(jar.header(url, context), loopbackIsSecure ? 'a=1' : undefined)
    assert.deepEqual(jar.rejected.length, loopbackIsSecure ? 1 : 2)
  }
})
