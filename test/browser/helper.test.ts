import assert from 'node:assert/strict'
import { after, before, describe, it, type TestContext } from 'node:test'
import type { BrowserContext, Page } from 'playwright-core'
import { skipWithoutChromium } from '../kit/browsers/chromium.ts'
import { APP, type Site, signedIn, startSite } from '../kit/browsers/https-site.ts'

describe('the browser helper in Chromium', { skip: skipWithoutChromium, timeout: 120_000 }, () => {
  let site: Site

  before(async () => {
    site = await startSite()
  })
  after(() => site?.close())

  /** Signed-in tabs of one browser, each with the helper as `app`. */
  async function openTabs(t: TestContext, count: number) {
    const { context, page } = await signedIn(site)
    t.after(() => context.close())
    const tabs = [page]
    while (tabs.length < count) tabs.push(await context.newPage())
    for (const tab of tabs) await load(tab)
    return { context, tabs }
  }

  async function load(tab: Page): Promise<void> {
    await tab.goto(`${APP}/home`)
    await tab.evaluate(`import('/bff/client.js').then(({ createCloakroom }) => {
      window.questions = 0
      window.app = createCloakroom({ onSignInNeeded: () => { window.questions += 1 } })
      return window.app.refresh()
    })`)
  }

  const statusIn = (tab: Page) => tab.evaluate('app.getSnapshot().status')

  /** Signs in by a popup of this tab, at the end of which the popup is gone. */
  async function signInByPopup(context: BrowserContext, tab: Page, isAsked = true): Promise<void> {
    const opening = context.waitForEvent('page')
    await tab.evaluate(`void app.signIn({ mode: 'popup' }).then(() => { window.outcome = 'signed in' }, ({ reason }) => {
      window.outcome = reason })`)
    const popup = await opening
    const closing = popup.waitForEvent('close')
    if (isAsked) await popup.getByRole('button', { name: /Ada/ }).click()
    await closing
    await tab.waitForFunction("window.outcome === 'signed in'")
  }

  it('has three polling tabs with one 401 each and no navigation, and all go on after one sign-in', async (t) => {
    const { context, tabs } = await openTabs(t, 3)
    const [refusals, navigations] = [[] as string[], [] as string[]]
    context.on('response', (answer) => {
      if (answer.status() === 401) refusals.push(new URL(answer.url()).pathname)
    })
    for (const tab of tabs) tab.on('framenavigated', (frame) => navigations.push(frame.url()))
    await context.clearCookies()
    for (const tab of tabs)
      await tab.evaluate(`window.answers = []
        const poll = () => app.fetch('/api/orders', { background: true })
          .then(({ status }) => answers.push(status), ({ code }) => answers.push(code))
          .then(() => setTimeout(poll, 50))
        void poll()`)
    for (const tab of tabs)
      await tab.waitForFunction("answers.filter((one) => one === 'session_required').length > 4")
    assert.deepEqual(refusals, ['/api/orders', '/api/orders', '/api/orders'])
    await signInByPopup(context, tabs[0]!)
    for (const tab of tabs) await tab.waitForFunction('answers.at(-1) === 200')
    assert.deepEqual([refusals.length, navigations.length], [3, 0])
    assert.deepEqual(await Promise.all(tabs.map((tab) => tab.evaluate('questions'))), [0, 0, 0])
  })

  it('sends a form that met an expired session after the second popup, with its input', async (t) => {
    const { context, tabs } = await openTabs(t, 1)
    const [tab] = tabs as [Page]
    await context.clearCookies()
    await tab.evaluate(`void app.fetch('/api/orders', { method: 'POST', body: 'kept input', whenSignedOut: 'wait' })
      .then((answer) => answer.text().then((text) => { window.sent = [answer.status, text] }))`)
    await tab.waitForFunction('questions === 1')
    const opening = context.waitForEvent('page')
    await tab.evaluate(
      "void app.signIn({ mode: 'popup' }).catch(({ reason }) => { window.outcome = reason })",
    )
    await (await opening).close()
    await tab.evaluate("dispatchEvent(new Event('focus'))")
    await tab.waitForFunction("window.outcome === 'popup_closed'")
    await signInByPopup(context, tab)
    await tab.waitForFunction('window.sent')
    assert.equal(await tab.evaluate('sent[0]'), 200)
    const posts = site.api.requests.filter(({ method }) => method === 'POST')
    assert.equal(posts.length, 1)
    assert.equal(await tab.evaluate('questions'), 1)
  })

  it('tells the other tabs of a sign-out, and brings a stream back with its last event id', async (t) => {
    const { context, tabs } = await openTabs(t, 2)
    const [one, other] = tabs as [Page, Page]
    await one.evaluate(`window.states = []
      window.events = []
      app.eventSource('/api/orders/events', { onMessage: (event) => events.push(event),
        onState: (state) => states.push(state) })`)
    await one.waitForFunction('events.length === 1')
    const seen = other.evaluate(`new Promise((resolve) => app.on('signed-out', () => resolve(Date.now())))`)
    const began = await one.evaluate(`(() => {
      const at = Date.now()
      fetch('/bff/logout', { method: 'POST', headers: { 'x-csrf': '1' } }).then(() => app.refresh())
      return at
    })()`)
    const ms = Number(await seen) - Number(began)
    t.diagnostic(`the other tab knew after ${ms} ms`)
    await one.waitForFunction("states.at(-1) === 'signed-out'")
    // The provider's own session goes on.
    await signInByPopup(context, other, false)
    assert.equal(await statusIn(other), 'signed-in')
    await one.waitForFunction('events.length === 2')
    const streams = site.api.requests.filter(({ path }) => path === '/api/orders/events')
    assert.deepEqual(
      streams.map(({ headers }) => headers['last-event-id']),
      [undefined, '7'],
    )
  })
})
