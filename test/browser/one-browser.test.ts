import assert from 'node:assert/strict'
import { after, before, describe, it, type TestContext } from 'node:test'
import type { Page } from 'playwright-core'
import { skipWithoutChromium } from '../kit/browsers/chromium.ts'
import {
  APP,
  COOKIE,
  call,
  heldCookie,
  type Site,
  signedIn,
  startSite,
  statusWith,
} from '../kit/browsers/https-site.ts'

const KEPT = ['/api/orders/fresh', '/api/orders/aged']

/** One for both halves: to start another Chromium costs more than a test. */
let started: Promise<Site> | undefined
after(async () => (await started)?.close())

for (const sameSite of ['strict', 'lax'] as const)
  describe(`people who share a browser, with sameSite: ${sameSite}`, {
    skip: skipWithoutChromium,
    timeout: 300_000,
  }, () => {
    let site: Site

    before(async () => {
      started ??= startSite()
      site = await started
      await site.setSameSite(sameSite)
    })

    async function signIn(t: TestContext, person?: string) {
      const signed = await signedIn(site, person)
      t.after(() => signed.context.close())
      return signed
    }

    /** A sign-in that a page of another site begins. */
    async function signInFromElsewhere(page: Page, person: string): Promise<void> {
      await page.goto(`${site.issuer}/assets/mark.svg`)
      await page.evaluate(`location.href = '${APP}/bff/login?prompt=login&returnUrl=/home'`)
      await page.getByRole('button', { name: new RegExp(person) }).click()
      await page.waitForURL(`${APP}/home`)
    }

    const bodies = async (page: Page) =>
      Promise.all(
        KEPT.map(async (path) => (await call(page, path)).body.replace(/^\{.*"code":"(\w+)".*$/s, '$1')),
      )

    it("never shows one user's answers to the next, or to a page of nobody, whatever the browser keeps", async (t) => {
      const { page } = await signIn(t, 'Ada')
      assert.deepEqual(await bodies(page), ['for ada', 'for ada'])
      const asked = site.api.requests.length
      assert.deepEqual(await bodies(page), ['for ada', 'for ada'])
      assert.equal(site.api.requests.length, asked, 'the browser keeps them')

      const { body } = await call(page, '/bff/logout', { method: 'POST' })
      assert.deepEqual(await bodies(page), ['session_required', 'session_required'])
      await page.goto(JSON.parse(body).redirect)
      await page.waitForURL(`${APP}/`)
      assert.deepEqual(await bodies(page), ['session_required', 'session_required'])

      await page.getByRole('link', { name: 'Sign in' }).click()
      await page.getByRole('button', { name: /Grace/ }).click()
      await page.waitForURL(`${APP}/home`)
      assert.deepEqual(await bodies(page), ['for grace', 'for grace'])
      await signInFromElsewhere(page, 'Ada')
      assert.deepEqual(await bodies(page), ['for ada', 'for ada'])

      const logoutUrl = JSON.parse((await call(page, '/bff/user')).body)['bff:logout_url']
      await page.evaluate(`location.href = '${logoutUrl}'`)
      await page.waitForURL(`${APP}/`)
      assert.deepEqual(await bodies(page), ['session_required', 'session_required'])
    })

    it('ends the session before in every sign-in that another site begins', async (t) => {
      const { context, page } = await signIn(t, 'Ada')
      const held = [(await heldCookie(context))?.value]
      for (const person of ['Ada', 'Grace', 'Ada']) {
        await signInFromElsewhere(page, person)
        held.push((await heldCookie(context))?.value)
      }
      assert.equal(new Set(held).size, 4)
      const last = held.pop()
      for (const value of held) assert.equal(await statusWith(site, value), 401)
      assert.equal(await statusWith(site, last), 200)
      assert.equal((await call(page, '/bff/user')).status, 200)
      assert.deepEqual(
        (await context.cookies(APP)).map(({ name }) => name),
        [COOKIE],
      )
    })

    it('signs nobody out by a link that is prefetched, an image, or a link of another site', async (t) => {
      const { context, page } = await signIn(t)
      const logoutUrl = JSON.parse((await call(page, '/bff/user')).body)['bff:logout_url']
      const passed = site.front.requests.length
      await page.evaluate(`for (const [rel, href] of [['prefetch', '${logoutUrl}'], ['prefetch', '/bff/login']]) {
        document.head.append(Object.assign(document.createElement('link'), { rel, href }))
      }
      new Image().src = '${logoutUrl}'`)
      const rules = { prefetch: [{ urls: [logoutUrl], eagerness: 'immediate' }] }
      await page.evaluate(`document.head.append(Object.assign(document.createElement('script'),
        { type: 'speculationrules', textContent: '${JSON.stringify(rules)}' }))`)
      const signOuts = () =>
        site.front.requests.slice(passed).filter(({ path }) => path.startsWith('/bff/logout')).length
      for (let round = 0; round < 40 && signOuts() < 2; round += 1) await page.waitForTimeout(50)
      assert.ok(signOuts() >= 2, `${signOuts()} requests`)
      assert.equal((await call(page, '/bff/user')).status, 200)
      const cookie = (await heldCookie(context))?.value

      const elsewhere = await context.newPage()
      await elsewhere.goto(`${site.issuer}/assets/mark.svg`)
      await elsewhere.evaluate(`location.href = '${APP}/bff/logout?sid=x&returnUrl=/home'`)
      await elsewhere.waitForURL(sameSite === 'strict' ? `${APP}/home` : /sid=x/)
      assert.equal((await heldCookie(context))?.value, cookie)
      assert.equal((await call(page, '/bff/user')).status, 200)
    })

    it('signs in by a form that the provider posts, without the code in a URL, and ends the session before', async (t) => {
      await site.answerBy('form_post')
      t.after(() => site.answerBy('query'))
      const passed = site.front.requests.length
      const { context, page } = await signIn(t)
      const first = (await heldCookie(context))?.value
      await signInFromElsewhere(page, 'Grace')
      assert.deepEqual(await bodies(page), ['for grace', 'for grace'])
      assert.equal(await statusWith(site, first), 401)
      const paths = site.front.requests.slice(passed).map(({ path }) => path)
      assert.equal(paths.filter((path) => path.startsWith('/bff/callback/finish?h=')).length, 2)
      const posted = site.front.requests.slice(passed).filter(({ method }) => method === 'POST')
      assert.deepEqual(
        posted.map(({ path, headers }) => [path, headers['sec-fetch-site'], headers.cookie]),
        [
          ['/bff/callback', 'cross-site', undefined],
          ['/bff/callback', 'cross-site', undefined],
        ],
      )
      assert.deepEqual(
        paths.filter((path) => /[?&](?:code|state)=/.test(path)),
        [],
      )
    })

    it('leaves the tab on a page with a way on when what was asked for is a download', async (t) => {
      const context = await site.browser.newContext()
      t.after(() => context.close())
      const page = await context.newPage()
      await page.goto(`${APP}/files/download`)
      const download = page.waitForEvent('download')
      await page.getByRole('button', { name: /Ada/ }).click()
      assert.equal((await download).suggestedFilename(), 'report.txt')
      await page.getByRole('link', { name: 'Start page' }).click()
      await page.waitForURL(`${APP}/`)
      assert.equal(await page.evaluate('window.firstAnswer'), 200)
    })

    it('posts an ID token that no URL holds to the provider, within the policy of its page, and comes back', async (t) => {
      for (const way of ['link', 'script']) {
        const { context, page } = await signIn(t, 'Augusta')
        const complaints = complaintsOf(page)
        const logoutUrl = JSON.parse((await call(page, '/bff/user')).body)['bff:logout_url']
        const next =
          way === 'link'
            ? `${logoutUrl}&returnUrl=/bye`
            : JSON.parse((await call(page, '/bff/logout?returnUrl=/bye', { method: 'POST' })).body).redirect
        await page.evaluate(`location.href = '${next}'`)
        await page.waitForURL(`${APP}/bye`)
        assert.equal(await page.evaluate('window.firstAnswer'), 401)
        assert.deepEqual(complaints, [])
        assert.ok((site.endSessions.pop()?.get('id_token_hint')?.length ?? 0) > 2_000)
        await context.close()
      }
    })

    it('signs in through a service worker that passes navigations on', async (t) => {
      const context = await site.browser.newContext()
      t.after(() => context.close())
      const page = await context.newPage()
      await page.goto(`${APP}/`)
      await page.evaluate(
        `navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready)`,
      )
      await page.goto(`${APP}/`)
      assert.ok(await page.evaluate('navigator.serviceWorker.controller !== null'))
      await page.goto(`${APP}/files/report`)
      await page.getByRole('button', { name: /Ada/ }).click()
      await page.waitForURL(`${APP}/files/report`)
      const seen = site.front.requests.findLast(({ path }) => path === '/files/report')
      assert.equal(seen?.headers['sec-fetch-dest'], 'empty')
      assert.match(await page.evaluate('document.body.textContent'), /"sub":"ada"/)
    })
  })

function complaintsOf(page: Page): string[] {
  const complaints: string[] = []
  page.on('console', (message) => {
    if (/Content Security Policy/i.test(message.text())) complaints.push(message.text())
  })
  return complaints
}
