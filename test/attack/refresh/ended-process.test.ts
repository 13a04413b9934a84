import assert from 'node:assert/strict'
import { request } from 'node:http'
import { type TestContext, test } from 'node:test'
import { startFleet } from '../../kit/attack/fleet.ts'
import { eventually, untilAfter } from '../../kit/shops/deadline.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const skip = skipWithoutRedis()
const TOKEN_SECONDS = 8

/** Two processes at a provider that answers after 1.5 s; the first of them is told to end while it waits for that. */
async function endedDuringRefresh(
  t: TestContext,
  begin: (scene: Awaited<ReturnType<typeof startFleet>>, at: string) => Promise<unknown>,
) {
  const scene = await startFleet(t, { replicas: 2, resources: ['orders', 'billing'] })
  const { provider, fleet, browser, recordField } = scene
  provider.control.accessTokenSeconds = TOKEN_SECONDS
  await browser.signIn()
  const [ending, staying] = fleet.map(({ listenUrl }) => listenUrl) as [string, string]
  const before = provider.counters.refreshCalls
  await begin(scene, ending)
  await eventually('the refresh has begun', () => provider.counters.refreshCalls === before + 1)
  assert.deepEqual(await fleet[0]!.stop('SIGTERM'), { code: 0, signal: null })
  assert.ok(!(await recordField('spend')), 'no spend is open when it has ended')
  provider.control.latencyMs = 0
  const answer = await browser.fetch('/api/billing', { via: staying })
  assert.equal(answer.status, 200, answer.body)
  assert.equal(provider.counters.reuseDetected, 0)
}

test('a replica that is told to end while it renews a token in the background stores what it brought first', {
  skip,
}, async (t) => {
  await endedDuringRefresh(t, async (scene, via) => {
    await scene.browser.fetch('/api/orders', { via })
    // From the middle of its life on, a short-lived token is renewed in the background.
    await untilAfter(Date.now() + (TOKEN_SECONDS * 1_000) / 2)
    scene.provider.control.latencyMs = 1_500
    assert.equal((await scene.browser.fetch('/api/orders', { via })).status, 200)
  })
})

test('a replica that is told to end when the client of a refresh has left stores what it brought first', {
  skip,
}, async (t) => {
  await endedDuringRefresh(t, async (scene, via) => {
    scene.provider.control.latencyMs = 1_500
    const headers = {
      host: 'app.example.test',
      cookie: scene.browser.cookieHeader(),
      'x-csrf': '1',
    }
    const leaving = request(`${via}/api/billing`, { headers })
    leaving.on('error', () => undefined).end()
    await eventually('it was asked', () => scene.provider.counters.refreshCalls > 0)
    leaving.destroy()
  })
})
