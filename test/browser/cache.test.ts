import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setUp } from '../kit/attack/sign-in.ts'
import { launchChromium, skipWithoutChromium } from '../kit/browsers/chromium.ts'
import { call } from '../kit/browsers/https-site.ts'

/** What an API may say that lets a browser keep its answer. */
const KEPT: Record<string, Record<string, string>> = {
  'is fresh for ten minutes': { 'cache-control': 'private, max-age=600' },
  'is fresh by its age alone': { 'last-modified': 'Sat, 21 Nov 2020 10:00:00 GMT' },
  'varies by what the API sees': { 'cache-control': 'private, max-age=600', vary: 'Authorization' },
}

test('the cache of a browser shows nothing of one user to the next, whatever the API says', {
  skip: skipWithoutChromium,
}, async (t) => {
  const { api, cloakroom, provider } = await setUp(t)
  const cookies: Record<string, { name: string; value: string; url: string }> = {}
  for (const user of ['alice', 'bob']) {
    provider.control.user = user
    const signedIn = cloakroom.browser()
    await signedIn.signIn({ returnUrl: '/' })
    const [name = '', value = ''] = signedIn.cookieHeader().split(/=(.*)/s)
    cookies[user] = { name, value, url: cloakroom.publicUrl }
  }
  const chromium = await launchChromium()
  t.after(() => chromium.close())
  for (const [n, [kind, headers]] of Object.entries(KEPT).entries()) {
    await t.test(`an answer that ${kind}`, async () => {
      const context = await chromium.newContext()
      const page = await context.newPage()
      await page.goto(`${cloakroom.publicUrl}/page`)
      // The API of the tests says otherwise by itself.
      api.answer.headers = { pragma: '', 'cache-control': '', ...headers }
      const whose = async () => {
        const { status, body } = await call(page, `/api/orders/${n}`)
        return status === 200 ? JSON.parse(body).sub : status
      }
      await context.addCookies([cookies.alice!])
      assert.equal(await whose(), 'alice')
      const reached = api.requests.length
      assert.equal(await whose(), 'alice')
      assert.equal(api.requests.length, reached, 'her own answer is kept')
      // Without a sign-out, which clears the cache.
      await context.addCookies([cookies.bob!])
      assert.equal(await whose(), 'bob')
      await context.clearCookies()
      assert.equal(await whose(), 401)
      await context.close()
    })
  }
})
