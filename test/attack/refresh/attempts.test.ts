import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { audienceOf, startFleet, suiteScope } from '../../kit/attack/fleet.ts'
import { setUp } from '../../kit/attack/sign-in.ts'
import type { Browser } from '../../kit/browsers/browser.ts'
import { sessionKey } from '../../kit/config/cloakroom-config.ts'
import { field } from '../../kit/local-server.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { verdict } from '../../kit/shops/shop.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../../kit/store/redis.ts'

const LIFE = { control: { accessTokenSeconds: 60 } }
const RESOURCES = ['orders', 'billing', 'audit']
const ORDERS = [200, audienceOf('orders')]
const BILLING = [200, audienceOf('billing')]
const PAUSE_MS = 800
const FIVE_MINUTES_MS = 300_000
/** Both lives are shorter than the 300 s before its end in which a token is renewed. */
const LONG_SECONDS = 60
const SHORT_SECONDS = 1
const ASKED_FOR_MS = 1_600
const ASKED_EVERY_MS = 20

describe('three processes spend a refresh token', { skip: skipWithoutRedis() }, () => {
  const scope = suiteScope()
  let skewMs = 0
  let scene: Awaited<ReturnType<typeof startFleet>>
  before(async () => {
    const scripted = { now: () => Date.now() + skewMs }
    // Its clock is five minutes off in some of the tests.
    const provider = { clockTolerance: '6m' }
    scene = await startFleet(scope, { replicas: 3, resources: RESOURCES, scripted, provider })
  })

  const ask = (browser: Browser, at: number, path = '/api/billing') =>
    browser.fetch(path, { via: scene.fleet[at]!.listenUrl })
  async function ordersEverywhere(browser: Browser, path = '/api/orders') {
    for (const answer of await scene.everywhere(browser, path)) assert.deepEqual(verdict(answer), ORDERS)
  }
  /** From now on: how many refreshes the provider was asked for, and how often it met a spent refresh token. */
  function countCalls() {
    const { counters } = scene.provider
    const before = { ...counters }
    return () => [counters.refreshCalls - before.refreshCalls, counters.reuseDetected - before.reuseDetected]
  }

  /** Takes Redis its writes at the moment in which the provider is asked for the first refresh, which then rotates. */
  function atTheProvider(takeWrites: () => Promise<unknown>) {
    let isTaken = false
    scene.provider.control.intercept = async ({ form }) => {
      if (!scene.isRefresh(form) || isTaken) return false
      isTaken = true
      await takeWrites()
      return false
    }
  }
  /** The provider spends a refresh token before it refuses billing, as oidc-provider does. */
  function burnsBilling() {
    const refusedResources = [audienceOf('billing')]
    const control = { burnOnInvalidTarget: true, refusedResources, intercept: undefined }
    Object.assign(scene.provider.control, control)
  }

  test('G6: full after the provider rotated: the one has the token in memory, the others do not spend the old one', async () => {
    const { redis } = scene
    const browser = await scene.person('ada')
    const calls = countCalls()
    atTheProvider(() => redis.cli('CONFIG', 'SET', 'maxmemory', '1'))
    assert.deepEqual(verdict(await ask(browser, 0)), BILLING)
    for (let round = 0; round < 3; round += 1) {
      assert.deepEqual(verdict(await ask(browser, 0)), BILLING, 'what memory has is used on')
      for (const at of [1, 2]) {
        const [status, code] = verdict(await ask(browser, at))
        assert.equal(status, 503)
        assert.ok(['store_unavailable', 'provider_unavailable'].includes(String(code)), String(code))
        assert.deepEqual(verdict(await ask(browser, at, '/api/orders')), ORDERS)
      }
    }
    await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
    for (const at of [1, 2])
      await eventually('the others find it', async () => {
        const [status, found] = verdict(await ask(browser, at))
        return status === BILLING[0] && found === BILLING[1]
      })
    assert.deepEqual(calls(), [1, 0])
    assert.deepEqual(verdict(await ask(browser, 2, '/api/audit')), [200, audienceOf('audit')])
    assert.deepEqual(calls(), [2, 0], 'with the refresh token that was stored late')
  })

  test('G6: writes stand still after the provider rotated: every request gets the one new token, from every process', async () => {
    const { redis, tokensSent } = scene
    const browser = await scene.person('bert')
    const calls = countCalls()
    atTheProvider(() => redis.cli('CLIENT', 'PAUSE', String(PAUSE_MS), 'WRITE'))
    const path = '/api/billing/g6'
    const found = await Promise.all(
      [0, 1, 2, 0, 1, 2].map((at) =>
        eventually('it has the token', async () => {
          const answer = verdict(await ask(browser, at, path))
          assert.ok([200, 503].includes(answer[0]), answer.join(' '))
          return answer[0] === 200 && answer
        }),
      ),
    )
    for (const answer of found) assert.deepEqual(answer, BILLING)
    assert.equal(tokensSent(path).length, 1)
    assert.deepEqual(calls(), [1, 0])
  })

  test('R-063: living tokens are used on, the burnt one is offered by none of them, and a sign-in cures it', async () => {
    const { fleet } = scene
    burnsBilling()
    const browser = await scene.person('cleo')
    const calls = countCalls()
    await ordersEverywhere(browser)
    const refused = await browser.fetch('/api/billing', { via: fleet[0]!.listenUrl })
    assert.deepEqual(verdict(refused), [502, 'provider_rejected'])
    assert.equal(refused.json().reason, 'invalid_target')
    assert.deepEqual(calls(), [1, 0])

    await ordersEverywhere(browser)
    for (const answer of await scene.everywhere(browser, '/bff/user')) assert.equal(answer.status, 200)
    for (const path of ['/api/audit', '/api/billing'])
      for (const answer of await scene.everywhere(browser, path)) {
        if (path === '/api/billing' && answer.status === 502) continue
        assert.deepEqual(verdict(answer), [401, 'reauthentication_required'], path)
        assert.equal(answer.json().reason, 'refresh_token_uncertain')
        assert.match(answer.json().login_url, /^\/bff\/login/)
      }
    assert.deepEqual(calls(), [1, 0], 'the reuse detector is silent')
    await ordersEverywhere(browser)

    await browser.signIn({ via: fleet[1]!.listenUrl })
    for (const answer of await scene.everywhere(browser, '/api/audit'))
      assert.deepEqual(verdict(answer), [200, audienceOf('audit')])
    assert.deepEqual(calls(), [2, 0])
  })

  test('R-063: a living token in its last half is used to its end, however often its renewal is not possible', async () => {
    const { provider, fleet } = scene
    burnsBilling()
    provider.control.accessTokenSeconds = 2
    const browser = await scene.person('dora')
    const signedInAt = Date.now()
    const via = fleet[2]!.listenUrl
    assert.deepEqual(verdict(await browser.fetch('/api/billing', { via })), [502, 'provider_rejected'])
    const calls = countCalls()
    const seen = new Set<string>()
    let lastServedAt = 0
    while (Date.now() - signedInAt < 2_500) {
      await delay(ASKED_EVERY_MS)
      for (const answer of await scene.everywhere(browser, '/api/orders')) {
        seen.add(verdict(answer).join(' '))
        if (answer.status === 200) lastServedAt = Date.now()
      }
    }
    assert.deepEqual([...seen], [ORDERS.join(' '), '401 reauthentication_required'])
    assert.ok(lastServedAt - signedInAt > 1_300, `served for ${lastServedAt - signedInAt} ms`)
    assert.deepEqual(calls(), [0, 0])
    assert.equal((await browser.fetch('/bff/user', { via })).status, 200, 'the session stays')
  })

  /** A user whose tokens live so long, and how often the refresh token was used since the sign-in. */
  async function newcomer(seconds: number) {
    scene.provider.control.accessTokenSeconds = seconds
    const browser = await scene.person('emil')
    const calls = countCalls()
    return { browser, refreshes: () => calls()[0]! }
  }

  for (const [name, aheadMs] of [
    ['ahead', FIVE_MINUTES_MS],
    ['behind', -FIVE_MINUTES_MS],
  ] as const) {
    test(`G14: ${name}: tokens of ${LONG_SECONDS} s are not renewed however often they are asked for`, async () => {
      skewMs = aheadMs
      const { browser, refreshes } = await newcomer(LONG_SECONDS)
      for (let round = 0; round < 40; round += 1) await ordersEverywhere(browser)
      assert.equal(refreshes(), 0)
    })

    test(`G14: ${name}: tokens of ${SHORT_SECONDS} s are renewed at the half of their life, and no more often`, async () => {
      skewMs = aheadMs
      const path = `/api/orders/g14-${name}`
      const { browser, refreshes } = await newcomer(SHORT_SECONDS)
      const startedAt = performance.now()
      while (performance.now() - startedAt < ASKED_FOR_MS) {
        await ordersEverywhere(browser, path)
        await delay(ASKED_EVERY_MS)
      }
      const tookMs = performance.now() - startedAt
      const most = Math.ceil(tookMs / (SHORT_SECONDS * 500))
      assert.ok(refreshes() >= 1 && refreshes() <= most, `${refreshes()} of at most ${most}`)
      const sent = scene.tokensSent(path)
      assert.ok(sent.length <= most + 1, `${sent.length} tokens`)
      const { iat } = jwtClaims(sent[0] ?? '') ?? {}
      assert.ok(Math.abs(Number(iat) * 1_000 - Date.now() - aheadMs) < 60_000, 'its clock is wrong indeed')
      assert.equal(scene.provider.counters.reuseDetected, 0)
    })

    test(`G14: ${name}: a life that is told by its end alone is no reason for a loop`, async () => {
      skewMs = aheadMs
      scene.provider.control.editAnswer = (answer) => {
        answer.expires_on = String(Math.floor((Date.now() + skewMs) / 1_000) + Number(answer.expires_in))
        delete answer.expires_in
      }
      const { browser, refreshes } = await newcomer(LONG_SECONDS)
      for (let round = 0; round < 20; round += 1) await ordersEverywhere(browser)
      scene.provider.control.editAnswer = undefined
      assert.equal(refreshes(), 0)
    })
  }
})

