import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { sessionHash } from '../../../src/session/session.ts'
import type { SealedTokens } from '../../../src/store/port.ts'
import type { AccessToken, WantedToken } from '../../../src/tokens/record/sealing.ts'
import type { TokenChallenge } from '../../../src/tokens/rejected-token.ts'
import { createAccessTokens } from '../../../src/tokens/tokens.ts'

const HOUR_MS = 3_600_000
const HOLDER = { id: 'id', hash: sessionHash('id'), claims: { sub: 'ada' } }
const RELAY = { kind: 'relay' }

/** One session whose token is in the store and in the copy, and a provider that does as `provider.problem` says. */
function setUp() {
  const clock = { now: 1_800_000_000_000 }
  const token = (value: string): AccessToken => ({
    ...{ value, expiresAt: clock.now + HOUR_MS, renewAt: clock.now + HOUR_MS / 2 },
  })
  const store = { token: token('t-1'), problem: undefined as BffError | undefined }
  const provider = { asked: [] as WantedToken[], problem: undefined as BffError | undefined }
  async function renew(wanted: WantedToken): Promise<AccessToken> {
    provider.asked.push(wanted)
    await new Promise(setImmediate)
    if (provider.problem) throw provider.problem
    const forcedAt = wanted.rejected === undefined ? {} : { forcedAt: clock.now }
    store.token = { ...token(`t-${provider.asked.length + 1}`), ...forcedAt }
    return store.token
  }
  const copied = () => ({ token: store.token })
  const { tokenFor, onRejected } = createAccessTokens({
    renew,
    records: {
      async read() {
        if (store.problem) throw store.problem
        return {} as SealedTokens
      },
    },
    sealer: { openAccessToken: () => store.token },
    copy: { peek: copied, load: async () => copied(), prefetch() {} },
    clock: { now: () => clock.now, monotonicNow: () => clock.now },
  })
  return {
    ...{ clock, store, provider },
    next: async () => (await tokenFor(HOLDER, 'orders')).value,
    isReady: () => !(tokenFor(HOLDER, 'orders') instanceof Promise),
    rejectWith: (challenge: TokenChallenge) =>
      onRejected(HOLDER, 'orders', { token: { value: 't-1' }, challenge, isRepeatable: true }),
    reject: (
      value: string,
      { claims, isRepeatable = true }: { claims?: string; isRepeatable?: boolean } = {},
    ) =>
      onRejected(HOLDER, 'orders', {
        token: { value },
        challenge: claims ? { kind: 'insufficient_claims', claims } : { kind: 'invalid_token' },
        isRepeatable,
      }),
  }
}

const problem = (code: BffError['code']) => new BffError(code, 'no')
const code = (expected: string) => (error: unknown) => error instanceof BffError && error.code === expected

for (const passing of ['provider_unavailable', 'store_unavailable'] as const) {
  test(`a rejected token whose renewal met ${passing} is not sent again, and the next request tries again`, async () => {
    const { provider, next, reject } = setUp()
    provider.problem = problem(passing)
    await assert.rejects(reject('t-1'), code(passing))
    await assert.rejects(next(), code(passing))
    provider.problem = undefined
    assert.equal(await next(), 't-4')
    assert.deepEqual(
      provider.asked.map(({ rejected }) => rejected),
      ['t-1', 't-1', 't-1'],
    )
    const late = await reject('t-1')
    assert.equal(late.kind === 'resend' && late.token.value, 't-4')
    assert.deepEqual(await reject('t-4'), RELAY, 'the minute is used up now')
    assert.equal(provider.asked.length, 3)
  })
}

test('another request that has the rejected token still gets the one of a later attempt', async () => {
  const { provider, reject } = setUp()
  provider.problem = problem('provider_unavailable')
  await assert.rejects(reject('t-1'), code('provider_unavailable'))
  provider.problem = undefined
  const reaction = await reject('t-1')
  assert.equal(reaction.kind === 'resend' && reaction.token.value, 't-3')
})

test('a store that is away while it is looked at uses up nothing', async () => {
  const { store, provider, next, reject } = setUp()
  store.problem = problem('store_unavailable')
  await assert.rejects(reject('t-1'), code('store_unavailable'))
  await assert.rejects(next(), code('store_unavailable'))
  store.problem = undefined
  assert.equal(await next(), 't-2')
  assert.equal(provider.asked.length, 1)
})

test('a minute after it was rejected, a token without a successor is tried once more', async () => {
  const { clock, provider, next, reject } = setUp()
  provider.problem = problem('provider_unavailable')
  await assert.rejects(reject('t-1'))
  clock.now += 59_000
  await assert.rejects(next())
  clock.now += 1_000
  assert.equal(await next(), 't-1')
})

test('an answer that is a refusal uses up the minute, and the token is used on', async () => {
  const { clock, provider, isReady, next, reject } = setUp()
  provider.problem = problem('reauthentication_required')
  await assert.rejects(reject('t-1'), code('reauthentication_required'))
  assert.ok(isReady())
  assert.equal(await next(), 't-1')
  await assert.rejects(reject('t-1'), code('reauthentication_required'))
  assert.equal(provider.asked.length, 1)
  clock.now += 60_000
  provider.problem = undefined
  const reaction = await reject('t-1')
  assert.equal(reaction.kind === 'resend' && reaction.token.value, 't-3')
})

test('a token that lacks claims for one request is good for the others, and a renewal with them may be tried again', async () => {
  const { provider, isReady, next, reject } = setUp()
  provider.problem = problem('provider_unavailable')
  await assert.rejects(reject('t-1', { claims: '{}' }), code('provider_unavailable'))
  assert.ok(isReady())
  assert.equal(await next(), 't-1')
  provider.problem = undefined
  const reaction = await reject('t-1', { claims: '{}' })
  assert.equal(reaction.kind === 'resend' && reaction.token.value, 't-3')
})

