import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { flaws } from '../kit/browsers/axe.ts'
import { launchChromium, skipWithoutChromium } from '../kit/browsers/chromium.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { BILLING, type Shop, startShop } from '../kit/shops/shop.ts'

const DEAD = 'http://127.0.0.1:9'
const HOSTILE = '<img/src=x/onerror=alert(1)>'

/** The visible text of an element in one line; a script for the page. */
const SAID = `((selector) => document.querySelector(selector).innerText.replaceAll(/\\s+/g, ' '))`

describe('the console in a browser', { skip: skipWithoutChromium, timeout: 120_000 }, () => {
  const cleanUps: (() => unknown)[] = []
  let provider: Awaited<ReturnType<typeof startRotatingProvider>>
  let shop: Shop
  let browser: Browser
  let page: Page
  const complaints: string[] = []
  const asked: string[] = []

  before(async () => {
    provider = await startRotatingProvider()
    cleanUps.push(() => provider.close())
    shop = await startShop(
      { after: (cleanUp) => cleanUps.push(cleanUp) },
      { provider: provider.settings, jwks: provider.endpoints.jwks },
    )
    browser = await launchChromium()
    cleanUps.push(() => browser.close())
    page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
    page.on('console', (message) => complaints.push(message.text()))
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('request', (request) => asked.push(request.url()))
    page.on('dialog', () => complaints.push('a dialog'))
  })
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  })

  /** What the part of the page says, as soon as that is what it shall say. */
  async function said(selector: string, expected: RegExp): Promise<void> {
    let text = ''
    const look = async () => {
      text = await page.evaluate<string>(`${SAID}(${JSON.stringify(selector)})`)
      return expected.test(text)
    }
    await eventually('it says so', look, { withinMs: 15_000, everyMs: 100 }).catch(() =>
      assert.match(text, expected),
    )
  }

  /** Asks again without waiting for the next time. */
  async function askAgain(): Promise<void> {
    const pause = page.getByRole('button', { name: 'Pause' })
    await pause.click()
    await pause.click()
  }

  it('shows what is there, and that nothing is wrong, with no asset from elsewhere', async () => {
    const user = shop.browser()
    await user.signIn()
    await user.fetch('/api/orders/1')
    await user.fetch('/api/billing/1')
    await page.goto(shop.cloakroom.adminUrl)
    await said('#verdict', /^No problem known/)
    await said('#routes', /up orders.*up billing.*spa/)
    await said('#resources', /billing.*renewed 1/)
    await said('#provider', /Circuits ● ?closed|Circuits closed/)
    await said('#store', /memory/)
    assert.equal(await page.locator('#charts figure').first().locator('svg path.line').count(), 3)
    for (const url of asked) assert.ok(url.startsWith(shop.cloakroom.adminUrl), url)
    assert.deepEqual(complaints, [])
  })

  it('explains a request in the box, by keyboard', async () => {
    await page.getByLabel('URL').focus()
    await page.keyboard.type('/api/billing/42?x=1')
    await page.keyboard.press('Enter')
    await said(
      '#explanation',
      /Route billing .*Upstream http:\/\/127\.0\.0\.1:\d+\/api\/billing\/42\?x=1.*grant_type=refresh_token/,
    )
    await page.getByLabel('URL').fill('/nowhere/../x')
    await page.getByRole('button', { name: 'Explain' }).click()
    await said('#explanation', /400 path_rejected/)
  })

  it('fits a phone, has no flaw that axe finds there, and lets single moments be read by keyboard', async () => {
    await page.setViewportSize({ width: 390, height: 844 })
    assert.deepEqual(await flaws(page), [], 'phone')
    const isWider = 'document.documentElement.scrollWidth > document.documentElement.clientWidth'
    assert.equal(await page.evaluate(isWider), false, 'nothing hangs over the edge')
    await page.setViewportSize({ width: 1280, height: 900 })

    const chart = page.getByRole('img', { name: /^Requests per second/ })
    await chart.focus()
    await page.keyboard.press('Home')
    assert.match((await chart.getAttribute('aria-label')) ?? '', /at \d\d:\d\d:\d\d UTC: all/)
    await page.keyboard.press('Escape')
    assert.match((await chart.getAttribute('aria-label')) ?? '', /, now: all/)
  })

  it('shows a failing upstream, a refresh that fails and a refused reload with their causes, without a flaw in light and dark', async () => {
    const { cloakroom } = shop
    provider.control.refusedResources = [BILLING]
    const user = shop.browser()
    await user.signIn()
    assert.equal((await user.fetch('/api/billing/1')).status, 502)
    provider.control.refusedResources = []
    await cloakroom.reload({
      routes: [
        { path: '/api/dead', id: HOSTILE, upstream: DEAD, auth: 'anonymous', breaker: { failures: 1 } },
        { path: '/', id: 'spa', upstream: shop.orders.url, auth: 'anonymous' },
      ],
    })
    await user.fetch('/api/dead/x')
    await assert.rejects(cloakroom.reload({ routes: [{ path: `/${HOSTILE}`, upstream: DEAD }] }))
    await askAgain()
    await said('#problem-list', /upstream http:\/\/127\.0\.0\.1:9 it does not answer, its circuit is open/)
    await said('#problem-list', /the file was changed and refused/)
    await said('#routes', /down .*<img\/src=x\/onerror=alert\(1\)>/)
    await said('#reload-problems', /routes\[0\]\.path/)
    await said('#causes', /provider_rejected billing .*invalid_client|provider_rejected billing/)
    await said(
      '#refusals',
      /upstream_unreachable <img\/src=x\/onerror=alert\(1\)> upstream \S+ · connect ECONNREFUSED/,
    )
    await said('#resources', /billing .*(?:invalid_client|provider_rejected|configuration)/)
    await said('#charts', /open now http:\/\/127\.0\.0\.1:9/)
    assert.match(await page.title(), /^\(\d+\) Cloakroom console$/)
    assert.equal(await page.locator('img:not([src="console/mark.svg"])').count(), 0, 'a name is a text')
    assert.deepEqual(await flaws(page), [])
    for (const colorScheme of ['dark', 'light'] as const) {
      await page.emulateMedia({ colorScheme })
      assert.deepEqual(await flaws(page, 'color-contrast'), [], colorScheme)
    }
    assert.deepEqual(complaints, [])
  })

  it('leafs through many routes and finds some of them', async () => {
    const { cloakroom, orders } = shop
    const many = Array.from({ length: 1_000 }, (_, at) => ({
      path: `/r/${at}`,
      id: `route-${at}`,
      upstream: orders.url,
      auth: 'anonymous',
    }))
    await cloakroom.reload({ routes: many })
    await askAgain()
    await said('#route-range', /^1 to 25 of 1000$/)
    await page.getByRole('button', { name: 'Next' }).click()
    await said('#route-range', /^26 to 50 of 1000$/)
    await said('#routes', /route-25 /)
    await page.getByLabel('Filter').fill('ROUTE-77')
    await said('#route-range', /^1 to 11 of 11$/)
    await page.getByLabel('State').selectOption('trouble')
    await said('#routes', /No route matches the filter/)
  })

  it('says that what it shows is old when the replica does not answer any more', async () => {
    await page.route('**/api/status*', (route) => route.abort())
    await askAgain()
    await said('#stale', /does not answer .*What is shown is .* old/)
    await page.unroute('**/api/status*')
    await askAgain()
    await page.locator('#stale').waitFor({ state: 'hidden' })
  })
})
