import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Finding } from '../../../../src/oidc/token-endpoint/limiter.ts'
import {
  ask,
  bad,
  fail,
  good,
  held,
  NETWORK_ERROR,
  refusal,
  settle,
  setUp,
} from '../../../kit/provider/limiter-kit.ts'

test('the breaker opens after 5 faults in a row, refuses at once, and one good probe closes it', async () => {
  const { limiter, seen, tick } = setUp()
  await fail(limiter, 4)
  assert.equal(await ask(limiter, good), 'token')
  await fail(limiter, 5)
  assert.deepEqual(seen.states, ['open'])
  const nobody = async () => assert.fail('the provider was asked')
  assert.deepEqual(await refusal(ask(limiter, nobody)), { code: 'provider_unavailable', retryAfter: 2 })
  await tick(1_001)
  assert.deepEqual(await refusal(limiter.admit(nobody)), { code: 'provider_unavailable', retryAfter: 1 })
  await tick(999)

  const probe = held()
  const probing = ask(limiter, probe.script)
  await settle()
  assert.ok(probe.isSent())
  assert.deepEqual(seen.states, ['open', 'half-open'])
  assert.equal((await refusal(ask(limiter, nobody))).retryAfter, 1)
  probe.resolve('token')
  assert.equal(await probing, 'token')
  assert.deepEqual(seen.states, ['open', 'half-open', 'closed'])
  await fail(limiter, 4)
  assert.equal(await ask(limiter, good), 'token')
})

test('each probe that fails doubles the pause, up to 30 s', async () => {
  const { limiter, tick } = setUp()
  await fail(limiter, 5)
  const pauses: unknown[] = []
  for (let probe = 0; probe < 6; probe += 1) {
    const { retryAfter } = await refusal(ask(limiter, good))
    pauses.push(retryAfter)
    await tick((retryAfter ?? 0) * 1_000)
    await fail(limiter, 1)
  }
  assert.deepEqual(pauses, [2, 4, 8, 16, 30, 30])
})

test('a provider that says how long is left alone that long, at most 300 s', async (t) => {
  for (const [asked, given] of [
    [60, 60],
    [3_600, 300],
    [undefined, 2],
  ]) {
    await t.test(`Retry-After: ${asked}`, async () => {
      const { limiter, tick } = setUp()
      await fail(limiter, 5, { status: 503, retryAfterSeconds: asked })
      assert.equal((await refusal(ask(limiter, good))).retryAfter, given)
      await tick(given! * 1_000)
      assert.equal(await ask(limiter, good), 'token')
    })
  }
})

test('answers of 4xx never open it, and are a sign of life between faults', async () => {
  const { limiter, seen } = setUp()
  await fail(limiter, 20, { status: 400, body: { error: 'invalid_grant' } })
  await fail(limiter, 20, { status: 400, body: { error: 'temporarily_unavailable' } })
  await fail(limiter, 20, { status: 429, body: { error: 'invalid_grant', error_codes: [50196] } })
  for (let round = 0; round < 5; round += 1) {
    await fail(limiter, 4)
    await fail(limiter, 1, { status: 401, body: { error: 'invalid_client' } })
  }
  assert.deepEqual(seen.states, [])
  assert.equal(await ask(limiter, good), 'token')
})

test('what was sent before the breaker opened says nothing about the time after', async () => {
  const { limiter, seen, tick } = setUp()
  const old = Array.from({ length: 6 }, held)
  const late = old.map(({ script }) => ask(limiter, script).catch((error) => error))
  await fail(limiter, 5)
  await tick(2_000)
  const probe = held()
  const probing = ask(limiter, probe.script)
  await settle()
  old[0]!.reject(NETWORK_ERROR)
  await late[0]
  probe.resolve('token')
  await probing
  for (const { reject } of old) reject(NETWORK_ERROR)
  await Promise.all(late)
  assert.deepEqual(seen.states, ['open', 'half-open', 'closed'])
})

test('an answer to what was sent before the circuit opened does not close it', async () => {
  const { limiter, seen } = setUp()
  const old = held()
  const late = ask(limiter, old.script)
  await fail(limiter, 5)
  old.resolve('token')
  assert.equal(await late, 'token')
  assert.deepEqual(seen.states, ['open'])
  assert.equal((await refusal(ask(limiter, good))).retryAfter, 2)
})

test('a probe that was never sent leaves the turn to the next', async () => {
  const { limiter, seen, tick } = setUp()
  await fail(limiter, 5)
  await tick(2_000)
  await limiter.admit(async () => undefined)
  await assert.rejects(
    ask(limiter, () => Promise.reject(new Error('a bad callback'))),
    /a bad callback/,
  )
  assert.equal(seen.states.at(-1), 'open')
  assert.equal(await ask(limiter, good), 'token')
  assert.equal(seen.states.at(-1), 'closed')
})

test('work that was admitted before the breaker opened does not ask the provider any more', async () => {
  const { limiter } = setUp()
  const lock = held()
  const work = limiter.admit(async () => {
    await lock.script()
    return ask(limiter, async () => assert.fail('the provider was asked'))
  })
  await fail(limiter, 5)
  lock.resolve(undefined)
  assert.equal((await refusal(work)).retryAfter, 2)
})

test('a call is timed from when it is sent, in seconds', async () => {
  const { limiter, seen, tick } = setUp({ concurrency: 1 })
  const [first, second] = [held(), held()]
  const calls = [ask(limiter, first.script), ask(limiter, second.script)]
  await tick(1_500)
  first.resolve('token')
  await settle()
  await tick(250)
  second.resolve('token')
  await Promise.all(calls)
  assert.deepEqual(seen.seconds, [1.5, 0.25])
})

test('a page counts again after any answer, because the circuit counts anew too', async () => {
  for (const answer of ['ok', 'refused'] as const) {
    const { limiter, seen } = setUp()
    const page = () =>
      limiter.call('refresh_token', bad, () => ({ kind: 'page', holder: 'a' })).catch(() => undefined)
    await page()
    if (answer === 'ok') await ask(limiter, good)
    else await limiter.call('refresh_token', bad, () => ({ kind: 'refused' })).catch(() => undefined)
    await page()
    await fail(limiter, 4)
    assert.deepEqual(seen.states, ['open'], answer)
  }
})

test('each call is timed by its grant and outcome; one that was never sent is none', async () => {
  const { limiter, seen } = setUp()
  await limiter.call('authorization_code', good, () => assert.fail())
  for (const kind of ['refused', 'fault', 'nothing'] as const) {
    const found = (): Finding => ({ kind })
    await assert.rejects(limiter.call('client_credentials', bad, found))
  }
  assert.deepEqual(seen.calls, [
    'authorization_code ok',
    'client_credentials refused',
    'client_credentials fault',
  ])
})
