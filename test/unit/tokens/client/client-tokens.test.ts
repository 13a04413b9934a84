import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { systemClock } from '../../../../src/async/clock.ts'
import type { Config } from '../../../../src/config/config.ts'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { BffError } from '../../../../src/errors.ts'
import { createMemoryStore } from '../../../../src/store/memory/memory-store.ts'
import type { ClientTokenRecords } from '../../../../src/store/port.ts'
import { createClientTokens } from '../../../../src/tokens/client/client-tokens.ts'
import { createSharedClientTokens } from '../../../../src/tokens/client/shared-client-tokens.ts'
import { createSealing } from '../../../../src/tokens/record/sealing.ts'

const HOUR_MS = 3_600_000
const GRANTS = {
  provider: { issuer: 'https://id.example.com', clientId: 'shop' },
  resources: { audit: { name: 'audit', scopes: ['audit/.default'], grant: 'client_credentials' } },
} as unknown as Pick<Config, 'provider' | 'resources'>

/** Any number of replicas over one memory store, each with its own copy, and a provider that counts. */
function setUp(t: TestContext) {
  const clock = { now: 1_800_000_000_000 }
  const now = () => clock.now
  const store = createMemoryStore({ idleTimeoutMs: () => HOUR_MS, monotonicNow: now })
  t.after(() => store.close())
  const sealing = createSealing([randomBytes(32)])
  const provider = { calls: 0, problem: undefined as BffError | undefined }
  async function grant(resource: string) {
    provider.calls += 1
    const accessToken = `${resource}-${provider.calls}`
    await new Promise(setImmediate)
    if (provider.problem) throw provider.problem
    return { accessToken, obtainedAt: clock.now, expiresAt: clock.now + HOUR_MS }
  }
  function replica({
    credential = 'hush',
    records = store.clientTokens,
  }: {
    credential?: string
    records?: ClientTokenRecords
  } = {}) {
    const clientAuth = { method: 'client_secret_basic', secret: new Secret(() => credential) }
    const config = { ...GRANTS, provider: { ...GRANTS.provider, clientAuth } } as unknown as typeof GRANTS
    const shared = createSharedClientTokens({ records, sealing, now, config })
    return createClientTokens({
      ...{ grant, shared, lockTtlMs: 4_000 },
      clock: { now, monotonicNow: now, pause: systemClock.pause },
      admit: (work) => work(),
    })
  }
  return { clock, provider, replica, store }
}

const rejected = (value: string, isRepeatable = true) => ({
  token: { value },
  challenge: { kind: 'invalid_token' } as const,
  isRepeatable,
})

test('replicas that need it at the same time ask for it once', async (t) => {
  const { provider, replica } = setUp(t)
  const replicas = [replica(), replica(), replica()]
  const all = await Promise.all([...replicas, ...replicas].map(async ({ tokenFor }) => tokenFor('audit')))
  assert.deepEqual([new Set(all.map(({ value }) => value)), provider.calls], [new Set(['audit-1']), 1])
  assert.ok(!(replicas[0]!.tokenFor('audit') instanceof Promise), 'from then on from the copy')
})

test('near its end it is used on while one replica renews it in the background', async (t) => {
  const { clock, provider, replica } = setUp(t)
  const [a, b] = [replica(), replica()]
  for (const { tokenFor } of [a, b]) await tokenFor('audit')
  clock.now += HOUR_MS - 299_000
  assert.equal((await a.tokenFor('audit')).value, 'audit-1')
  assert.equal((await b.tokenFor('audit')).value, 'audit-1')
  for (const { tokenFor } of [a, b])
    while ((await tokenFor('audit')).value === 'audit-1') await new Promise(setImmediate)
  assert.equal(provider.calls, 2)
})

test('a rejected token is replaced once in a minute, by whichever replica was first', async (t) => {
  const { clock, provider, replica } = setUp(t)
  const [a, b] = [replica(), replica()]
  for (const { tokenFor } of [a, b]) await tokenFor('audit')
  const resent = await Promise.all([
    a.onRejected('audit', rejected('audit-1')),
    a.onRejected('audit', rejected('audit-1')),
    b.onRejected('audit', rejected('audit-1')),
  ])
  for (const reaction of resent) assert.equal(reaction.kind === 'resend' && reaction.token.value, 'audit-2')
  for (const { onRejected } of [a, b])
    assert.deepEqual(await onRejected('audit', rejected('audit-2')), { kind: 'relay' })
  assert.equal(provider.calls, 2)
  clock.now += 61_000
  assert.equal((await a.onRejected('audit', rejected('audit-2'))).kind, 'resend')
  assert.equal(provider.calls, 3)
})

