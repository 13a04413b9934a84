import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { systemClock } from '../../../src/async/clock.ts'
import { BffError } from '../../../src/errors.ts'
import { sessionHash } from '../../../src/session/session.ts'
import { createSessionCache } from '../../../src/session/session-cache.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import { createSealing } from '../../../src/tokens/record/sealing.ts'
import type { RefreshGrantOutcome, RefreshGrantRequest } from '../../../src/tokens/refresh/refresh.ts'
import { type CopiedToken, createTokens, type TokensCopy } from '../../../src/tokens/tokens.ts'

type Provider = (request: RefreshGrantRequest) => Promise<RefreshGrantOutcome>

/** One process over a memory store, a settable clock and a scripted provider. */
async function setUp(t: TestContext, respond: Provider, sealing = createSealing([randomBytes(32)])) {
  const clock = { now: 1_800_000_000_000 }
  const now = () => clock.now
  const store = createMemoryStore({ idleTimeoutMs: () => 3_600_000_000, monotonicNow: now })
  t.after(() => store.close())
  const cache = createSessionCache<CopiedToken>({
    invalidations: store.invalidations,
    trustedMs: 5_000,
    max: 100,
    ...{ maxBytes: 1_000_000, monotonicNow: now },
  })
  const copy: TokensCopy = cache
  const requests: RefreshGrantRequest[] = []
  const revoked: string[] = []
  const ended: string[] = []
  const tokens = createTokens({
    store,
    sealing,
    copy,
    provider: {
      refreshGrant: (request) => {
        requests.push(request)
        return respond(request)
      },
      clientCredentialsGrant: async () => assert.fail('no client token is asked for'),
      tokenExchangeGrant: async () => assert.fail('no token is exchanged'),
      admit: (work) => work(),
      revoke: async (token) => void revoked.push(token),
    },
    resources: {},
    reusesRefreshTokens: true,
    providerTimeoutMs: 1_000,
    clock: { now, monotonicNow: now, pause: systemClock.pause },
    observe: { unseenRefresh() {}, refreshLock() {}, sessionEnded: (_, reason) => void ended.push(reason) },
  })
  const id = randomBytes(16).toString('hex')
  const holder = { id, hash: sessionHash(id), claims: { sub: 'ada' } }
  await store.sessions.create(holder.hash, 'sealed')
  await tokens.keepFirst(
    holder,
    {
      refreshToken: 'rt-1',
      accessToken: 'orders-1',
      obtainedAt: clock.now,
      expiresAt: clock.now + 3_600_000,
    },
    'orders',
  )
  return { tokens, holder, clock, store, requests, revoked, ended }
}

/** A provider that rotates at every use. */
function rotating(clockOf: () => number, lifetimeMs = 3_600_000): Provider {
  let generation = 1
  return async ({ resource, keep }) => {
    generation += 1
    await keep(`rt-${generation}`)
    const obtainedAt = clockOf()
    return {
      kind: 'renewed',
      accessToken: `${resource}-${generation}`,
      obtainedAt,
      expiresAt: obtainedAt + lifetimeMs,
    }
  }
}

function code(expected: string) {
  return (error: unknown) => error instanceof BffError && error.code === expected
}

test('the token of the code grant is used, synchronously once it was read', async (t) => {
  const { tokens, holder, requests } = await setUp(t, async () => assert.fail('nothing is refreshed'))
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
  const second = tokens.tokenFor(holder, 'orders')
  assert.ok(!(second instanceof Promise))
  assert.equal(requests.length, 0)
})

test('another resource gets a token of its own from the same refresh token', async (t) => {
  let now = () => 0
  const { tokens, holder, clock, requests } = await setUp(t, (request) => rotating(() => now())(request))
  now = () => clock.now
  assert.equal((await tokens.tokenFor(holder, 'billing')).value, 'billing-2')
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
  assert.deepEqual(
    requests.map(({ refreshToken, resource }) => [refreshToken, resource]),
    [['rt-1', 'billing']],
  )
})

test('within 300 s of its end a token is used on and renewed in the background', async (t) => {
  const done = Promise.withResolvers<void>()
  const clocked = { now: 0 }
  const provider = rotating(() => clocked.now)
  const { tokens, holder, clock, requests } = await setUp(t, async (request) => {
    const outcome = await provider(request)
    done.resolve()
    return outcome
  })
  clock.now += 3_600_000 - 299_000
  clocked.now = clock.now
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
  await done.promise
  while ((await tokens.tokenFor(holder, 'orders')).value === 'orders-1') await new Promise(setImmediate)
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-2')
  assert.equal(requests.length, 1)
})

test('a living token serves while its renewal fails, and the failure is not hammered', async (t) => {
  const error = new BffError('provider_unavailable', 'down', { retryAfterSeconds: 30 })
  const { tokens, holder, clock, requests } = await setUp(t, async () => ({
    kind: 'unavailable',
    error,
    isMaybeUsed: false,
  }))
  clock.now += 3_600_000 - 200_000
  for (let call = 0; call < 20; call += 1) {
    assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
    await new Promise(setImmediate)
  }
  assert.equal(requests.length, 1)
  clock.now += 31_000
  await tokens.tokenFor(holder, 'orders')
  await new Promise(setImmediate)
  assert.equal(requests.length, 2)
})

test('an expired token is renewed before it is used, and never sent', async (t) => {
  const clocked = { now: 0 }
  const { tokens, holder, clock } = await setUp(
    t,
    rotating(() => clocked.now),
  )
  clock.now += 3_600_000
  clocked.now = clock.now
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-2')
})

