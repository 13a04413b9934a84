import assert from 'node:assert/strict'
import { after, before, describe } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { audienceOf, startFleet } from '../../kit/attack/fleet.ts'
import { sendJson } from '../../kit/local-server.ts'
import { jwtClaims } from '../../kit/provider/signing.ts'
import { untilAfter } from '../../kit/shops/deadline.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const RESOURCES = ['orders', 'billing', 'audit', 'stock']
const REQUESTS = 200

describe('three processes and 200 requests at once', { skip: skipWithoutRedis() }, () => {
  const cleanUps: (() => unknown)[] = []
  let scene: Awaited<ReturnType<typeof startFleet>>
  before(async () => {
    const scope = { after: (cleanUp: () => unknown) => void cleanUps.push(cleanUp) }
    scene = await startFleet(scope, { replicas: 3, resources: RESOURCES })
  })
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  })

  test('G1: one resource: one refresh, and everybody is sent on with the same new token', async () => {
    const { provider, fleet, browser, tokensSent } = await signedInWithExpired(scene)
    provider.control.latencyMs = 150
    const before = provider.counters.refreshCalls
    const path = `/api/orders/g1-${before}`
    const answers = await Promise.all(
      Array.from({ length: REQUESTS }, (_, index) =>
        browser.fetch(path, { via: fleet[index % 3]!.listenUrl }),
      ),
    )
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
    assert.equal(provider.counters.refreshCalls - before, 1)
    assert.equal(tokensSent(path).length, 1)
    assert.equal(provider.counters.reuseDetected, 0)
  })

  test('G2: four resources: four refreshes, one after the other, and each API gets the token that is meant for it', async () => {
    const { provider, fleet, browser, tokensSent } = await signedInWithExpired(scene)
    provider.control.latencyMs = 150
    const { counters } = provider
    const before = counters.refreshCalls
    counters.mostConcurrentRefreshes = 0
    const answers = await Promise.all(
      Array.from({ length: REQUESTS }, (_, index) =>
        browser.fetch(`/api/${RESOURCES[index % 4]}/g2-${before}`, { via: fleet[index % 3]!.listenUrl }),
      ),
    )
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200])
    assert.deepEqual(
      [counters.refreshCalls - before, counters.mostConcurrentRefreshes, counters.reuseDetected],
      [4, 1, 0],
    )
    for (const name of RESOURCES) {
      const sent = tokensSent(`/api/${name}/g2-${before}`)
      assert.deepEqual(
        sent.map((token) => jwtClaims(token ?? '')?.aud),
        [audienceOf(name)],
      )
    }
    assert.deepEqual(provider.violations, [])
  })

  test('G3: whoever comes 0 to 100 ms after the rotation uses what it brought, however old their copy', async () => {
    const { provider, fleet, browser, tokensSent } = await signedInWithExpired(scene)
    const before = provider.counters.refreshCalls
    const path = `/api/orders/g3-${before}`
    const [first, ...others] = fleet
    assert.equal((await browser.fetch(path, { via: first!.listenUrl })).status, 200)
    await Promise.all(
      others.flatMap(({ listenUrl: via }) =>
        [0, 1, 5, 10, 20, 50, 100].map(async (ms) => {
          await delay(ms)
          assert.equal((await browser.fetch(path, { via })).status, 200)
        }),
      ),
    )
    assert.equal(provider.counters.refreshCalls - before, 1)
    assert.equal(tokensSent(path).length, 1)
  })

  test('G11: a grant that is over ends the session once, in all of them, whatever number it comes with', async () => {
    const { provider, fleet, browser, isRefresh, counted } = scene
    const ended = () => counted('cloakroom_sessions_total{event="ended",reason="invalid_grant"}')
    for (const code of [700082, 50173, 700084, 70043, undefined]) {
      await browser.signIn()
      for (const { listenUrl: via } of fleet)
        assert.equal((await browser.fetch('/api/orders', { via })).status, 200)
      const before = await ended()
      let asked = 0
      provider.control.intercept = async ({ form }, res) => {
        if (!isRefresh(form)) return false
        asked += 1
        await delay(50)
        sendJson(res, 400, { error: 'invalid_grant', ...(code ? { error_codes: [code] } : {}) })
        return true
      }
      const all = await Promise.all(
        Array.from({ length: 60 }, (_, index) =>
          browser.fetch(`/api/${RESOURCES[1 + (index % 3)]}`, { via: fleet[index % 3]!.listenUrl }),
        ),
      )
      for (const answer of all)
        assert.deepEqual([answer.status, answer.json().code], [401, 'session_required'])
      assert.equal(asked, 1)
      for (const { listenUrl: via } of fleet)
        assert.equal((await browser.fetch('/api/orders', { via })).status, 401)
      assert.equal((await ended()) - before, 1)
    }
    provider.control.intercept = undefined
  })
})

/** All four tokens are expired, and every process has copies from before that. */
async function signedInWithExpired(scene: Awaited<ReturnType<typeof startFleet>>) {
  const { provider, fleet, browser } = scene
  Object.assign(provider.control, { accessTokenSeconds: 2, latencyMs: 0 })
  await browser.signIn()
  for (const { listenUrl: via } of fleet)
    for (const name of RESOURCES) assert.equal((await browser.fetch(`/api/${name}`, { via })).status, 200)
  const ends = provider.issuedSecrets.map((secret) => jwtClaims(secret)).filter((claims) => claims?.client_id)
  const last = ends.slice(-RESOURCES.length).map((claims) => Number(claims?.exp))
  await untilAfter((Math.max(...last) + 1) * 1000)
  provider.control.accessTokenSeconds = 300
  return scene
}
