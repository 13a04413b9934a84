import assert from 'node:assert/strict'
import { before, describe, type TestContext } from 'node:test'
import { audienceOf, startFleet, suiteScope } from '../../kit/attack/fleet.ts'
import type { Browser, FetchAnswer } from '../../kit/browsers/browser.ts'
import { dropConnection, field } from '../../kit/local-server.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { verdict } from '../../kit/shops/shop.ts'
import { steadyNow, steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const TIMEOUT_MS = 1_000
const RESOURCES = ['orders', 'billing']
const PEOPLE = 6
/**
 * A provider of 3, 15 and 40 s for a timeout of 4 s, four times as fast: one answers in time, one after the caller has
 * given up, one after the lock, too, has ended.
 */
const LATENCIES = { prompt: 750, late: 3_750, endless: 10_000 }
/** A lock of 4 s, 5 s for its holder to come back, and a slow machine. */
const TAKEN_OVER = { withinMs: 25_000, everyMs: 100 }
const BILLING = [200, audienceOf('billing')]

describe('three processes, refresh tokens that are good once', { skip: skipWithoutRedis() }, () => {
  const scope = suiteScope()
  let scene: Awaited<ReturnType<typeof startFleet>>
  let slow: Awaited<ReturnType<typeof askSlowProvider>>
  before(async () => {
    const provider = { timeout: `${TIMEOUT_MS}ms`, reusesRefreshTokens: false }
    scene = await startFleet(scope, { replicas: 3, resources: RESOURCES, provider })
  })

  const ask = (browser: Browser, at: number, path = '/api/billing') =>
    browser.fetch(path, { via: scene.fleet[at]!.listenUrl })
  const ownerOf = (form: [string, string][]) => scene.provider.ownerOf(field(form, 'refresh_token'))
  const refreshesOf = (user: string) =>
    scene.provider.tokenRequests().filter(({ form }) => ownerOf(form) === user).length

  let names = 0
  /** A test that is tried again must not meet what it did before. */
  const newName = (name: string) => `${name}-${++names}`
  /** One person for each latency, at a process of their own. */
  async function askSlowProvider() {
    const people: { user: string; at: number; browser: Browser; key: string }[] = []
    const latencies = new Map<string | undefined, number>()
    for (const [at, [name, latencyMs]] of Object.entries(LATENCIES).entries()) {
      const user = newName(name)
      latencies.set(user, latencyMs)
      people.push({ user, at, ...(await newKey(() => scene.person(user, at))) })
    }
    scene.provider.control.latencyFor = (form) => latencies.get(ownerOf(form))
    const startedAt = steadyNow()
    const answers = people.map(async (person) => {
      const before = steadyNow()
      const answer = await ask(person.browser, person.at)
      return { ...person, answer, tookMs: steadyNow() - before, version: await versionOf(person.key) }
    })
    return { people: await Promise.all(answers), startedAt }
  }
  const tokenKeys = () => scene.redis.cli('KEYS', 'cloakroom:{*}:tokens')
  async function newKey(signIn: () => Promise<Browser>) {
    const known = await tokenKeys()
    const browser = await signIn()
    const key = (await tokenKeys()).find((name) => !known.includes(name)) ?? ''
    return { browser, key }
  }
  const versionOf = async (key: string) => (await scene.redis.cli('HGET', key, 'v'))[0]

  test('G4: a provider of 0.75, 3.75 and 10 times the timeout: the first is waited for, the others are given up', async () => {
    slow = await askSlowProvider()
    const [prompt, ...others] = slow.people
    assert.deepEqual(verdict(prompt!.answer), BILLING)
    for (const { answer, tookMs, user } of others) {
      assert.deepEqual(verdict(answer), [503, 'provider_unavailable'], user)
      assert.ok(Number(answer.headers['retry-after']) >= 1)
      assert.ok(tookMs < TIMEOUT_MS + 1_500, `${user}: ${tookMs} ms`)
      assert.deepEqual(verdict(await ask(scene.browser, 0)), [401, 'session_required'], 'a stranger')
    }
  })

  test('G4: what was given up is not offered again, by any of them: the refresh token may be spent', async () => {
    for (const { browser, user } of slow.people.slice(1)) {
      for (const at of [0, 1, 2]) {
        const answer = await settled(() => ask(browser, at))
        assert.deepEqual(verdict(answer), [401, 'reauthentication_required'], user)
        assert.equal(answer.json().reason, 'refresh_token_uncertain')
        assert.deepEqual(verdict(await ask(browser, at, '/api/orders')), [200, audienceOf('orders')])
      }
      assert.equal(refreshesOf(user), 1)
    }
    assert.equal(scene.provider.counters.reuseDetected, 0)
  })

  test('G4: a process is killed, before the provider rotated and after: one other supersedes it, once', async () => {
    const { provider, fleet, config } = scene
    await scene.reload({ provider: { ...config.provider, reusesRefreshTokens: 'auto' } })
    const [spared, robbed] = [newName('spared'), newName('robbed')]
    const ofSpared = await scene.person(spared, 1)
    const ofRobbed = await scene.person(robbed, 1)
    const reuses = provider.counters.reuseDetected
    provider.control.latencyFor = (form) => (ownerOf(form) === robbed ? 8_000 : 0)
    let isHeld = false
    provider.control.intercept = ({ form }) => {
      const isFirst = ownerOf(form) === spared && !isHeld
      if (isFirst) isHeld = true
      // Neither answered nor worked on: its connection ends with the process.
      return isFirst
    }
    const asking = [ask(ofSpared, 0), ask(ofRobbed, 0)]
    for (const one of asking) one.catch(() => undefined)
    await eventually('both are at the provider', () => isHeld && refreshesOf(robbed) === 1)
    await fleet[0]!.stop('SIGKILL')
    for (const one of asking) await assert.rejects(one)
    provider.control.latencyFor = undefined

    const everyProcess = (browser: Browser) =>
      Promise.all([1, 2, 1, 2].map((at) => settled(() => ask(browser, at))))
    // In this order: a replica that has seen the provider rotate offers no token whose answer another replica may hold.
    const refused = await everyProcess(ofRobbed)
    const served = await everyProcess(ofSpared)
    for (const answer of served) assert.deepEqual(verdict(answer), BILLING)
    assert.equal(refreshesOf(spared), 2, 'once more than was held')
    // The answer was lost between the provider and Redis: the provider sees the token again, once, and ends the grant.
    for (const answer of refused) assert.deepEqual(verdict(answer), [401, 'session_required'])
    assert.deepEqual([refreshesOf(robbed), provider.counters.reuseDetected - reuses], [2, 1])
    for (const at of [1, 2])
      assert.deepEqual(verdict(await ask(ofRobbed, at, '/bff/user')), [401, 'session_required'])
    const cured = await scene.person(robbed, 2)
    assert.deepEqual(verdict(await ask(cured, 1)), BILLING)
  })

  test('G4: answers that come after every caller has given up, or the lock has ended, are written nowhere', async () => {
    await eventually(
      'the last answer would have come',
      () => steadyNow() - slow.startedAt > LATENCIES.endless + 500,
    )
    for (const { key, version, user, browser } of slow.people) {
      assert.equal(await versionOf(key), version, user)
      assert.deepEqual(verdict(await ask(browser, 1, '/api/orders')), [200, audienceOf('orders')])
    }
    assert.deepEqual(await scene.redis.cli('KEYS', 'cloakroom:{*}:refresh-lock'), [])
  })
})

describe('a process that refreshes', { skip: skipWithoutRedis(), concurrency: 2 }, () => {
  test('G4: is killed before the provider did anything: the next one uses the same refresh token, once', async (t) => {
    const { provider, fleet, isRefresh, ask } = await signedIn(t)
    let isFirst = true
    provider.control.intercept = async ({ form }, res) => {
      if (!isRefresh(form) || !isFirst) return false
      isFirst = false
      await fleet[0]!.stop('SIGKILL')
      dropConnection(res)
      return true
    }
    await assert.rejects(ask(0))
    const answer = await settled(() => ask(1))
    assert.equal(answer.status, 200)
    assert.equal(answer.json().aud, audienceOf('billing'))
    assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [1, 0])
  })

  test('G4: is killed after the provider rotated, tokens being good once: the next one offers nothing and asks to sign in', async (t) => {
    const { provider, browser, killFirst, ask, via } = await signedIn(t, { reusesRefreshTokens: false })
    await killFirst()
    const answer = await settled(() => ask(1))
    assert.deepEqual([answer.status, answer.json().reason], [401, 'refresh_token_uncertain'])
    assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [1, 0])
    assert.equal((await browser.fetch('/bff/user', { via: via(1) })).status, 200, 'the session stays')
  })

  test('G4: is killed after the answer of a provider that takes refresh tokens again: the next one gets its token', async (t) => {
    const { provider, killFirst, ask } = await signedIn(t)
    provider.control.rotate = false
    await killFirst()
    const answer = await settled(() => ask(1))
    assert.equal(answer.status, 200)
    assert.equal(provider.counters.refreshCalls, 2)
  })

  test('G4: gives up on a slow provider before its lock ends, and nothing of the late answer is written', async (t) => {
    const { provider, redis, ask, recordField } = await signedIn(t)
    Object.assign(provider.control, { rotate: false, latencyMs: 4_500 })
    const startedAt = performance.now()
    const asking = ask(0)
    await eventually('the provider is asked', () => provider.counters.refreshCalls === 1)
    const [lock = ''] = await redis.cli('KEYS', 'cloakroom:{*}:refresh-lock')
    assert.ok(Number((await redis.cli('PTTL', lock))[0]) > TIMEOUT_MS, 'the lock outlives the call')
    const answer = await asking
    const tookMs = performance.now() - startedAt
    assert.deepEqual([answer.status, answer.json().code], [503, 'provider_unavailable'])
    assert.ok(tookMs < TIMEOUT_MS + 2_500, `${tookMs} ms`)
    const version = await recordField('v')
    await eventually('the late answer was sent', () => performance.now() - startedAt > 5_000)
    assert.equal(await recordField('v'), version)
    provider.control.latencyMs = 0
    assert.equal((await settled(() => ask(1))).status, 200)
  })

  test('G4: stands still until its lock has ended and another took over: what it wakes up with is not written', async (t) => {
    const { provider, fleet, ask, browser, via, recordField } = await signedIn(t)
    Object.assign(provider.control, { rotate: false, latencyMs: 300 })
    const asleep = ask(0)
    await eventually('the provider is asked', () => provider.counters.refreshCalls === 1)
    fleet[0]!.signal('SIGSTOP')
    const answer = await settled(() => ask(1))
    assert.equal(answer.status, 200)
    const [version, token] = [await recordField('v'), await recordField('at:billing')]
    assert.ok(version && token, 'the record is as this test knows it')
    fleet[0]!.signal('SIGCONT')
    const late = await asleep
    assert.ok([200, 503].includes(late.status), String(late.status))
    assert.deepEqual([await recordField('v'), await recordField('at:billing')], [version, token])
    assert.equal((await settled(() => browser.fetch('/api/billing', { via: via(0) }))).status, 200)
    assert.equal(provider.counters.refreshCalls, 2)
  })

  test('stands still, the answers of a provider that rotates in its sockets: nothing is offered again, and the session stays', async (t) => {
    const scene = await signedIn(t)
    const { provider, fleet, via, ask } = scene
    const people = await Promise.all(
      Array.from({ length: PEOPLE }, (_, number) => scene.person(`person-${number}`, number % 2)),
    )
    // Both have seen it rotate.
    assert.deepEqual([(await ask(0)).status, (await ask(1)).status], [200, 200])
    const stock = (browser: (typeof people)[number], at: number) =>
      browser.fetch('/api/billing', { via: via(at) })
    await stock(people[0]!, 0)
    await stock(people[1]!, 1)
    const others = people.slice(2)
    const before = provider.counters.refreshCalls
    provider.control.latencyMs = 300
    const asleep = others.map((browser) => stock(browser, 0).catch(() => undefined))
    await eventually(
      'the provider is asked for all',
      () => provider.counters.refreshCalls === before + others.length,
    )
    fleet[0]!.signal('SIGSTOP')
    const answers = await Promise.all(others.map((browser) => settled(() => stock(browser, 1))))
    fleet[0]!.signal('SIGCONT')
    await Promise.all(asleep)
    const told = answers.map((answer) => `${answer.status} ${answer.json().reason}`)
    assert.deepEqual(new Set(told), new Set(['401 refresh_token_uncertain']))
    const end = (browser: (typeof people)[number]) =>
      eventually('it is served again', async () => (await stock(browser, 1)).status === 200, TAKEN_OVER)
    await Promise.all(others.map(end))
    assert.equal(provider.counters.reuseDetected, 0)
  })
})

