import assert from 'node:assert/strict'
import { request } from 'node:http'
import { before, describe } from 'node:test'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { audienceOf, routesTo, startFleet, suiteScope } from '../../kit/attack/fleet.ts'
import { setUp } from '../../kit/attack/sign-in.ts'
import type { Browser } from '../../kit/browsers/browser.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { verdict } from '../../kit/shops/shop.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'
import { bearerToken } from '../../kit/upstream/upstream.ts'

const RESOURCES = ['orders', 'billing', 'audit']
/** Names of resources, and of theirs at the provider, that are alike when joined, trimmed, decoded or in small letters. */
const ALIKE = Object.entries({
  ...{ a: 'a', A: 'A', b: 'a/', 'a.b': 'a/b', 'a-b': 'a%2Fb', a_b: 'a%2fb' },
  ...{ v: 'a//b', spend: 'a,b', constructor: 'b', at: 'a;b' },
}).map(([name, path]) => [name, `https://alike.test/${path}`] as const)

describe('three processes and sessions that change while their tokens are renewed', {
  skip: skipWithoutRedis(),
}, () => {
  const scope = suiteScope()
  let scene: Awaited<ReturnType<typeof startFleet>>
  before(async () => {
    scene = await startFleet(scope, { replicas: 3, resources: RESOURCES })
  })

  const via = (at: number) => scene.fleet[at]!.listenUrl
  /** Asks the first process for a path of billing's; resolves when the provider is being asked, with the answer to come. */
  async function refreshing(browser: Browser, latencyMs = 400) {
    const { control, counters } = scene.provider
    control.latencyMs = latencyMs
    const asked = counters.refreshCalls
    const elsewhere = browser.clone()
    const answer = elsewhere.fetch('/api/billing', { via: via(0) }).finally(() => elsewhere.close())
    await eventually('the provider is asked', () => counters.refreshCalls === asked + 1)
    return { answer, asked: asked + 1 }
  }
  const assertRefreshes = (calls: number) => {
    const { refreshCalls, reuseDetected } = scene.provider.counters
    assert.deepEqual([refreshCalls, reuseDetected], [calls, 0])
  }

  test('G5: the client leaves while one of them refreshes: the others get what it brings', async () => {
    const browser = await scene.person('ada')
    const { control, counters } = scene.provider
    control.latencyMs = 400
    const asked = counters.refreshCalls
    const headers = { host: new URL(browser.origin).host, cookie: browser.cookieHeader(), 'x-csrf': '1' }
    const leaving = request(`${via(0)}/api/billing/g5`, { headers })
    leaving.on('error', () => undefined).end()
    await eventually('the provider is asked', () => counters.refreshCalls === asked + 1)
    leaving.destroy()
    for (const answer of await scene.verdictsEverywhere(browser, '/api/billing/g5'))
      assert.deepEqual(answer, [200, audienceOf('billing')])
    assert.equal(scene.tokensSent('/api/billing/g5').length, 1)
    assertRefreshes(asked + 1)
  })

  test('G15: a sign-out at one of them while another refreshes: what it brings is revoked, and stored nowhere', async () => {
    const { provider, redis } = scene
    const before = await redis.cli('KEYS', 'cloakroom:{*}:*')
    const browser = await scene.person('bert')
    const elsewhere = browser.clone()
    const { answer } = await refreshing(browser)
    const logout = await browser.fetch('/bff/logout', { method: 'POST', via: via(1) })
    assert.equal(logout.status, 200)
    assert.deepEqual(verdict(await answer), [401, 'session_required'])
    for (const path of ['/api/orders', '/api/billing', '/bff/user'])
      for (const found of await scene.verdictsEverywhere(elsewhere, path))
        assert.deepEqual(found, [401, 'session_required'], path)
    elsewhere.close()
    const ofBert = provider.issuedSecrets.filter((secret) => provider.ownerOf(secret) === 'bert')
    assert.equal(ofBert.length, 2)
    assert.deepEqual(provider.revoked.filter((token) => ofBert.includes(token)).toSorted(), ofBert.toSorted())
    assert.deepEqual((await redis.cli('KEYS', 'cloakroom:{*}:*')).toSorted(), before.toSorted())
  })

  const [orders, billing, audit] = RESOURCES.map((name) => ({
    ...{ resource: audienceOf(name), audience: audienceOf(name) },
  }))
  const reloads: Record<string, { routes: string[]; resources: Record<string, typeof orders> }> = {
    'is taken away': { routes: ['orders', 'audit'], resources: { orders, audit } },
    'gets the name of another': { routes: RESOURCES, resources: { orders, billing: audit, audit: billing } },
    'gets another beside it': {
      routes: [...RESOURCES, 'more'],
      resources: { orders, billing, audit, more: audit },
    },
  }
  for (const [name, { routes, resources }] of Object.entries(reloads))
    test(`G16: a resource ${name} in all of them during a refresh: no API gets the token of another`, async () => {
      const before = await tokenKeys()
      const browser = await scene.person('cleo')
      const sent = scene.api.requests.length
      const { answer, asked } = await refreshing(browser, 600)
      try {
        await scene.reload({ routes: routesTo(scene.api.url, routes), resources })
        assert.deepEqual(verdict(await answer), [200, audienceOf('billing')], 'who asked before is served')
        scene.provider.control.latencyMs = 0
        for (const route of routes)
          for (const found of await scene.verdictsEverywhere(browser, `/api/${route}`))
            assert.deepEqual(found, [200, resources[route]?.audience], route)
        // The first of them is who asked before.
        for (const one of scene.api.requests.slice(sent + 1)) {
          const { audience } = resources[one.path.split('/').at(-1) ?? ''] ?? {}
          assert.equal(jwtClaims(one.headers.authorization?.slice(7) ?? '')?.aud, audience, one.path)
        }
        if (name === 'is taken away')
          await eventually('its token is deleted', async () => {
            const key = (await tokenKeys()).find((one) => !before.includes(one)) ?? ''
            return !(await scene.redis.cli('HKEYS', key)).includes('at:billing')
          })
        const { refreshCalls, reuseDetected } = scene.provider.counters
        assert.ok(refreshCalls - asked <= 2 && reuseDetected === 0, `${refreshCalls - asked} more refreshes`)
      } finally {
        await browser.fetch('/bff/logout', { method: 'POST', via: via(2) })
        await scene.reload({})
      }
    })
  const tokenKeys = () => scene.redis.cli('KEYS', 'cloakroom:{*}:tokens')

  test('G17: two sessions of one user, and another user in the same browser: whichever process, no token is shared', async () => {
    const { api, provider } = scene
    provider.control.latencyMs = 20
    const one = await scene.person('dora', 0)
    const two = await scene.person('dora', 1)
    const sentFor = async (browser: Browser, path: string) => {
      for (const found of await scene.verdictsEverywhere(browser, path)) assert.equal(found[0], 200)
      return new Set(
        api.requests.filter((seen) => seen.path === path).map(({ headers }) => headers.authorization),
      )
    }
    const [ofOne, ofTwo] = await Promise.all([
      sentFor(one, '/api/billing/g17-one'),
      sentFor(two, '/api/billing/g17-two'),
    ])
    provider.control.user = 'emil'
    await one.signIn({ via: via(2) })
    const [ofEmil, ofTwoStill] = await Promise.all([
      sentFor(one, '/api/billing/g17-emil'),
      sentFor(two, '/api/billing/g17-still'),
    ])
    assert.deepEqual(
      [ofOne, ofTwo, ofEmil].map(({ size }) => size),
      [1, 1, 1],
    )
    assert.equal(new Set([...ofOne, ...ofTwo, ...ofEmil]).size, 3)
    assert.deepEqual(ofTwoStill, ofTwo)
    const subjects = [...ofOne, ...ofTwo, ...ofEmil].map((value) => jwtClaims(String(value).slice(7))?.sub)
    assert.deepEqual(subjects, ['dora', 'dora', 'emil'])
    assert.equal(provider.counters.reuseDetected, 0)
  })

  test('G18: resources whose names look alike when joined have a token each, at every process, and keep it', async () => {
    const { api, provider } = scene
    const resources = Object.fromEntries(
      ALIKE.map(([name, audience]) => [name, { resource: audience, audience }]),
    )
    const routes = ALIKE.map(([resource], index) => {
      return { path: `/api/${index}`, id: String(index), upstream: api.url, resource }
    })
    await scene.reload({ resources, routes })
    provider.control.latencyMs = 0
    const browser = await scene.person('fred')
    const asked = provider.counters.refreshCalls
    for (let round = 0; round < 2; round += 1) {
      const found = await Promise.all(
        ALIKE.map((_, index) => scene.verdictsEverywhere(browser, `/api/${index}`)),
      )
      const expected = ALIKE.map(([, audience]) => [200, audience])
      assert.deepEqual(
        found,
        expected.map((one) => [one, one, one]),
      )
    }
    // The first is the one of the sign-in.
    assertRefreshes(asked + ALIKE.length - 1)
    await scene.reload({})
  })
})

test('G17: another user signs in with the same browser, and the same user with another: no token is shared', async (t) => {
  const { provider, browser, api, cloakroom } = await setUp(t)
  const seen: (string | undefined)[] = []
  const ask = async (by: typeof browser) => {
    assert.equal((await by.fetch('/api/orders')).status, 200)
    seen.push(bearerToken(api.requests.at(-1)!))
  }
  await browser.signIn()
  await ask(browser)
  const second = cloakroom.browser()
  await second.signIn()
  await ask(second)
  provider.control.user = 'bob'
  await browser.signIn()
  await ask(browser)
  await ask(second)
  assert.deepEqual(
    seen.map((token) => jwtClaims(token ?? '')?.sub),
    ['alice', 'alice', 'bob', 'alice'],
  )
  assert.equal(new Set(seen).size, 3)
  assert.equal(seen[1], seen[3])
})
