import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core'
import { type Demo, startDemo } from '../../src/cli/demo.ts'
import type { TokenRequest } from '../../src/demo/provider/identity-provider-options.ts'
import { createLogger } from '../../src/log.ts'
import { flaws } from '../kit/browsers/axe.ts'
import { launchChromium, skipWithoutChromium } from '../kit/browsers/chromium.ts'
import { freePort } from '../kit/ports.ts'

/** Short enough to see tokens renewed within a test. */
const ACCESS_TOKEN_TTL_SECONDS = 4

describe('the demo in a browser', { skip: skipWithoutChromium, timeout: 300_000 }, () => {
  let demo: Demo
  let browser: Browser
  let context: BrowserContext
  let page: Page
  const tokenRequests: TokenRequest[] = []
  /** Everything that came to the browser from the application's origin. */
  const arrived: Promise<string>[] = []
  const consoleErrors: string[] = []

  before(async () => {
    demo = await startDemo({
      port: await freePort(),
      accessTokenTtlSeconds: ACCESS_TOKEN_TTL_SECONDS,
      log: createLogger({ level: 'silent' }),
      onTokenRequest: (request) => tokenRequests.push(request),
    })
    browser = await launchChromium()
    context = await browser.newContext()
    page = await context.newPage()
    page.setDefaultTimeout(30_000)
    page.on('console', (message) => {
      if (message.type() === 'error') consoleErrors.push(message.text())
    })
    page.on('pageerror', (error) => consoleErrors.push(error.message))
    page.on('response', (response) => {
      if (!response.url().startsWith(demo.publicUrl)) return
      const body = response.text().catch(() => '')
      arrived.push(
        Promise.all([response.allHeaders(), body]).then(([headers, text]) => JSON.stringify(headers) + text),
      )
    })
  })

  async function signIn(tab: Page, person: RegExp): Promise<void> {
    await tab.goto(demo.publicUrl)
    await tab.getByRole('link', { name: 'Sign in' }).click()
    await tab.getByRole('button', { name: person }).click()
    await tab.waitForURL(`${demo.publicUrl}/`)
    await tab.locator('[data-api=billing] [data-kind=ok]').waitFor()
  }

  /** What the page wrote about the newest call of this kind. */
  const entry = (call: string) => page.locator('#entries li').filter({ hasText: call }).first()

  after(async () => {
    await browser?.close()
    await demo?.close()
  })

  it('shows who is not signed in the way to the identity provider, and brings Ada back', async () => {
    await signIn(page, /Ada Lovelace/)
    await page.getByRole('heading', { name: 'Ada Lovelace' }).waitFor()
    assert.match((await page.locator('[data-session-left]').textContent()) ?? '', /^(29|30):\d\d$/)
  })

  it('calls two APIs, each of which got a token of its own audience', async () => {
    for (const api of ['orders', 'billing']) {
      const card = page.locator(`[data-api=${api}]`)
      await card.locator('[data-status][data-kind=ok]').waitFor()
      assert.equal(await card.locator('[data-aud]').textContent(), `https://${api}.example.com`)
      assert.equal(await card.locator('[data-sub]').textContent(), 'ada')
    }
  })

  it('lets scripts see no cookie and no stored token', async () => {
    const seen = await page.evaluate(
      '({ cookie: document.cookie, stored: localStorage.length + sessionStorage.length })',
    )
    assert.deepEqual(seen, { cookie: '', stored: 0 })
    assert.equal(await page.locator('#sees dd').first().textContent(), '""')
    const cookie = (await context.cookies(demo.publicUrl)).find(({ name }) => name.includes('cloakroom'))
    assert.equal(cookie?.httpOnly, true)
    assert.equal(cookie?.sameSite, 'Strict')
  })

  it('renews both tokens silently, while the page stays where it is', async () => {
    for (const api of ['orders', 'billing']) {
      const renewals = page.locator(`[data-api=${api}] [data-renewals]`)
      await renewals
        .getByText(/^renewed at \d/)
        .first()
        .waitFor({ timeout: 30_000 })
    }
    const refreshes = tokenRequests.filter(({ grantType }) => grantType === 'refresh_token')
    assert.ok(refreshes.length >= 2)
    assert.ok(refreshes.every(({ status }) => status === 200))
    assert.equal(page.url(), `${demo.publicUrl}/`)
  })

  it('stays signed in over a reload', async () => {
    await page.reload()
    await page.getByRole('heading', { name: 'Ada Lovelace' }).waitFor()
  })

  it('reads the report with the role, and writes down which API got which token', async () => {
    await page.getByRole('button', { name: 'Read report' }).click()
    await page.locator('#report-result').getByText('3 invoices').waitFor()
    await entry('GET /api/billing/report').getByText('token for https://billing.example.com').waitFor()
  })

  it('asks for a second factor before it pays, and sends the payment when it has it', async () => {
    await page.getByRole('button', { name: 'Pay', exact: true }).press('Enter')
    const dialog = page.getByRole('dialog', { name: 'One more step' })
    await entry('POST /api/billing/payments').getByText('"code": "reauthentication_required"').waitFor()
    assert.deepEqual(await flaws(page), [])
    await answerInPopup(page, dialog, async (popup) => {
      await popup.getByRole('heading', { name: 'Is it you, Ada Lovelace?' }).waitFor()
      assert.deepEqual(await flaws(popup), [])
      await popup.getByRole('button', { name: 'Yes, it is me' }).click()
    })
    await page.locator('#payment-result').getByText('INV-2216 is paid, with a second factor.').waitFor()
    await focused(page, 'Pay')
    await page.locator('#facts').getByText('acr mfa').waitFor()
    await page.getByRole('row', { name: 'INV-2216 €118.00 paid' }).waitFor()
  })

  it('keeps what was typed over the end of the session, and sends it after the sign-in', async () => {
    await page.getByRole('textbox', { name: 'Item' }).fill('Fur hat')
    await page.getByRole('button', { name: 'End this session' }).click()
    await page.getByRole('alert').getByText('Your session has ended.').waitFor()
    assert.deepEqual(await flaws(page), [])
    await page.getByRole('button', { name: 'Order', exact: true }).click()
    const dialog = page.getByRole('dialog', { name: 'Your session has ended' })
    await focused(dialog, 'Continue')
    await page.keyboard.press('Escape')
    await page.locator('#order-result').getByText('Not sent: you are signed out.').waitFor()
    await page.getByRole('button', { name: 'Order', exact: true }).click()
    // The identity provider still knows Ada, and asks nothing.
    await answerInPopup(page, dialog, () => Promise.resolve())
    await page
      .locator('#order-result')
      .getByText(/^Order A-\d+ is placed\.$/)
      .waitFor()
    await page.getByRole('row', { name: /Fur hat placed/ }).waitFor()
    await page.getByRole('alert').waitFor({ state: 'hidden' })
  })

  it('follows the event stream', async () => {
    await page.getByRole('button', { name: 'Follow' }).click()
    await page.locator('#events li').first().waitFor()
    await entry('GET /api/orders/events').getByText('stream from now on').waitFor()
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.locator('#stream-result').getByText('Stopped.').waitFor()
  })

  it('hands in a file and gets it back, byte for byte', async () => {
    const buffer = randomBytes(300_000)
    const name = 'Rechnung „März“.pdf'
    await page.locator('#file').setInputFiles({ name, mimeType: 'application/pdf', buffer })
    await page.getByRole('button', { name: 'Upload' }).click()
    await page.locator('#upload-result').getByText(`${name} is kept.`).waitFor()
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('link', { name }).click(),
    ])
    assert.equal(download.suggestedFilename(), name)
    assert.deepEqual(readFileSync(await download.path()), buffer)
    await entry('POST /api/files').getByText('token for https://orders.example.com').waitFor()
  })

  it('refuses who lacks the role as an RFC 9457 problem, ends another session of the user, and has no flaw that axe finds', async () => {
    const other = await browser.newContext()
    const grace = await other.newPage()
    await signIn(grace, /Grace Hopper/)
    await page.goto(`${demo.publicUrl}/bff/login?returnUrl=/&prompt=login`)
    assert.deepEqual(await flaws(page), [])
    await page.getByRole('button', { name: /Grace Hopper/ }).click()
    await page.getByRole('heading', { name: 'Grace Hopper' }).waitFor()
    await page.getByRole('button', { name: 'Read report' }).click()
    await page.locator('#report-result').getByText('Refused').waitFor()
    const problem = await entry('GET /api/billing/report').locator('pre').textContent()
    const { status, code, reason } = JSON.parse(problem ?? '')
    assert.deepEqual({ status, code, reason }, { status: 403, code: 'access_denied', reason: 'claims' })
    assert.deepEqual(await flaws(page), [])
    await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' })
    assert.deepEqual(await flaws(page, 'color-contrast'), [])
    await page.emulateMedia({ colorScheme: null, reducedMotion: null })
    await page.getByRole('button', { name: /^End Chrome on/ }).click()
    await page.locator('#sessions-result').getByText('That session has ended.').waitFor()
    await grace.getByRole('button', { name: 'Call both APIs' }).click()
    await grace.getByRole('dialog', { name: 'Your session has ended' }).waitFor()
    await other.close()
  })

  it('fits a phone', async () => {
    await page.setViewportSize({ width: 390, height: 844 })
    assert.equal(await page.evaluate('document.documentElement.scrollWidth'), 390)
    assert.deepEqual(await flaws(page), [])
    await page.setViewportSize({ width: 1280, height: 720 })
  })

  it('signs out here and at the identity provider', async () => {
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('link', { name: 'Sign in' }).waitFor()
    assert.ok(page.url().startsWith(`${demo.publicUrl}/`))
    assert.deepEqual(await flaws(page), [])
    await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' })
    assert.deepEqual(await flaws(page, 'color-contrast'), [])
    await page.emulateMedia({ colorScheme: null, reducedMotion: null })
    await page.getByRole('link', { name: 'Sign in' }).click()
    await page.getByRole('button', { name: /Grace Hopper/ }).waitFor()
  })

  for (const colorScheme of ['light', 'dark'] as const)
    it(`hints at a name of one's own so that it can be read, in ${colorScheme}`, async () => {
      await page.emulateMedia({ colorScheme })
      const [hint, card] = await page.evaluate<number[][]>(SEEN_COLORS)
      assert.ok(contrast(hint!, card!) >= 4.5, `contrast ${contrast(hint!, card!).toFixed(2)}`)
      await page.emulateMedia({ colorScheme: null })
    })

  it('comes back without a session when the person cancels', async () => {
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.waitForURL((url) => url.href.startsWith(demo.publicUrl))
    await page.goto(demo.publicUrl)
    await page.getByRole('link', { name: 'Sign in' }).waitFor()
  })

  it('never sent a token to the browser, and broke no policy of its own', async () => {
    const everything = (await Promise.all(arrived)).join('\n')
    const tokens = tokenRequests.flatMap(({ answer }) => [answer.access_token, answer.refresh_token])
    assert.ok(tokens.length >= 6 && everything.includes('Ada Lovelace'))
    for (const token of tokens) assert.ok(!everything.includes(String(token)), 'a token reached the browser')
    // The browser itself writes a line for every answer of 400 and above.
    assert.deepEqual(
      consoleErrors.filter((text) => !text.startsWith('Failed to load resource')),
      [],
    )
  })
})

