import assert from 'node:assert/strict'
import { describe, type TestContext } from 'node:test'
import { ORDERS, setUp } from '../kit/attack/sign-in.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { sendJson } from '../kit/local-server.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

async function setUpClientResource(t: TestContext) {
  const resources = { orders: { resource: ORDERS, audience: ORDERS, grant: 'client_credentials' } }
  const setup = await setUp(t, { config: { resources } })
  await setup.browser.signIn()
  const tokenCalls = () => setup.provider.tokenRequests().length
  const refuse = (status: number, error: string) => {
    setup.provider.control.intercept = ({ path }, res) => {
      if (path !== '/token') return false
      sendJson(res, status, { error })
      return true
    }
  }
  return { ...setup, tokenCalls, refuse }
}

describe('a provider that refuses is not asked again by every request', () => {
  for (const [status, error, expected] of [
    [400, 'invalid_scope', 502],
    [401, 'invalid_client', 502],
    [503, 'temporarily_unavailable', 503],
  ] as const) {
    test(`for a token of the client itself: ${error}`, async (t) => {
      const { browser, tokenCalls, refuse, advance, provider } = await setUpClientResource(t)
      refuse(status, error)
      const before = tokenCalls()
      for (let n = 0; n < 20; n += 1) assert.equal((await browser.fetch('/api/orders')).status, expected)
      assert.ok(tokenCalls() - before <= 2, `${tokenCalls() - before} calls`)
      provider.control.intercept = undefined
      advance(61_000)
      assert.equal((await browser.fetch('/api/orders')).status, 200)
    })

    test(`for a refresh: ${error}`, async (t) => {
      const setup = await setUp(t, {
        provider: { control: { accessTokenSeconds: 60, burnOnInvalidTarget: false } },
      })
      await setup.browser.signIn()
      setup.advance(61_000)
      setup.provider.control.intercept = ({ path }, res) => {
        if (path !== '/token') return false
        sendJson(res, status, { error })
        return true
      }
      const before = setup.provider.tokenRequests().length
      for (let n = 0; n < 20; n += 1)
        assert.equal((await setup.browser.fetch('/api/orders')).status, expected)
      const calls = setup.provider.tokenRequests().length - before
      assert.ok(calls <= 2, `${calls} calls`)
      setup.provider.control.intercept = undefined
      setup.advance(61_000)
      assert.equal((await setup.browser.fetch('/api/orders')).status, 200)
    })
  }

  test('while the token that it will not renew is still good', async (t) => {
    const { browser, tokenCalls, refuse, advance } = await setUpClientResource(t)
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    advance(200_000)
    refuse(401, 'invalid_client')
    const before = tokenCalls()
    for (let n = 0; n < 20; n += 1) assert.equal((await browser.fetch('/api/orders')).status, 200)
    assert.ok(tokenCalls() - before <= 2, `${tokenCalls() - before} calls`)
  })
})

test('a lock whose grant by Redis was lost on the way does not keep a session waiting', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
  const { browser, advance } = await setUp(t, {
    config: { session },
    provider: { control: { accessTokenSeconds: 2 } },
  })
  await browser.signIn()
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  // The token is over, and the copies are still believed: the first that Redis is asked for is the lock.
  advance(2_000)
  redis.pause()
  assert.equal((await browser.fetch('/api/orders')).status, 503)
  redis.resume()
  const startedAt = steadyNow()
  let status = 0
  while (status !== 200 && steadyNow() - startedAt < 15_000) {
    const answer = await browser.fetch('/api/orders')
    assert.ok([200, 503].includes(answer.status))
    status = answer.status
  }
  const tookMs = steadyNow() - startedAt
  assert.ok(tookMs < 4_000, `the session could be served again after ${Math.round(tookMs)} ms`)
})
