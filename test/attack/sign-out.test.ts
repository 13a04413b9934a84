import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setUp } from '../kit/attack/sign-in.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { steadyNow } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const quick = async (work: Promise<unknown>, ms: number) => {
  const startedAt = steadyNow()
  await work
  const tookMs = steadyNow() - startedAt
  assert.ok(tookMs < ms, `took ${Math.round(tookMs)} ms`)
}

test('a sign-out is not held up by a provider that this process has never reached', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
  const { browser, start, cloakroom, provider } = await setUp(t, {
    config: { publicUrl: 'https://app.example.test', session },
  })
  await browser.signIn()
  provider.control.intercept = () => true
  const late = await start()
  browser.connectTo(cloakroom.publicUrl, late.listenUrl)
  const logout = browser.fetch('/bff/logout', { method: 'POST' })
  await quick(logout, 3_500)
  assert.equal((await logout).status, 200)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
})

describe('a sign-out link', () => {
  test('with no sid, an empty, another or a repeated one ends nothing', async (t) => {
    const { browser, cloakroom } = await setUp(t)
    await browser.signIn()
    const other = cloakroom.browser()
    await other.signIn()
    const foreign = new URL((await other.fetch('/bff/user')).json()['bff:logout_url'], 'http://x')
      .searchParams
    const own = new URL((await browser.fetch('/bff/user')).json()['bff:logout_url'], 'http://x').searchParams
    const tries = [
      '',
      '?sid=',
      `?sid=${foreign.get('sid')}`,
      `?sid=${own.get('sid')}&sid=x`,
      `?sid=${own.get('sid')}x`,
    ]
    for (const query of tries) {
      assert.equal((await browser.open(`/bff/logout${query}`)).status, 400, query)
      assert.equal((await browser.fetch('/bff/user')).status, 200, query)
    }
  })

  test('leads to no other origin', async (t) => {
    const { browser } = await setUp(t)
    await browser.signIn()
    const { 'bff:logout_url': url } = (await browser.fetch('/bff/user')).json()
    for (const returnUrl of [
      '//evil.test',
      '/\\evil.test',
      'https://evil.test',
      '/%0d%0aX:1',
      'javascript:alert(1)',
    ]) {
      const answer = await browser.open(`${url}&returnUrl=${encodeURIComponent(returnUrl)}`)
      assert.equal(answer.json().code, 'invalid_return_url', returnUrl)
    }
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })

  test('followed twice is harmless, and the second one has nothing to tell', async (t) => {
    const { browser, provider } = await setUp(t)
    await browser.signIn()
    const { 'bff:logout_url': url } = (await browser.fetch('/bff/user')).json()
    const first = await browser.open(url)
    assert.equal(new URL(String(first.headers.location)).origin, provider.origin)
    assert.equal(first.body, '')
    const second = await browser.open(url)
    assert.deepEqual([second.status, second.headers.location], [302, '/'])
    assert.equal(provider.revoked.length, 1)
  })
})

test('ten sign-outs at once revoke once, and each is answered', async (t) => {
  const { browser, provider } = await setUp(t)
  await browser.signIn()
  const browsers = Array.from({ length: 10 }, () => browser.clone())
  const answers = await Promise.all(browsers.map((one) => one.fetch('/bff/logout', { method: 'POST' })))
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]))
  assert.equal(provider.revoked.length, 1)
})

test('a sign-out in the middle of a sign-in ends what was there; the sign-in makes its own', async (t) => {
  const { browser, provider } = await setUp(t)
  await browser.signIn()
  const other = browser.clone()
  provider.control.latencyMs = 200
  const signingIn = browser.signIn()
  assert.equal((await other.fetch('/bff/logout', { method: 'POST' })).status, 200)
  await signingIn
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.equal((await other.fetch('/bff/user')).status, 401)
})