test('after a request that could not be sent again the next one waits for the new token', async () => {
  const { provider, next, reject } = setUp()
  assert.deepEqual(await reject('t-1', { isRepeatable: false }), RELAY)
  assert.equal(await next(), 't-2')
  assert.equal(provider.asked.length, 1)
})

test('rejections and new requests at the same time are one renewal', async () => {
  const { provider, next, reject } = setUp()
  const rejections = Array.from({ length: 20 }, () => reject('t-1'))
  const values = await Promise.all(Array.from({ length: 20 }, next))
  for (const reaction of await Promise.all(rejections))
    assert.equal(reaction.kind === 'resend' && reaction.token.value, 't-2')
  assert.deepEqual(new Set(values), new Set(['t-2']))
  assert.equal(provider.asked.length, 1)
})

test('a late word on an older token does not bring back the one that was rejected after it', async () => {
  const { provider, next, reject } = setUp()
  provider.problem = problem('provider_unavailable')
  await assert.rejects(reject('t-1'))
  await assert.rejects(reject('t-0'), code('provider_unavailable'))
  await assert.rejects(next(), code('provider_unavailable'))
  provider.problem = undefined
  const reaction = await reject('t-0')
  assert.equal(reaction.kind === 'resend' && reaction.token.value, 't-5')
  for (const { rejected } of provider.asked) assert.equal(rejected, 't-1')
})

test('a token that another replica replaced costs no renewal, and the new one may be rejected in the same minute', async () => {
  const { store, provider, isReady, reject } = setUp()
  store.token = { ...store.token, value: 't-x' }
  const reaction = await reject('t-1')
  assert.equal(reaction.kind === 'resend' && reaction.token.value, 't-x')
  assert.ok(isReady())
  const again = await reject('t-x')
  assert.equal(again.kind === 'resend' && again.token.value, 't-2')
  assert.equal(provider.asked.length, 1)
})

test('a token that another replica forced within the minute is used on', async () => {
  const { clock, store, provider, isReady, next, reject } = setUp()
  store.token = { ...store.token, forcedAt: clock.now - 30_000 }
  assert.deepEqual(await reject('t-1'), RELAY)
  assert.ok(isReady())
  assert.equal(await next(), 't-1')
  assert.equal(provider.asked.length, 0)
})

test('what a sign-in cures says what the next one must bring', async () => {
  const { provider, rejectWith } = setUp()
  const challenge = { kind: 'insufficient_user_authentication', acrValues: 'mfa', maxAge: 60 } as const
  await assert.rejects(rejectWith(challenge), {
    code: 'reauthentication_required',
    stepUp: { resource: 'orders', acrValues: 'mfa', maxAge: 60 },
    details: { reason: 'insufficient_user_authentication' },
  })
  assert.equal(provider.asked.length, 0)
})

test('claims that a new token did not bring are asked for in a sign-in', async () => {
  const { provider, reject } = setUp()
  const first = await reject('t-1', { claims: '{"a":1}' })
  assert.equal(first.kind === 'resend' && first.token.value, 't-2')
  assert.equal(provider.asked[0]?.claims, '{"a":1}')
  await assert.rejects(reject('t-2', { claims: '{"a":1}' }), {
    code: 'reauthentication_required',
    stepUp: { resource: 'orders', claims: '{"a":1}' },
    details: { reason: 'insufficient_claims' },
  })
  assert.equal(provider.asked.length, 1)
})

test('a replacement that expires now is none', async () => {
  for (const [lifeMs, value, asked] of [
    [1, 't-x', 0],
    [0, 't-2', 1],
  ] as const) {
    const { clock, store, provider, reject } = setUp()
    store.token = { value: 't-x', expiresAt: clock.now + lifeMs, renewAt: clock.now }
    const reaction = await reject('t-1')
    assert.equal(reaction.kind === 'resend' && reaction.token.value, value)
    assert.equal(provider.asked.length, asked)
  }
})

test('a renewal that another replica forced counts for a minute, whichever clock is ahead', async () => {
  for (const [sinceMs, isRelayed] of [
    [59_999, true],
    [-59_999, true],
    [60_000, false],
    [-60_000, false],
  ] as const) {
    const { clock, store, reject } = setUp()
    store.token = { ...store.token, forcedAt: clock.now - sinceMs }
    assert.equal((await reject('t-1')).kind === 'relay', isRelayed, `${sinceMs} ms`)
  }
})

test('a request that cannot be sent again is answered at once, even if the renewal fails', async () => {
  const { provider, reject } = setUp()
  provider.problem = problem('provider_unavailable')
  assert.deepEqual(await reject('t-1', { isRepeatable: false }), RELAY)
  await new Promise(setImmediate)
  await new Promise(setImmediate)
  assert.equal(provider.asked.length, 1)
})

test('a rejected token stays out of use although the one that came for it is rejected, too', async () => {
  const { store, next, reject } = setUp()
  const first = store.token
  assert.equal((await reject('t-1')).kind, 'resend')
  assert.deepEqual(await reject('t-2'), RELAY)
  // As a replica has it whose copy is older.
  store.token = first
  assert.equal(await next(), 't-2')
})

test('a token that another replica stored and that is rejected as well is not sent again either', async () => {
  const { store, provider, next, reject } = setUp()
  provider.problem = problem('provider_unavailable')
  await assert.rejects(reject('t-1'), code('provider_unavailable'))
  store.token = { ...store.token, value: 't-9' }
  assert.equal(await next(), 't-9')
  await assert.rejects(reject('t-9'), code('provider_unavailable'))
  await assert.rejects(next(), code('provider_unavailable'))
})