/** Resolves when the button of this name has the focus, which may wait for an answer. */
const focused = (within: Page | Locator, name: string) =>
  within.getByRole('button', { name, exact: true }).and(within.locator(':focus')).waitFor()

/** Signs in through the window that the dialog opens, and waits for both to be closed. */
async function answerInPopup(
  page: Page,
  dialog: Locator,
  answer: (popup: Page) => Promise<void>,
): Promise<void> {
  const [popup] = await Promise.all([
    page.waitForEvent('popup'),
    dialog.getByRole('button', { name: 'Continue' }).click(),
  ])
  await answer(popup)
  await dialog.waitFor({ state: 'hidden' })
}

/** Red, green and blue of the name field's placeholder and of the card behind it, as a canvas would paint them. */
const SEEN_COLORS = `(() => {
  const context = document.createElement('canvas').getContext('2d')
  const paint = (...colors) => {
    for (const color of colors) {
      context.fillStyle = color
      context.fillRect(0, 0, 1, 1)
    }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
  }
  const hint = getComputedStyle(document.querySelector('#name'), '::placeholder')
  const card = getComputedStyle(document.querySelector('main')).backgroundColor
  return [paint(card, hint.color), paint(card)]
})()`

/** WCAG 2.2, contrast ratio. */
function contrast(a: number[], b: number[]): number {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number]
  return (light + 0.05) / (dark + 0.05)
}

function luminance(rgb: number[]): number {
  const [red = 0, green = 0, blue = 0] = rgb.map((value) => {
    const part = value / 255
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}
