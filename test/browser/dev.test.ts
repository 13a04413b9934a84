import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { after, before, describe, it } from 'node:test'
import type { AxeResults } from 'axe-core'
import type { Browser, Page } from 'playwright-core'
import { signedInAs } from '../../src/demo/dev/playwright.ts'
import { launchChromium, skipWithoutChromium } from '../kit/browsers/chromium.ts'
import { createDevProject, type DevProject, type RunningDev, startDev } from '../kit/dev-server.ts'

describe('cloakroom dev in a browser', { skip: skipWithoutChromium, timeout: 120_000 }, () => {
  let project: DevProject
  let dev: RunningDev
  let browser: Browser
  let page: Page
  let panel: Page
  const call = (path: string) =>
    page.evaluate<{ status: number; body: Record<string, unknown> }>(
      `fetch(${JSON.stringify(path)}, { headers: { 'x-csrf': '1' } }).then(async (answer) => ({ status: answer.status, body: await answer.json() }))`,
    )

  before(async () => {
    project = await createDevProject()
    dev = await startDev(project)
    browser = await launchChromium()
    page = await browser.newPage()
    panel = await browser.newPage()
  })
  after(async () => {
    await browser?.close()
    await dev?.server.close()
    await project?.close()
  })

  it('signs in by the fixture, through the real flow, with a cookie of this port', async () => {
    await dev.switches.signedInAs(page, 'ada', { returnUrl: '/deep/link?x=1' })
    assert.equal(page.url(), `${dev.server.publicUrl}/deep/link?x=1`)
    const { status, body } = await call('/api/orders')
    assert.deepEqual([status, body.sub, body.aud], [200, 'ada', 'api://orders'])
    const [cookie] = (await page.context().cookies(dev.server.publicUrl)).filter(
      ({ name }) => !name.includes('login'),
    )
    const { port } = new URL(dev.server.publicUrl)
    assert.deepEqual(
      [cookie?.name, cookie?.httpOnly, cookie?.sameSite],
      [`cloakroom-${port}`, true, 'Strict'],
    )
  })

  it('says what is wrong with a person that is not known, and where a server is missing', async () => {
    await assert.rejects(
      dev.switches.signedInAs(page, 'eve'),
      /person "eve" is not known: use one of ada, grace, alan/,
    )
    await assert.rejects(
      signedInAs(page, 'ada'),
      /cloakroom dev does not answer at http:\/\/127\.0\.0\.1:8081/,
    )
  })

  it('leads from 127.0.0.1 to the public address', async () => {
    const { port } = new URL(dev.server.publicUrl)
    await page.goto(`http://127.0.0.1:${port}/deep?x=1`)
    assert.equal(page.url(), `${dev.server.publicUrl}/deep?x=1`)
  })

  it('lets a person choose at the provider, and a step-up ask for the second factor', async () => {
    await page.context().clearCookies()
    await page.goto(`${dev.server.publicUrl}/bff/login?returnUrl=/`)
    await page.getByRole('button', { name: /Grace Hopper/ }).click()
    await page.waitForURL(`${dev.server.publicUrl}/`)
    await dev.switches.demandSecondFactor(true, '/api/orders')
    const refused = await call('/api/orders')
    assert.equal(refused.body.code, 'reauthentication_required')
    await page.goto(`${dev.server.publicUrl}${refused.body.login_url}&returnUrl=/`)
    await page.getByRole('button', { name: 'Yes, it is me' }).click()
    await page.waitForURL(`${dev.server.publicUrl}/`)
    assert.equal((await call('/api/orders')).status, 200)
    await dev.switches.reset()
  })

  it('shows sessions and a live log on the panel, and switches by keyboard', async () => {
    await panel.goto(dev.server.panelUrl)
    await panel.locator('#sessions').getByText('grace').waitFor()
    await call('/api/billing')
    await panel
      .getByRole('row', { name: /GET \/api\/billing 200 billing billing/ })
      .first()
      .waitFor()
    await panel
      .getByRole('row', { name: /refresh 200 https:\/\/billing\.example\.com grace/ })
      .first()
      .waitFor()
    const toggle = panel.getByRole('switch', { name: '/api/billing: Rejects our tokens' })
    await toggle.focus()
    await panel.keyboard.press('Space')
    await panel.getByRole('switch', { name: '/api/billing: Rejects our tokens', checked: true }).waitFor()
    assert.equal((await call('/api/billing')).status, 401)
    await panel.getByRole('button', { name: 'Grace Hopper has the role staff' }).click()
    await panel.getByText('grace has no longer staff in roles, from the next refresh on').first().waitFor()
    assert.deepEqual((await call('/api/orders')).body.roles, [])
    await panel.getByRole('button', { name: 'Expire', exact: true }).click()
    await panel.locator('#sessions').getByText('Nobody is signed in.').waitFor()
    assert.equal((await call('/api/orders')).body.code, 'session_required')
    await panel.getByRole('button', { name: 'Put every switch back' }).click()
    await panel.getByRole('switch', { name: '/api/billing: Rejects our tokens', checked: false }).waitFor()
  })

  it('becomes somebody else from the panel, in a tab of the application', async () => {
    const opened = page.context().browser()!.contexts().at(-1)!.waitForEvent('page')
    await panel.getByRole('button', { name: 'Sign in as Alan Turing' }).click()
    const tab = await opened
    await tab.waitForURL(`${dev.server.publicUrl}/`)
    const user = await tab.evaluate<{ sub: string }>(
      `fetch('/bff/user', { headers: { 'x-csrf': '1' } }).then((answer) => answer.json())`,
    )
    assert.equal(user.sub, 'alan')
    await tab.close()
  })

  for (const [colorScheme, width] of [
    ['light', 1280],
    ['dark', 1280],
    ['light', 390],
  ] as const)
    it(`has a panel without a fault of axe-core, in ${colorScheme} and ${width} pixels wide`, async () => {
      await panel.setViewportSize({ width, height: 900 })
      await panel.emulateMedia({ colorScheme })
      await panel.evaluate(
        readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'),
      )
      const { violations } = await panel.evaluate<AxeResults>('axe.run()')
      assert.deepEqual(
        violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`),
        [],
      )
      const [inner, scroll] = await panel.evaluate<number[]>(
        '[innerWidth, document.documentElement.scrollWidth]',
      )
      assert.ok(scroll! <= inner!, `scrolls sideways: ${scroll} > ${inner}`)
    })

  it('waits on a page for a development server that is not up, and goes on by itself', async () => {
    await project.app.close()
    await page.goto(`${dev.server.publicUrl}/later`)
    await page.getByRole('heading', { name: 'Waiting for the development server' }).waitFor()
    await project.reopenApp()
    await page.getByRole('heading', { name: 'app /later' }).waitFor()
  })

  it('a page of another port, the application included, can neither change a switch nor read what the panel reads', async () => {
    for (const origin of [project.app.origin, dev.server.publicUrl]) {
      await page.goto(origin)
      const tried = await page.evaluate<string[]>(ATTACKS(dev.server.panelUrl))
      assert.deepEqual(tried, ['failed', 'failed', 'failed', 'failed'])
    }
    const state = await (await fetch(`${dev.server.panelUrl}/api/state`)).json()
    assert.equal((state as { isProviderDown: boolean }).isProviderDown, false)
  })
})

/** A POST with the header, one without, a read, and an event stream: what comes of each. */
const ATTACKS = (panelUrl: string) => `Promise.all([
  fetch('${panelUrl}/api/switches/provider-down', { method: 'POST', headers: { 'x-csrf': '1' }, body: '{"on":true}' }).then(() => 'read', () => 'failed'),
  fetch('${panelUrl}/api/switches/provider-down', { method: 'POST', mode: 'no-cors', body: '{"on":true}' }).then((answer) => answer.type, () => 'failed'),
  fetch('${panelUrl}/api/state').then(() => 'read', () => 'failed'),
  new Promise((resolve) => {
    const source = new EventSource('${panelUrl}/api/log')
    source.onmessage = () => resolve('read')
    source.onerror = () => { source.close(); resolve('failed') }
  }),
])`