/** Two processes; the token for billing has still to be got. */
async function signedIn(t: TestContext, provider: object = {}) {
  const scene = await startFleet(t, {
    replicas: 2,
    resources: RESOURCES,
    provider: { timeout: `${TIMEOUT_MS}ms`, ...provider },
  })
  const { fleet, browser } = scene
  await browser.signIn()
  const via = (index: number) => fleet[index]!.listenUrl
  const ask = (index: number) => browser.fetch('/api/billing', { via: via(index) })
  return {
    ...{ ...scene, via, ask },
    async killFirst() {
      // Longer than a busy machine takes to end a process: its answer must not arrive first.
      scene.provider.control.latencyMs = 4_000
      const asking = ask(0)
      asking.catch(() => undefined)
      await eventually('the provider is asked', () => scene.provider.counters.refreshCalls === 1)
      await fleet[0]!.stop('SIGKILL')
      await assert.rejects(asking)
      scene.provider.control.latencyMs = 0
    },
  }
}

/** What comes once no other process refreshes the session any more. */
function settled(ask: () => Promise<FetchAnswer>): Promise<FetchAnswer> {
  return eventually(
    'another process takes over',
    async () => {
      const answer = await ask()
      if (answer.status === 503) assert.ok(Number(answer.headers['retry-after']) > 0)
      return answer.status === 503 ? undefined : answer
    },
    TAKEN_OVER,
  )
}
