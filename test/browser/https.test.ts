import assert from 'node:assert/strict'
import { after, before, describe, it, type TestContext } from 'node:test'
import type { BrowserContext, Page } from 'playwright-core'
import { skipWithoutChromium, skipWithoutWholeChromium } from '../kit/browsers/chromium.ts'
import {
  ACCESS_TOKEN_SECONDS,
  APP,
  COOKIE,
  call,
  FRAMING,
  heldCookie,
  SIBLING,
  type Site,
  signedIn,
  startSite,
} from '../kit/browsers/https-site.ts'
import { attempts, SET_BY_SCRIPT, submitForms } from '../kit/browsers/page-scripts.ts'

describe('Cloakroom on https in a browser', { skip: skipWithoutChromium, timeout: 300_000 }, () => {
  let site: Site

  before(async () => {
    site = await startSite()
  })
  after(() => site?.close())

  async function signIn(t: TestContext): Promise<{ context: BrowserContext; page: Page }> {
    const signed = await signedIn(site)
    t.after(() => signed.context.close())
    return signed
  }

  it('gives Chromium one cookie that no script reads or writes', async (t) => {
    const { context, page } = await signIn(t)
    const { value, ...attributes } = (await heldCookie(context)) ?? { value: '' }
    assert.match(value, /^s%3A[\w-]{43}\./)
    assert.deepEqual(attributes, {
      ...{ name: COOKIE, domain: 'app.cloakroom.test', path: '/' },
      ...{ expires: -1, httpOnly: true, secure: true, sameSite: 'Strict' },
    })
    // A leading dot would mean the whole domain; the cookie of the sign-in itself is gone.
    assert.deepEqual(
      (await context.cookies(APP)).map(({ name }) => name),
      [COOKIE],
    )
    assert.equal(await page.evaluate(SET_BY_SCRIPT), '')
    assert.equal((await heldCookie(context))?.value, value)
    assert.equal((await call(page, '/bff/user')).status, 200)
  })

  it('lets neither a script nor a sibling host plant a session cookie before the sign-in', async (t) => {
    const context = await site.browser.newContext()
    t.after(() => context.close())
    const page = await context.newPage()
    await page.goto(APP)
    assert.equal(await page.evaluate(SET_BY_SCRIPT), '')
    await page.goto(`${SIBLING}/plant`)
    await page.evaluate(`document.cookie = '${COOKIE}=x; Domain=cloakroom.test; Secure; Path=/'`)
    assert.deepEqual(await context.cookies(), [])
  })

  it('lands signed in under SameSite=Strict, on a page that navigates by itself and leaves no code behind', {
    skip: skipWithoutWholeChromium,
  }, async (t) => {
    const context = await (await site.wholeBrowser()).newContext()
    t.after(() => context.close())
    const page = await context.newPage()
    const callbacks: number[] = []
    page.on('response', (response) => {
      if (new URL(response.url()).pathname === '/bff/callback') callbacks.push(response.status())
    })
    await page.goto(APP)
    await page.getByRole('link', { name: 'Sign in' }).click()
    assert.ok(page.url().startsWith(`${site.issuer}/interaction/`))
    const codesBefore = codeGrants(site)
    await page.getByRole('button', { name: /Grace/ }).click()
    await page.waitForURL(`${APP}/home`)
    assert.equal(await page.evaluate('window.firstAnswer'), 200)
    assert.deepEqual(callbacks, [200])
    const landing = site.front.requests.findLast(({ path }) => path === '/home')
    assert.match(landing?.headers.cookie ?? '', new RegExp(`^${COOKIE}=`))

    const devtools = await context.newCDPSession(page)
    const { entries } = await devtools.send('Page.getNavigationHistory')
    assert.deepEqual(
      entries.filter(({ url }) => url.includes('code=')).map(({ url }) => new URL(url).pathname),
      [],
    )
    await page.goBack(AT_ONCE)
    await page.goForward(AT_ONCE)
    assert.equal(page.url(), `${APP}/home`)
    assert.deepEqual(callbacks, [200])
    assert.equal(codeGrants(site) - codesBefore, 1)
    assert.equal((await call(page, '/bff/user')).status, 200)
  })

  it('signs in two tabs at once, each back where it began', async (t) => {
    const context = await site.browser.newContext()
    t.after(() => context.close())
    const paths = ['/tab/one', '/tab/two']
    const tabs = await Promise.all(
      paths.map(async (path) => {
        const page = await context.newPage()
        await page.goto(`${APP}/bff/login?returnUrl=${path}`)
        return { page, path }
      }),
    )
    await Promise.all(
      tabs.map(async ({ page, path }) => {
        await page.getByRole('button', { name: /Ada/ }).click()
        await page.waitForURL(`${APP}${path}`)
      }),
    )
    for (const { page } of tabs) assert.equal((await call(page, '/bff/user')).status, 200)
  })

  it('calls an API, an event stream, a file and a WebSocket from its own page', async (t) => {
    const { page } = await signIn(t)
    const { status, body } = await call(page, '/api/orders/1')
    assert.deepEqual([status, JSON.parse(body).aud], [200, 'https://orders.example.com'])
    assert.equal(await page.evaluate(attempts.eventSource('')), 'ready')
    assert.equal(await page.evaluate(attempts.fetch('', '/files/report', {})), 200)
    const handshakes = site.handshakes.length
    assert.equal(await page.evaluate(attempts.webSocket), 'hello')
    assert.match(site.handshakes[handshakes]?.authorization ?? '', /^Bearer /)
    assert.equal(site.handshakes[handshakes]?.cookie, undefined)
  })

  it('renews the access token silently, while the page stays and every call is answered', async (t) => {
    const { page } = await signIn(t)
    const refreshesBefore = refreshGrants(site)
    const seen = new Set<number>()
    const until = Date.now() + 8 * ACCESS_TOKEN_SECONDS * 1000
    await page.evaluate('window.isSamePage = true')
    while (seen.size < 3 && Date.now() < until) {
      const { status, body } = await call(page, '/api/orders/1')
      assert.equal(status, 200, body)
      seen.add(JSON.parse(body).headers.authorization.exp)
      await page.waitForTimeout(300)
    }
    assert.ok(seen.size >= 3, `${seen.size} access tokens in ${8 * ACCESS_TOKEN_SECONDS} s`)
    assert.ok(refreshGrants(site) - refreshesBefore >= 2)
    assert.equal(await page.evaluate('window.isSamePage'), true)
  })

  it('lets a page on a sibling subdomain do nothing, although its requests carry the cookie', async (t) => {
    const { context, page } = await signIn(t)
    const sibling = await context.newPage()
    await sibling.goto(SIBLING)
    const [reached, shaken, passed] = [
      site.api.requests.length,
      site.handshakes.length,
      site.front.requests.length,
    ]
    const logged = site.cloakroom.logs.length
    const cookieBefore = (await heldCookie(context))?.value
    const simple = { credentials: 'include' }
    const results = {
      read: await sibling.evaluate(attempts.fetch(APP, '/api/orders/1', simple)),
      withHeader: await sibling.evaluate(
        attempts.fetch(APP, '/api/orders/1', { ...simple, headers: { 'x-csrf': '1' } }),
      ),
      opaque: await sibling.evaluate(
        attempts.fetch(APP, '/api/orders/1', { ...simple, method: 'POST', mode: 'no-cors', body: 'x' }),
      ),
      file: await sibling.evaluate(attempts.image('/files/report')),
      events: await sibling.evaluate(attempts.eventSource(APP)),
      socket: await sibling.evaluate(attempts.webSocket),
      logout: await sibling.evaluate(
        attempts.fetch(APP, '/bff/logout', { ...simple, method: 'POST', mode: 'no-cors' }),
      ),
      logoutImage: await sibling.evaluate(attempts.image('/bff/logout?sid=guessed')),
      logoutBare: await sibling.evaluate(attempts.image('/bff/logout')),
    }
    const failed = 'failed'
    assert.deepEqual(results, {
      ...{ read: failed, withHeader: failed, opaque: failed, file: failed, events: failed },
      ...{ socket: failed, logout: failed, logoutImage: failed, logoutBare: failed },
    })
    assert.deepEqual(await submitForms(sibling), [403, 403, 403])

    const forged = site.front.requests.slice(passed).filter(({ host }) => host === new URL(APP).host)
    const withCookie = forged.filter(({ headers }) => headers.cookie?.includes(`${COOKIE}=`))
    assert.ok(withCookie.length >= 10, `only ${withCookie.length} requests carried the cookie`)
    assert.ok(withCookie.some(({ isUpgrade }) => isUpgrade))
    assert.equal(site.api.requests.length, reached)
    assert.equal(site.handshakes.length, shaken)
    const lines = site.cloakroom.logs.slice(logged).map((line) => JSON.parse(line))
    const refusals = lines.filter(({ code }) => code === 'origin_forbidden' || code === 'csrf_required')
    assert.deepEqual([lines.length, refusals.length], [forged.length, forged.length], 'a line for each')
    assert.deepEqual(
      refusals.map(({ path }) => path).sort(),
      forged.map(({ path }) => path.split('?')[0]).sort(),
    )
    assert.equal((await heldCookie(context))?.value, cookieBefore)
    assert.equal((await call(page, '/bff/user')).status, 200)
  })

  for (const [way, answer] of [
    ['link', 'redirect'],
    ['script', 'page'],
  ] as const)
    it(`shows nothing of the user on the way back after a sign-out by ${way} that the provider answers with a ${answer}`, {
      skip: skipWithoutWholeChromium,
    }, async (t) => {
      site.signOutByRedirect(answer === 'redirect')
      t.after(() => site.signOutByRedirect(false))
      const { context, page } = await signedIn(site, 'Ada', await site.wholeBrowser())
      t.after(() => context.close())
      await page.evaluate('window.isKept = true')
      await page.goto(`${APP}/files/report`)
      await page.evaluate('window.isKept = true')
      await page.goBack(AT_ONCE)
      await page.goForward(AT_ONCE)
      assert.deepEqual(await shownBy(page), { url: `${APP}/files/report`, hasUser: true, isKept: true })
      const next =
        way === 'link'
          ? JSON.parse((await call(page, '/bff/user')).body)['bff:logout_url']
          : JSON.parse((await call(page, '/bff/logout', { method: 'POST' })).body).redirect
      await page.evaluate(`location.href = ${JSON.stringify(next)}`)
      await page.waitForURL(`${APP}/`)
      const shown = []
      while (page.url() !== 'about:blank') {
        await page.goBack(AT_ONCE)
        shown.push(await shownBy(page))
      }
      assert.ok(shown.some(({ url }) => url === `${APP}/home`))
      for (const one of shown) assert.deepEqual(one, { url: one.url, hasUser: false, isKept: false })
    })

  it('ends the session in a frame of the provider, which brings no cookie, and is shown by no other site', async (t) => {
    const { context, page } = await signIn(t)
    const { sid } = JSON.parse((await call(page, '/bff/user')).body)
    await page.evaluate(`new Promise((resolve) => {
      const events = new EventSource('/api/orders/events')
      events.onmessage = resolve
      window.streamEnded = new Promise((ended) => { events.onerror = () => { events.close(); ended(true) } })
    })`)
    const frame = (at: string, src: string) => `${at}${FRAMING}?src=${encodeURIComponent(src)}`
    const endUrl = (of: string) => `${APP}/bff/frontchannel-logout?${new URLSearchParams({ sid: of })}`
    const other = await context.newPage()
    const inProvider = frame(site.issuer, endUrl('unknown'))
    for (const src of [endUrl('unknown'), inProvider]) {
      const refusal = other.waitForEvent('console', (message) => message.text().includes('frame-ancestors'))
      await other.goto(frame(SIBLING, src))
      assert.ok((await refusal).text().includes(`"frame-ancestors ${site.issuer}"`))
      assert.deepEqual(
        other.frames().filter((one) => one.url().startsWith(APP)),
        [],
      )
    }
    assert.equal((await call(page, '/bff/user')).status, 200)

    await other.goto(frame(site.issuer, `${endUrl(sid)}&iss=${encodeURIComponent(site.issuer)}`))
    assert.ok(other.frames().at(-1)?.url().startsWith(endUrl(sid)))
    const asked = site.front.requests.findLast(({ path }) => path.startsWith('/bff/frontchannel-logout'))
    assert.deepEqual(
      ['cookie', 'sec-fetch-site', 'sec-fetch-dest'].map((name) => asked?.headers[name]),
      [undefined, 'cross-site', 'iframe'],
    )
    assert.equal(await page.evaluate('window.streamEnded'), true)
    assert.equal((await call(page, '/bff/user')).status, 401)
  })

  it('takes the cookie back at sign-out', async (t) => {
    const { context, page } = await signIn(t)
    const { status, body } = await call(page, '/bff/logout', { method: 'POST' })
    assert.equal(status, 200)
    assert.deepEqual(await context.cookies(APP), [])
    assert.equal((await call(page, '/bff/user')).status, 401)
    await page.goto(JSON.parse(body).redirect)
    await page.waitForURL(`${APP}/`)
    assert.equal(await page.evaluate('window.firstAnswer'), 401)
  })

  it('shows a styled page when a sign-in fails, within its own policy', async (t) => {
    const context = await site.browser.newContext()
    t.after(() => context.close())
    const page = await context.newPage()
    const complaints: string[] = []
    page.on('console', (message) => complaints.push(message.text()))
    await page.goto(`${APP}/bff/login`)
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.getByRole('heading', { name: 'Sign-in failed' }).waitFor()
    assert.equal(await page.evaluate(`getComputedStyle(document.querySelector('main')).borderRadius`), '16px')
    assert.deepEqual(
      complaints.filter((text) => text.includes('Content Security Policy')),
      [],
    )
    await page.getByRole('link', { name: 'Try again' }).click()
    await page.getByRole('button', { name: /Ada/ }).click()
    await page.waitForURL(`${APP}/`)
    assert.equal(await page.evaluate('window.firstAnswer'), 200)
  })
})

/** A page that was kept for the way back is not loaded again. */
const AT_ONCE = { waitUntil: 'commit' } as const

/** What a tab shows: of whom, and whether it is a page that was left and kept alive. */
async function shownBy(page: Page): Promise<{ url: string; hasUser: boolean; isKept: boolean }> {
  const look = `({ url: location.href, isKept: window.isKept === true,
    hasUser: document.documentElement.textContent.includes('"sub":"ada"') })`
  for (let tries = 1; ; tries += 1) {
    try {
      return (await page.evaluate(look)) as Awaited<ReturnType<typeof shownBy>>
    } catch (error) {
      // The navigation that was begun has taken the document away meanwhile.
      if (tries === 5) throw error
    }
  }
}

function codeGrants({ tokenRequests }: Site): number {
  return tokenRequests.filter(({ grantType }) => grantType === 'authorization_code').length
}

function refreshGrants({ tokenRequests }: Site): number {
  return tokenRequests.filter(({ grantType, status }) => grantType === 'refresh_token' && status === 200)
    .length
}
