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
  async function openTabs(t: TestContext, count: number, options = '') {
    const { context, page } = await signedIn(site)
    t.after(() => context.close())
    const tabs = [page]
    while (tabs.length < count) tabs.push(await context.newPage())
    for (const tab of tabs) await load(tab, options)
    const navigations: string[] = []
    for (const tab of tabs) tab.on('framenavigated', (frame) => navigations.push(frame.url()))
    return { context, tabs, navigations }
  }

  async function load(tab: Page, options = ''): Promise<void> {
    await tab.goto(`${APP}/home`)
    await tab.evaluate(`import('/bff/client.js').then(({ createCloakroom }) => {
      window.questions = 0
      window.app = createCloakroom({ onSignInNeeded: () => { window.questions += 1 }, ${options} })
      return window.app.refresh()
    })`)
  }

  const statusIn = (tab: Page) => tab.evaluate('app.getSnapshot().status')
  const postsTo = (path: string) =>
    site.api.requests.filter((one) => one.method === 'POST' && one.path === path)

  /** Begins to sign in by a popup of this tab. `outcome` of the tab says how it ended. */
  async function openPopup(context: BrowserContext, tab: Page, options = ''): Promise<Page> {
    const opening = context.waitForEvent('page')
    await tab.evaluate(`window.outcome = undefined
      void app.signIn({ mode: 'popup', ${options} }).then(() => { window.outcome = 'signed in' }, ({ reason }) => {
        window.outcome = reason })`)
    return opening
  }

  /** Signs in by a popup of this tab, at the end of which the popup is gone. `press`: the buttons of the provider. */
  async function signInByPopup(
    context: BrowserContext,
    tab: Page,
    { press = [/Ada/], options = '' }: { press?: RegExp[]; options?: string } = {},
  ): Promise<void> {
    const popup = await openPopup(context, tab, options)
    const closing = popup.waitForEvent('close')
    for (const name of press) await popup.getByRole('button', { name }).click()
    await closing
    await tab.waitForFunction("window.outcome === 'signed in'")
  }

  /** Sends a form of this tab that waits for a sign-in; `sent` becomes its status. */
  const submit = (tab: Page, path: string) =>
    tab.evaluate(`window.sent = undefined
      void app.fetch('${path}', { method: 'POST', body: 'kept input', whenSignedOut: 'wait' })
        .then(({ status }) => { window.sent = status }, ({ code }) => { window.sent = code })`)

  it('has three polling tabs with one 401 each and no navigation, and all go on after one sign-in', async (t) => {
    const { context, tabs, navigations } = await openTabs(t, 3)
    const refusals: string[] = []
    context.on('response', (answer) => {
      if (answer.status() === 401) refusals.push(new URL(answer.url()).pathname)
    })
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

  it('sends a form that met an expired session with its input, also after a first popup was closed', async (t) => {
    const { context, tabs, navigations } = await openTabs(t, 1)
    const [tab] = tabs as [Page]
    const before = postsTo('/api/orders').length
    await context.clearCookies()
    await submit(tab, '/api/orders')
    await tab.waitForFunction('questions === 1')
    // Playwright says of every page that it has the focus.
    await tab.evaluate('document.hasFocus = () => false')
    const first = await openPopup(context, tab)
    await first.getByRole('button', { name: /Ada/ }).waitFor()
    await tab.evaluate("dispatchEvent(new Event('focus'))")
    await tab.waitForTimeout(1_200)
    assert.equal(await tab.evaluate('window.outcome'), undefined)
    await first.close()
    await tab.evaluate('document.hasFocus = () => true')
    await tab.waitForFunction("window.outcome === 'popup_closed'")
    site.api.answer.status = 201
    await signInByPopup(context, tab)
    await tab.waitForFunction('window.sent')
    site.api.answer.status = 200
    assert.equal(await tab.evaluate('sent'), 201)
    assert.equal(postsTo('/api/orders').length, before + 1)
    assert.deepEqual([await tab.evaluate('questions'), navigations.length], [1, 0])
  })

  it('steps up for a form, and wakes one that waits in another tab', async (t) => {
    const { context, tabs, navigations } = await openTabs(t, 2)
    const [one, other] = tabs as [Page, Page]
    for (const tab of tabs) await submit(tab, '/api/payments')
    for (const tab of tabs) await tab.waitForFunction('questions === 1')
    assert.equal(postsTo('/api/payments').length, 0)
    await signInByPopup(context, one, { press: [/it is me/] })
    for (const tab of tabs) await tab.waitForFunction('window.sent === 200')
    assert.equal(postsTo('/api/payments').length, 2)
    assert.deepEqual([await other.evaluate('questions'), navigations.length], [1, 0])
  })

  it('tells the other tabs of a sign-out, and brings stream and WebSocket back, the stream after its last event', async (t) => {
    const { context, tabs } = await openTabs(t, 2)
    const [one, other] = tabs as [Page, Page]
    await one.evaluate(`window.states = []
      window.events = []
      app.eventSource('/api/orders/events', { onMessage: (event) => events.push(event),
        onState: (state) => states.push(state) })
      window.socketStates = []
      window.echoes = []
      window.socket = app.webSocket('/api/live', { onMessage: (data) => echoes.push(data),
        onState: (state) => { socketStates.push(state); if (state === 'open') setTimeout(() => socket.send('hello')) } })`)
    await one.waitForFunction('events.length === 1 && echoes.length === 1')
    await one.evaluate("app.on('signed-out', () => { window.knewAt = Date.now() })")
    const began = Number(
      await other.evaluate("(() => { void app.signOut({ returnTo: '/home' }); return Date.now() })()"),
    )
    await one.waitForFunction('window.knewAt')
    const ms = Number(await one.evaluate('knewAt')) - began
    t.diagnostic(`the other tab knew ${ms} ms after the call`)
    assert.ok(ms < 1_000)
    await one.waitForFunction("states.at(-1) === 'signed-out' && socketStates.at(-1) === 'signed-out'")
    await other.waitForURL(`${APP}/home`)
    await signInByPopup(context, one)
    await one.waitForFunction('events.length === 2 && echoes.length === 2')
    const streams = site.api.requests.filter(({ path }) => path === '/api/orders/events').slice(-2)
    assert.deepEqual(
      streams.map(({ headers }) => headers['last-event-id']),
      [undefined, '7'],
    )
  })

  it('uploads 20 MB that began signed out after the sign-in, with progress', async (t) => {
    const { context, tabs } = await openTabs(t, 1)
    const [tab] = tabs as [Page]
    await context.clearCookies()
    await tab.evaluate(`window.progress = []
      void app.upload('/api/orders', new Blob([new Uint8Array(20e6)]), { whenSignedOut: 'wait',
        onProgress: ({ loaded, total }) => progress.push(loaded / total) })
        .then(async (answer) => { window.sent = [answer.status, (await answer.json()).bodyBytes] })`)
    await tab.waitForFunction('questions === 1')
    assert.deepEqual(await tab.evaluate('progress'), [])
    await signInByPopup(context, tab)
    await tab.waitForFunction('window.sent')
    assert.deepEqual(await tab.evaluate('sent'), [200, 20e6])
    assert.equal(await tab.evaluate('progress.at(-1)'), 1)
  })

  it("warns before the end, and takes that back after another tab's activity", async (t) => {
    await site.endIdleAfter('20s')
    t.after(() => site.endIdleAfter('30m'))
    const { tabs } = await openTabs(t, 2, 'warnBefore: 17')
    const [one, other] = tabs as [Page, Page]
    await one.evaluate(`window.warnings = 0
      app.on('expiring', () => { window.warnings += 1 })`)
    await one.waitForFunction('window.warnings === 1 && app.getSnapshot().expiring')
    await other.evaluate("app.fetch('/api/orders')")
    await one.waitForFunction('!app.getSnapshot().expiring')
    assert.equal(await statusIn(one), 'signed-in')
  })

  it("tells of another user in another tab, and sends nothing of the first as the second's", async (t) => {
    const { context, tabs } = await openTabs(t, 2)
    const [one, other] = tabs as [Page, Page]
    await one.evaluate("app.on('user-changed', ({ user }) => { window.changedTo = user.sub })")
    await submit(one, '/api/payments')
    await one.waitForFunction('questions === 1')
    await signInByPopup(context, other, { press: [/Grace/], options: "prompt: 'login'" })
    await one.waitForFunction("window.changedTo === 'grace'")
    await one.waitForFunction('window.sent')
    assert.equal(await one.evaluate('sent'), 'reauthentication_required')
    assert.equal(await one.evaluate('app.getSnapshot().user.sub'), 'grace')
  })

  it('tells what became of a sign-in without the user, in a popup and by redirect', async (t) => {
    const { context, tabs } = await openTabs(t, 1)
    const [tab] = tabs as [Page]
    // The provider's own session goes on: nobody is asked.
    await context.clearCookies({ domain: new URL(APP).hostname })
    await signInByPopup(context, tab, { press: [], options: "prompt: 'none'" })
    await context.clearCookies()
    const popup = await openPopup(context, tab, "prompt: 'none'")
    await Promise.all([
      popup.waitForEvent('close'),
      tab.waitForFunction("window.outcome === 'login_required'"),
    ])
    await tab.evaluate("void app.signIn({ prompt: 'none', returnTo: '/home?a=1#part' })")
    await tab.waitForURL(`${APP}/home?a=1&login_error=login_required#part`)
  })
})
