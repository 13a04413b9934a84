import type { BrowserContext, Page, Browser as RealBrowser } from 'playwright-core'
import type { Browser, Landing } from '../kit/browsers/browser.ts'
import { launchChromium } from '../kit/browsers/chromium.ts'
import { APP } from './provider.ts'

/** Goes through pages that need scripts, and hands the browser over at both ends. */
export type ScriptedPages = {
  /** Opens the page where the scripted browser is, lets `act` do what a person would, and follows it back to the application. */
  pass(browser: Browser, from: Landing, act: (page: Page) => Promise<void>): Promise<Landing>
  /** Opens the page where the scripted browser is, lets `act` do what a person would, and gives what the application was asked for in frames. */
  frames(browser: Browser, from: Landing, act: (page: Page) => Promise<void>): Promise<readonly string[]>
  close(): Promise<void>
}

const PASS_MS = 45_000

/** A real Chromium for a provider's own pages; everything else stays with the scripted browser, which records it. */
export async function startScriptedPages(): Promise<ScriptedPages> {
  const chromium: RealBrowser = await launchChromium()
  return {
    async frames(browser, from, act) {
      const context = await withCookies(chromium, browser, from)
      try {
        const page = await context.newPage()
        const asked: string[] = []
        await page.route(`${APP}/**`, (route) => {
          asked.push(route.request().url())
          return route.fulfill({ status: 200, contentType: 'text/html', body: '' })
        })
        await page.goto(from.url.href)
        await act(page)
        await page.waitForLoadState('networkidle')
        return asked
      } finally {
        await context.close()
      }
    },
    async pass(browser, from, act) {
      const context = await withCookies(chromium, browser, from)
      try {
        const page = await context.newPage()
        // The application's name leads nowhere: whoever is sent there is back, and what stands in a frame is not.
        const back = new Promise<string>((resolve, reject) => {
          setTimeout(() => reject(new Error(`no way back within ${PASS_MS} ms`)), PASS_MS).unref()
          void page.route(`${APP}/**`, (route) => {
            const request = route.request()
            if (request.frame() === page.mainFrame()) resolve(request.url())
            return route.fulfill({ status: 200, contentType: 'text/html', body: 'back' })
          })
        })
        back.catch(() => undefined)
        await page.goto(from.url.href)
        await act(page).catch(async (error) => {
          throw new Error(`${String(error).split('\n')[0]} on: ${await page.textContent('body')}`)
        })
        const url = await back
        const cookies = await context.cookies(from.url.origin)
        browser.jar.store(
          from.url,
          cookies.map(({ name, value }) => `${name}=${value}; Path=/; HttpOnly`),
        )
        return await browser.navigate(url, { from: from.url.origin })
      } finally {
        await context.close()
      }
    },
    close: () => chromium.close(),
  }
}

async function withCookies(
  chromium: RealBrowser,
  browser: Browser,
  { url }: Landing,
): Promise<BrowserContext> {
  const context = await chromium.newContext()
  context.setDefaultTimeout(PASS_MS)
  await context.addCookies(
    browser.jar.held
      .filter(({ host }) => host === url.host)
      .map(({ name, value, httpOnly }) => ({ name, value, httpOnly, url: url.origin })),
  )
  return context
}
