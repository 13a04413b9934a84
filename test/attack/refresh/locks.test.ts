import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { audienceOf, startFleet, suiteScope } from '../../kit/attack/fleet.ts'
import type { Browser } from '../../kit/browsers/browser.ts'
import { sendJson } from '../../kit/local-server.ts'
import type { Replica } from '../../kit/replica.ts'
import { eventually, untilAfter } from '../../kit/shops/deadline.ts'
import { verdict } from '../../kit/shops/shop.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const RESOURCES = ['orders', 'billing', 'audit', 'stock']
const AT_ONCE = 5
const REQUESTS = 200
const PEOPLE = 40
const MAPS_ON_SIGNAL = new URL('../../kit/attack/maps-on-signal.ts', import.meta.url).href
/** Copies of opened tokens: bounded, and not about what is under way. */
const COPIES = 'src/tokens/record/sealing.ts'
/** Where what is in flight is kept. */
const FLIGHTS = 'src/async/single-flight.ts'

describe('three processes and one refresh lock', { skip: skipWithoutRedis() }, () => {
  const scope = suiteScope()
  let scene: Awaited<ReturnType<typeof startFleet>>
  /** What the maps hold before the first request: words of the program and of the configuration. */
  let fixed: number[]
  before(async () => {
    scene = await startFleet(scope, {
      ...{ replicas: 3, resources: RESOURCES, provider: { timeout: '25s' } },
      env: { NODE_OPTIONS: `--import=${MAPS_ON_SIGNAL}` },
    })
    fixed = await underWay()
  })

  const turns = async (resource: string) => {
    const counted = (outcome: string) =>
      scene.counted(`cloakroom_refresh_turns_total{outcome="${outcome}",resource="${resource}"}`)
    const [worked, coalesced, settledElsewhere, lockTimeout] = await Promise.all(
      ['worked', 'coalesced', 'settled_elsewhere', 'lock_timeout'].map(counted),
    )
    return { worked, coalesced, settledElsewhere, lockTimeout }
  }
  const waits = async () => ({
    count: await scene.counted('cloakroom_refresh_lock_wait_seconds_count'),
    seconds: await scene.counted('cloakroom_refresh_lock_wait_seconds_sum'),
  })
  /** Keeps every refresh waiting at the provider until `open` is called. */
  function closeProvider() {
    const { promise, resolve: open } = Promise.withResolvers<void>()
    let waiting = 0
    scene.provider.control.intercept = async ({ form }) => {
      if (!scene.isRefresh(form)) return false
      waiting += 1
      await promise
      return false
    }
    return { open, waiting: () => waiting }
  }
  const askAtOnce = (browser: Browser, path: string, at: number, times = AT_ONCE) =>
    Array.from({ length: times }, () => browser.fetch(path, { via: scene.fleet[at]!.listenUrl }))

  test('the metrics tell refreshes that worked, that were shared in a process and that another process had done', async () => {
    const browser = await scene.person('ada')
    const [before, waitsBefore] = [await turns('billing'), await waits()]
    const provider = closeProvider()
    const startedAt = performance.now()
    const asked = askAtOnce(browser, '/api/billing', 0, 1)
    await eventually('the provider is asked', () => provider.waiting() === 1)
    asked.push(...askAtOnce(browser, '/api/billing', 0, AT_ONCE - 1))
    for (const at of [1, 2]) asked.push(...askAtOnce(browser, '/api/billing', at))
    const shared = before.coalesced! + 3 * (AT_ONCE - 1)
    await eventually('all wait', async () => (await turns('billing')).coalesced === shared)
    const waitedFrom = performance.now()
    await eventually('they have waited for a while', () => performance.now() - waitedFrom > 300)
    provider.open()
    for (const answer of await Promise.all(asked))
      assert.deepEqual(verdict(answer), [200, audienceOf('billing')])
    const tookSeconds = (performance.now() - startedAt) / 1_000

    const [found, waitsFound] = [await turns('billing'), await waits()]
    assert.deepEqual(found, {
      worked: before.worked! + 1,
      coalesced: shared,
      settledElsewhere: before.settledElsewhere! + 2,
      lockTimeout: before.lockTimeout,
    })
    assert.equal(waitsFound.count - waitsBefore.count, 3, 'a caller that shares a flight waits for no lock')
    const seconds = waitsFound.seconds - waitsBefore.seconds
    assert.ok(seconds > 0.5 && seconds < 2 * tookSeconds + 0.5, `${seconds} of ${tookSeconds} s`)
    // A token that is there is no turn.
    await Promise.all(askAtOnce(browser, '/api/billing', 1))
    assert.deepEqual(await turns('billing'), found)
  })

  test('G20: many sessions later nothing is under way in any process, and no lock is left in Redis', async () => {
    const { provider, redis, counted } = scene
    provider.control.intercept = undefined
    const people: Browser[] = []
    for (let index = 0; index < PEOPLE; index += 1)
      people.push(await scene.person(`person-${index}`, index % 3))
    const calls = provider.counters.refreshCalls
    const held = closeProvider()
    const asked = people.flatMap((browser, index) =>
      RESOURCES.slice(1).flatMap((name) =>
        [0, 1].flatMap((more) => askAtOnce(browser, `/api/${name}`, (index + more) % 3, 1)),
      ),
    )
    await eventually('the provider is asked by many', () => held.waiting() >= PEOPLE)
    await eventually('what is counted is what is in use', async () =>
      (await underWay()).every((entries) => entries > PEOPLE),
    )
    assert.ok((await locks()).length >= PEOPLE)
    held.open()
    for (const { status } of await Promise.all(asked)) assert.equal(status, 200)

    await eventually('no lock is left', async () => (await locks()).length === 0)
    await eventually('nothing is under way', async () => {
      const entries = await underWay()
      return entries.every((count) => count === 0)
    })
    assert.equal(provider.counters.refreshCalls - calls, PEOPLE * (RESOURCES.length - 1))
    assert.equal(provider.counters.reuseDetected, 0)
    for (const gauge of ['cloakroom_provider_calls_in_flight', 'cloakroom_provider_queue'])
      assert.equal(await counted(gauge), 0, gauge)
    const keys = await redis.cli('KEYS', 'cloakroom:{*}:tokens')
    const marks = await Promise.all(keys.slice(-5).map((key) => redis.cli('HEXISTS', key, 'spend')))
    assert.deepEqual(new Set(marks.flat()), new Set(['0']))
  })

  test('G1: one resource: one refresh, and every request is sent on with the same new token', async () => {
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

  test('G3: requests 0 to 100 ms after the rotation use the new token, however old the copy of a process is', async () => {
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

  const locks = () => scene.redis.cli('KEYS', 'cloakroom:*lock*')
  /** Entries of each process's maps and sets of the token engine, more than at the start. */
  async function underWay(): Promise<number[]> {
    const counts = await Promise.all(scene.fleet.map(entriesOfEngine))
    return counts.map((count, at) => count - (fixed?.[at] ?? 0))
  }
})

async function entriesOfEngine({ stderr, signal }: Replica): Promise<number> {
  const seen = stderr.length
  signal('SIGUSR2')
  const line = await eventually('the process tells', () =>
    stderr.slice(seen).find((text) => text.startsWith('{"entries"')),
  )
  const { entries } = JSON.parse(line) as { entries: Record<string, number> }
  const ofEngine = Object.entries(entries).filter(
    ([file]) => (file.startsWith('src/tokens/') && file !== COPIES) || file === FLIGHTS,
  )
  return ofEngine.reduce((total, [, count]) => total + count, 0)
}

/** All four tokens are expired, and every process has copies from before that. */
async function signedInWithExpired(scene: Awaited<ReturnType<typeof startFleet>>) {
  const { provider, fleet, browser } = scene
  Object.assign(provider.control, { accessTokenSeconds: 2, latencyMs: 0, intercept: undefined })
  await browser.signIn()
  for (const { listenUrl: via } of fleet)
    for (const name of RESOURCES) assert.equal((await browser.fetch(`/api/${name}`, { via })).status, 200)
  const ends = provider.issuedSecrets.map((secret) => jwtClaims(secret)).filter((claims) => claims?.client_id)
  const last = ends.slice(-RESOURCES.length).map((claims) => Number(claims?.exp))
  await untilAfter((Math.max(...last) + 1) * 1000)
  provider.control.accessTokenSeconds = 300
  return scene
}