test('a request that cannot be sent again, and what a user would have to cure, go back to the client', async (t) => {
  const { provider, replica } = setUp(t)
  const { tokenFor, onRejected } = replica()
  await tokenFor('audit')
  const challenge = { kind: 'insufficient_claims', claims: '{}' } as const
  assert.deepEqual(await onRejected('audit', { ...rejected('audit-1'), challenge }), { kind: 'relay' })
  assert.equal(provider.calls, 1)
  assert.deepEqual(await onRejected('audit', rejected('audit-1', false)), { kind: 'relay' })
  assert.equal((await tokenFor('audit')).value, 'audit-2', 'the next request has a new one')
})

test('a rejected token whose replacement is not to be had serves the others until it is', async (t) => {
  const { clock, provider, replica } = setUp(t)
  const { tokenFor, onRejected } = replica()
  await tokenFor('audit')
  provider.problem = new BffError('provider_unavailable', 'away')
  await assert.rejects(onRejected('audit', rejected('audit-1')))
  assert.equal((await tokenFor('audit')).value, 'audit-1', 'it may be good elsewhere')
  assert.equal(provider.calls, 2, 'and the provider is not hammered')
  provider.problem = undefined
  clock.now += 6_000
  const late = await onRejected('audit', rejected('audit-1'))
  assert.equal(late.kind === 'resend' && late.token.value, 'audit-3')
  assert.equal((await tokenFor('audit')).value, 'audit-3')
  assert.deepEqual(await onRejected('audit', rejected('audit-3')), { kind: 'relay' })
  assert.equal(provider.calls, 3)
})

test('a refusal to replace it is an answer: the provider is asked again after a minute', async (t) => {
  const { clock, provider, replica } = setUp(t)
  const { tokenFor, onRejected } = replica()
  await tokenFor('audit')
  provider.problem = new BffError('provider_rejected', 'no')
  for (let call = 0; call < 3; call += 1) {
    await assert.rejects(onRejected('audit', rejected('audit-1')))
    assert.equal((await tokenFor('audit')).value, 'audit-1', 'there is no other')
    clock.now += 19_000
  }
  assert.equal(provider.calls, 2)
  clock.now += 4_000
  provider.problem = undefined
  assert.equal((await onRejected('audit', rejected('audit-1'))).kind, 'resend')
})

test('a provider that refuses is not asked by every request', async (t) => {
  const { clock, provider, replica } = setUp(t)
  const { tokenFor } = replica()
  provider.problem = new BffError('provider_rejected', 'no')
  for (let call = 0; call < 5; call += 1) await assert.rejects(async () => tokenFor('audit'))
  assert.equal(provider.calls, 1)
  provider.problem = undefined
  clock.now += 6_000
  assert.equal((await tokenFor('audit')).value, 'audit-2')
})

test('without the store each replica has its own', async (t) => {
  const { provider, replica } = setUp(t)
  const away = () => Promise.reject(new BffError('store_unavailable', 'away'))
  const records = { read: away, write: away, lock: away, unlock: away }
  const { tokenFor } = replica({ records })
  assert.equal((await tokenFor('audit')).value, 'audit-1')
  assert.equal((await tokenFor('audit')).value, 'audit-1')
  assert.equal(provider.calls, 1)
})

test('a lock that is not given back keeps others waiting for no longer than it lasts', async (t) => {
  const { clock, replica, store } = setUp(t)
  const asked: string[] = []
  const records = {
    ...store.clientTokens,
    async lock(key: string, owner: string, ttlMs: number) {
      if (asked.push(key) === 1) await store.clientTokens.lock(key, 'somebody who died', ttlMs)
      else clock.now += 1_000
      return store.clientTokens.lock(key, owner, ttlMs)
    },
  }
  assert.equal((await replica({ records }).tokenFor('audit')).value, 'audit-1')
  assert.equal(asked.length, 5)
})

test("what the store holds opens with the client's credential only, not with the session keys alone", async (t) => {
  const { provider, replica, store } = setUp(t)
  const written: [key: string, sealed: string][] = []
  const records: ClientTokenRecords = {
    ...store.clientTokens,
    write(key, sealed, ttlMs) {
      written.push([key, sealed])
      return store.clientTokens.write(key, sealed, ttlMs)
    },
  }
  await replica({ records }).tokenFor('audit')
  assert.equal(written.length, 1)
  assert.ok(!JSON.stringify(written).includes('audit'))
  assert.equal((await replica().tokenFor('audit')).value, 'audit-1')
  assert.equal((await replica({ credential: 'another' }).tokenFor('audit')).value, 'audit-2')
  assert.equal(provider.calls, 2)
})
