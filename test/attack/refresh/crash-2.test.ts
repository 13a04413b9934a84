import assert from 'node:assert/strict'
import { describe, type TestContext } from 'node:test'
import { audienceOf, startFleet } from '../../kit/attack/fleet.ts'
import type { FetchAnswer } from '../../kit/browsers/browser.ts'
import { dropConnection } from '../../kit/local-server.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const RESOURCES = ['orders', 'billing']
const TIMEOUT_MS = 1_000
const PEOPLE = 6
/** A lock of 4 s, 5 s for whoever held it to come back, and a slow machine. */
const TAKEN_OVER = { withinMs: 25_000, everyMs: 100 }

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
    Object.assign(provider.control, { rotate: false, latencyMs: 6_000 })
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
    await eventually('the late answer was sent', () => performance.now() - startedAt > 6_500)
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

  test('stands still, the answers of a provider that rotates in its sockets: nothing is offered again, and nobody is signed out', async (t) => {
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

/** What comes once the session is not being refreshed by somebody else any more. */
function settled(ask: () => Promise<FetchAnswer>): Promise<FetchAnswer> {
  return eventually(
    'somebody takes over',
    async () => {
      const answer = await ask()
      if (answer.status === 503) assert.ok(Number(answer.headers['retry-after']) > 0)
      return answer.status === 503 ? undefined : answer
    },
    TAKEN_OVER,
  )
}
