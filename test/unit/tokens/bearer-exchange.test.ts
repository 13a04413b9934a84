import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { createBearerExchange } from '../../../src/tokens/bearer-exchange.ts'
import type { TokenExchangeGrant } from '../../../src/tokens/token-exchange.ts'

const START = 1_800_000_000_000
const HOUR_MS = 3_600_000

function setUp() {
  const time = { now: START }
  const asked: Parameters<TokenExchangeGrant>[0][] = []
  const provider: { refuse?: BffError; lifeMs: number } = { lifeMs: HOUR_MS }
  const clock = { now: () => time.now, monotonicNow: () => time.now }
  const exchanged = createBearerExchange({
    async exchangeGrant(request) {
      asked.push(request)
      if (provider.refuse) throw provider.refuse
      const accessToken = `at-${asked.length}`
      return { accessToken, obtainedAt: time.now, expiresAt: time.now + provider.lifeMs }
    },
    clock,
  })
  const bearer = (name: string, lifeMs = HOUR_MS) => ({
    ...{ value: `token-${name}`, hash: `hash-${name}`, claims: { sub: name } },
    expiresAt: START + lifeMs,
  })
  const given = async (name: string, resource = 'orders', lifeMs?: number) =>
    (await exchanged(bearer(name, lifeMs), resource)).value
  const refusal = async (name: string) => {
    const error = await given(name).catch((reason) => reason)
    assert.ok(error instanceof BffError)
    return error
  }
  return { time, asked, provider, given, refusal }
}

test('a token is exchanged once for each resource, however many ask, and never for another client', async () => {
  const { asked, given } = setUp()
  const [first, ...others] = await Promise.all(Array.from({ length: 10 }, () => given('alice')))
  assert.ok(others.every((one) => one === first))
  assert.equal(await given('alice'), first)
  assert.notEqual(await given('bob'), first)
  assert.notEqual(await given('alice', 'billing'), first)
  assert.deepEqual(
    asked.map(({ resource, subjectToken }) => [resource, subjectToken]),
    [
      ['orders', 'token-alice'],
      ['orders', 'token-bob'],
      ['billing', 'token-alice'],
    ],
  )
})

test('it is kept for five minutes, or as long as either token lasts', async () => {
  const { time, asked, provider, given } = setUp()
  await given('alice')
  await given('short', 'orders', 60_000)
  time.now += 59_000
  await given('alice')
  await given('short', 'orders', 60_000)
  assert.equal(asked.length, 2)
  time.now += 2_000
  await given('short', 'orders', 600_000)
  assert.equal(asked.length, 3)
  time.now += 240_000
  await given('alice')
  assert.equal(asked.length, 4)
  provider.lifeMs = 100_000
  await given('carol')
  time.now += 51_000
  await given('carol')
  assert.equal(asked.length, 6)
})

test('a refusal is remembered for a moment, so that no storm reaches the provider', async () => {
  const { time, asked, provider, refusal, given } = setUp()
  provider.refuse = new BffError('provider_unavailable', 'away', { retryAfterSeconds: 7 })
  assert.equal((await refusal('alice')).code, 'provider_unavailable')
  assert.equal((await refusal('alice')).code, 'provider_unavailable')
  assert.equal(asked.length, 1)
  time.now += 8_000
  delete provider.refuse
  assert.equal(await given('alice'), 'at-2')
})

test('what a sign-in would cure is told as a challenge, without a way to sign in', async () => {
  const { provider, refusal } = setUp()
  const details = { reason: 'interaction_required' }
  const stepUp = { resource: 'orders', claims: '{"access_token":{}}' }
  provider.refuse = new BffError('reauthentication_required', 'again', { details, stepUp })
  for (const error of [await refusal('alice'), await refusal('alice')]) {
    assert.deepEqual(
      [error.code, error.details, error.stepUp],
      ['reauthentication_required', details, undefined],
    )
    assert.equal(error.offersLogin, false)
    const claims = Buffer.from(stepUp.claims).toString('base64')
    assert.deepEqual(error.headers, {
      'www-authenticate': `Bearer error="insufficient_claims", claims="${claims}"`,
    })
  }
  provider.refuse = new BffError('reauthentication_required', 'again', { details })
  assert.deepEqual((await refusal('bob')).headers, { 'www-authenticate': 'Bearer error="invalid_token"' })
})