test('without an answer from the provider an expired token gives provider_unavailable', async (t) => {
  const error = new BffError('provider_unavailable', 'down')
  const { tokens, holder, clock } = await setUp(t, async () => ({
    kind: 'unavailable',
    error,
    isMaybeUsed: false,
  }))
  clock.now += 3_600_000
  await assert.rejects(async () => tokens.tokenFor(holder, 'orders'), code('provider_unavailable'))
})

test('fifty callers for two resources use a refresh token twice, one after the other', async (t) => {
  const clocked = { now: 0 }
  const provider = rotating(() => clocked.now)
  let running = 0
  const { tokens, holder, clock, requests } = await setUp(t, async (request) => {
    running += 1
    assert.equal(running, 1, 'two refreshes at once')
    await new Promise(setImmediate)
    const outcome = await provider(request)
    running -= 1
    return outcome
  })
  clock.now += 3_600_000
  clocked.now = clock.now
  const calls = Array.from({ length: 50 }, async (_, index) =>
    tokens.tokenFor(holder, index % 2 ? 'orders' : 'billing'),
  )
  const values = (await Promise.all(calls)).map(({ value }) => value)
  assert.deepEqual(new Set(values), new Set(['billing-2', 'orders-3']))
  assert.deepEqual(
    requests.map(({ refreshToken }) => refreshToken),
    ['rt-1', 'rt-2'],
  )
})

test('a dead grant ends the session once, and every waiting caller is told to sign in', async (t) => {
  const { tokens, holder, clock, store, ended } = await setUp(t, async () => ({
    kind: 'dead',
    reason: 'invalid_grant',
  }))
  clock.now += 3_600_000
  const calls = Array.from({ length: 5 }, async () => tokens.tokenFor(holder, 'orders'))
  for (const { status } of await Promise.allSettled(calls)) assert.equal(status, 'rejected')
  await assert.rejects(async () => tokens.tokenFor(holder, 'orders'), code('session_required'))
  assert.equal(await store.sessions.read(holder.hash), undefined)
  assert.deepEqual(ended, ['invalid_grant'])
})

test("one resource's refusal leaves session and other resources alone", async (t) => {
  const error = new BffError('reauthentication_required', 'MFA')
  const { tokens, holder } = await setUp(t, async () => ({ kind: 'refused', error, isMaybeUsed: false }))
  await assert.rejects(async () => tokens.tokenFor(holder, 'billing'), code('reauthentication_required'))
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
})

test('a logout while the provider answers: its new refresh token is revoked, nothing is stored, no session revived', async (t) => {
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<void>()
  const { tokens, holder, clock, store, revoked } = await setUp(t, async ({ keep }) => {
    asked.resolve()
    await answer.promise
    await keep('rt-2')
    return assert.fail('the session is gone')
  })
  clock.now += 3_600_000
  const call = (async () => tokens.tokenFor(holder, 'orders'))()
  await asked.promise
  await tokens.end(holder, 'logout')
  answer.resolve()
  await assert.rejects(call, code('session_required'))
  assert.deepEqual(revoked, ['rt-1', 'rt-2'])
  assert.equal(await store.tokens.read(holder.hash), undefined)
})

test('a rotated refresh token is stored even when the rest of the answer is refused', async (t) => {
  const error = new BffError('provider_rejected', 'wrong audience')
  const seen: string[] = []
  const { tokens, holder, clock } = await setUp(t, async ({ refreshToken, keep }) => {
    seen.push(refreshToken)
    await keep(`${refreshToken}+`)
    return { kind: 'refused', error, isMaybeUsed: false }
  })
  await assert.rejects(async () => tokens.tokenFor(holder, 'billing'), code('provider_rejected'))
  clock.now += 61_000
  await assert.rejects(async () => tokens.tokenFor(holder, 'billing'), code('provider_rejected'))
  assert.deepEqual(seen, ['rt-1', 'rt-1+'])
})

test('a refreshed ID token that names another user ends the session', async (t) => {
  const { tokens, holder, ended } = await setUp(t, async () => ({
    kind: 'renewed',
    accessToken: 'a',
    obtainedAt: 0,
    expiresAt: 9e12,
    subject: 'mallory',
  }))
  await assert.rejects(async () => tokens.tokenFor(holder, 'billing'), code('session_required'))
  assert.deepEqual(ended, ['subject_changed'])
})

test('what the store holds is no token in clear', async (t) => {
  const { holder, store } = await setUp(t, async () => assert.fail())
  const text = JSON.stringify(await store.tokens.read(holder.hash))
  assert.ok(!text.includes('rt-1') && !text.includes('orders-1'))
})

test('the times of a token count from the millisecond they name', async (t) => {
  const error = new BffError('provider_unavailable', 'down')
  const down: Provider = async () => ({ kind: 'unavailable', error, isMaybeUsed: false })
  const { tokens, holder, clock, requests } = await setUp(t, down)
  const start = clock.now
  await tokens.tokenFor(holder, 'orders')
  clock.now = start + 3_600_000 - 300_000 - 1
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
  assert.ok(!(tokens.tokenFor(holder, 'orders') instanceof Promise))
  assert.equal(requests.length, 0)
  clock.now += 1
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
  await new Promise(setImmediate)
  assert.equal(requests.length, 1, 'from renewAt on it is renewed in the background')
  clock.now = start + 3_600_000 - 5_000 - 1
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders-1')
  clock.now += 1
  await assert.rejects(async () => tokens.tokenFor(holder, 'orders'), code('provider_unavailable'))
})

test('a session without tokens is told to sign in', async (t) => {
  const { tokens, holder, store } = await setUp(t, async () => assert.fail('nothing is refreshed'))
  await store.sessions.end(holder.hash)
  await assert.rejects(async () => tokens.tokenFor(holder, 'orders'), code('session_required'))
})