test('G6: Redis takes no more writes once the provider has rotated: served from memory, stored later, nothing spent twice', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] })
  t.after(() => redis.stop())
  const { provider, browser, advance } = await setUp(t, {
    provider: LIFE,
    config: { session: { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] } },
  })
  await browser.signIn()
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  advance(61_000)
  let isFull = false
  provider.control.intercept = async ({ form }) => {
    if (field(form, 'grant_type') === 'refresh_token' && !isFull) {
      await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
      isFull = true
    }
    return false
  }
  for (let call = 0; call < 5; call += 1) assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.equal(isFull, true)
  assert.equal(provider.counters.refreshCalls, 1, 'what memory has is not asked for again')
  await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
  await eventually('it is stored', async () => {
    const [key = ''] = await redis.cli('KEYS', 'cloakroom:{*}:tokens')
    return (await redis.cli('HEXISTS', key, 'spend'))[0] === '0'
  })
  advance(61_000)
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [2, 0])
})

test('G6: Redis takes no writes before the provider is asked: 503, and the refresh token is not spent', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] })
  t.after(() => redis.stop())
  const { provider, browser, advance } = await setUp(t, {
    provider: LIFE,
    config: { session: { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] } },
  })
  await browser.signIn()
  advance(61_000)
  await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
  const refused = await browser.fetch('/api/orders')
  assert.deepEqual([refused.status, refused.json().code], [503, 'store_unavailable'])
  assert.equal(provider.counters.refreshCalls, 0)
  assert.equal((await browser.fetch('/bff/user')).status, 200, 'reading goes on')
  await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [1, 0])
})

describe('G14: a clock that is five minutes', () => {
  for (const [name, skewMs] of [
    ['behind', 300_000],
    ['ahead', -300_000],
  ] as const)
    test(`${name} of the provider's, tokens of 60 s: renewed twice a minute, and no loop`, async (t) => {
      let aheadMs = 0
      const { provider, browser, advance } = await setUp(t, {
        provider: { ...LIFE, now: () => Date.now() + skewMs + aheadMs },
        config: { provider: { clockTolerance: '6m' } },
      })
      await browser.signIn()
      for (let second = 0; second < 600; second += 5) {
        assert.equal((await browser.fetch('/api/orders')).status, 200)
        advance(5_000)
        aheadMs += 5_000
      }
      const { refreshCalls, reuseDetected } = provider.counters
      assert.ok(refreshCalls >= 9 && refreshCalls <= 21, `${refreshCalls} refreshes in 10 minutes`)
      assert.equal(reuseDetected, 0)
    })
})
