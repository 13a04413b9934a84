import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { callbackOf, setUp } from '../kit/attack/sign-in.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { isReady } from '../kit/replica.ts'
import { steadyNow } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const isSessionCookie = ({ name }: { name: string }) => !name.includes('-login-')
const sessionCookies = (setCookie: string[] | undefined) =>
  (setCookie ?? []).filter((cookie) => !cookie.includes('-login-'))

async function setUpWithRedis(t: TestContext, cookie: ConfigData = {}) {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()], cookie }
  const setup = await setUp(t, { config: { session } })
  return { ...setup, redis }
}

describe('a sign-in that fails after the code was redeemed', { skip: skipWithoutRedis() }, () => {
  for (const sameSite of ['strict', 'lax']) {
    test(`takes neither the session nor the cookie that were there before (sameSite: ${sameSite})`, async (t) => {
      const setup = await setUpWithRedis(t, { sameSite })
      const { browser, redis, provider } = setup
      await browser.signIn()
      const before = browser.cookies.filter(isSessionCookie).map(({ value }) => value)
      const callback = await callbackOf(setup)
      // Redis takes no more writes from the moment that the code is redeemed.
      provider.control.intercept = async ({ path }) => {
        if (path === '/token') await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
        return false
      }
      const failed = await browser.navigate(callback.href, { from: provider.origin })
      assert.equal(failed.status, 503)
      assert.deepEqual(sessionCookies(failed.headers['set-cookie']), [])
      await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
      provider.control.intercept = undefined
      assert.deepEqual(
        browser.cookies.filter(isSessionCookie).map(({ value }) => value),
        before,
      )
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      assert.equal((await browser.fetch('/api/orders')).status, 200)
    })
  }

  test('because the store is frozen answers within seconds', async (t) => {
    const setup = await setUpWithRedis(t)
    const { browser, redis, provider } = setup
    const callback = await callbackOf(setup)
    provider.control.intercept = ({ path }) => {
      if (path === '/token') redis.pause()
      return false
    }
    const startedAt = steadyNow()
    const failed = await browser.navigate(callback.href)
    redis.resume()
    assert.equal(failed.status, 503)
    assert.match(failed.headers['retry-after'] ?? '', /^\d+$/)
    assert.deepEqual(sessionCookies(failed.headers['set-cookie']), [])
    assert.ok(steadyNow() - startedAt < 3_000)
  })
})

test('the store away when the response comes: the sign-in can still be finished when it is back', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const setup = await setUpWithRedis(t)
  const { browser, redis, provider } = setup
  const callback = await callbackOf(setup, '/orders')
  redis.pause()
  const failed = await browser.navigate(callback.href)
  redis.resume()
  assert.equal(failed.status, 503)
  assert.equal(provider.tokenRequests().length, 0)
  assert.ok(
    browser.cookies.some(({ name }) => name.includes('-login-')),
    'the cookie of the attempt is gone',
  )
})

test('a new session is written once, and the last byte of its page waits for nothing', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const { browser, redis, cloakroom } = await setUpWithRedis(t)
  while (!(await isReady(cloakroom))) await delay(20)
  async function countOf(command: string): Promise<number> {
    const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    const count = new RegExp(`_count\\{command="${command}",outcome="ok"\\} (\\d+)\n`).exec(metrics)?.[1]
    return Number(count ?? 0)
  }
  // The trial of the store at the start uses every command, too.
  const [created, replaced] = [await countOf('createSession'), await countOf('replaceSession')]
  await browser.signIn()
  assert.equal(await countOf('createSession'), created + 1)
  assert.equal(await countOf('replaceSession'), replaced)
  await redis.cli('PING')
})

test('with sameSite: lax another session in the browser ends when a sign-in succeeds, not before', async (t) => {
  const session = { store: { type: 'memory' }, keys: [sessionKey()], cookie: { sameSite: 'lax' } }
  const setup = await setUp(t, { config: { session } })
  const { browser, provider } = setup
  const first = await callbackOf(setup)
  const second = await callbackOf(setup)
  await browser.navigate(first.href, { from: provider.origin })
  const before = browser.clone()
  assert.equal((await before.fetch('/bff/user')).status, 200)
  await browser.navigate(second.href, { from: provider.origin })
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  assert.equal((await before.fetch('/bff/user')).status, 401)
})

test('a sign-in that the provider fails leaves the session before as it was', async (t) => {
  const setup = await setUp(t)
  const { browser, provider } = setup
  await browser.signIn()
  for (const fault of [{ kind: 'status', status: 500 }, { kind: 'drop-after' }] as const) {
    provider.control.fault = { ...fault, leg: 'code' }
    const callback = await callbackOf(setup)
    const failed = await browser.navigate(callback.href, { from: provider.origin })
    assert.equal(failed.status, 503)
    assert.match(failed.body, /Try again/)
    assert.deepEqual(sessionCookies(failed.headers['set-cookie']), [])
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  }
})

test('HEAD of a callback redeems nothing', async (t) => {
  const setup = await setUp(t)
  const callback = await callbackOf(setup)
  const path = callback.pathname + callback.search
  const head = await setup.browser.fetch(path, { method: 'HEAD' })
  assert.equal(setup.provider.tokenRequests().length, 0, `HEAD was answered ${head.status}`)
  assert.equal((await setup.browser.navigate(callback.href)).status, 200)
})
