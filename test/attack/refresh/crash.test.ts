import assert from 'node:assert/strict'
import { after, before, describe } from 'node:test'
import { audienceOf, startFleet } from '../../kit/attack/fleet.ts'
import type { Browser, FetchAnswer } from '../../kit/browsers/browser.ts'
import { field } from '../../kit/local-server.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { verdict } from '../../kit/shops/shop.ts'
import { steadyNow, steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const TIMEOUT_MS = 1_000
/**
 * A provider of 3, 15 and 40 s for a timeout of 4 s, four times as fast: one answers in time, one after the caller has
 * given up, one after the lock, too, has ended.
 */
const LATENCIES = { prompt: 750, late: 3_750, endless: 10_000 }
const TAKEN_OVER = { withinMs: 25_000, everyMs: 100 }
const BILLING = [200, audienceOf('billing')]

describe('three processes, refresh tokens that are good once', { skip: skipWithoutRedis() }, () => {
  const cleanUps: (() => unknown)[] = []
  let scene: Awaited<ReturnType<typeof startFleet>>
  let slow: Awaited<ReturnType<typeof askSlowProvider>>
  before(async () => {
    const scope = { after: (cleanUp: () => unknown) => void cleanUps.push(cleanUp) }
    const provider = { timeout: `${TIMEOUT_MS}ms`, reusesRefreshTokens: false }
    scene = await startFleet(scope, { replicas: 3, resources: ['orders', 'billing'], provider })
  })
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
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

    const everybody = (browser: Browser) =>
      Promise.all([1, 2, 1, 2].map((at) => settled(() => ask(browser, at))))
    // In this order: whoever has seen the provider rotate offers nothing that another replica may hold the answer to.
    const refused = await everybody(ofRobbed)
    const served = await everybody(ofSpared)
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

  test('G4: answers that come after everybody has given up, or the lock has ended, are written nowhere', async () => {
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

/** What comes once the session is not being refreshed by somebody else any more. */
function settled(ask: () => Promise<FetchAnswer>): Promise<FetchAnswer> {
  return eventually(
    'somebody takes over',
    async () => {
      const answer = await ask()
      return answer.status === 503 ? undefined : answer
    },
    TAKEN_OVER,
  )
}
