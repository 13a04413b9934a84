import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { type Clock, systemClock } from '../../../../src/async/clock.ts'
import type { Config } from '../../../../src/config/config.ts'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { BffError } from '../../../../src/errors.ts'
import { createMemoryStore } from '../../../../src/store/memory/memory-store.ts'
import type { ClientTokenRecords } from '../../../../src/store/port.ts'
import { createClientTokens } from '../../../../src/tokens/client/client-tokens.ts'
import {
  createSharedClientTokens,
  type SharedClientTokens,
} from '../../../../src/tokens/client/shared-client-tokens.ts'
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

/** One replica whose shared cache does as it is told, with time that passes when it waits. */
function scripted(shared: Partial<SharedClientTokens> | undefined, lifetimeMs = HOUR_MS) {
  const time = { ms: 0, pauses: [] as number[] }
  const steps: unknown[] = []
  const clock: Pick<Clock, 'now' | 'monotonicNow' | 'pause'> = {
    now: () => time.ms,
    monotonicNow: () => time.ms,
    async pause(ms) {
      time.pauses.push(ms)
      time.ms += ms
    },
  }
  const tokens = createClientTokens({
    async grant(resource) {
      steps.push(['grant', resource])
      return { accessToken: `at-${steps.length}`, obtainedAt: time.ms, expiresAt: time.ms + lifetimeMs }
    },
    shared: shared && {
      read: async () => undefined,
      write: async (...written) => void steps.push(['write', ...written]),
      async lock(resource, _, ttlMs) {
        steps.push(['lock', resource, ttlMs])
        return true
      },
      unlock: async (resource) => void steps.push(['unlock', resource]),
      ...shared,
    },
    async admit(work) {
      steps.push('in')
      try {
        return await work()
      } finally {
        steps.push('out')
      }
    },
    lockTtlMs: 4_000,
    clock,
  })
  return { ...tokens, time, steps }
}
const away = () => Promise.reject(new BffError('store_unavailable', 'away'))

test('without a shared cache the client asks for itself, within a permit', async () => {
  const { tokenFor, steps } = scripted(undefined)
  assert.equal((await tokenFor('audit')).value, 'at-2')
  assert.deepEqual(steps, ['in', ['grant', 'audit'], 'out'])
})

test('the lock is taken within the permit, and given back before it', async () => {
  const { tokenFor, steps } = scripted({})
  const token = await tokenFor('audit')
  assert.deepEqual(steps, [
    'in',
    ['lock', 'audit', 4_000],
    ['grant', 'audit'],
    ['write', 'audit', token],
    ['unlock', 'audit'],
    'out',
  ])
})

test('what another replica brought before the lock was had is used', async () => {
  const theirs = { value: 'theirs', expiresAt: 2, renewAt: 1 }
  let reads = 0
  const { tokenFor, steps } = scripted({
    async read() {
      reads += 1
      return reads === 2 ? theirs : undefined
    },
  })
  assert.equal(await tokenFor('audit'), theirs)
  assert.deepEqual(steps, ['in', ['lock', 'audit', 4_000], ['unlock', 'audit'], 'out'])
})

test('a lock that stays with another replica is waited for as long as it lasts', async () => {
  const { tokenFor, steps, time } = scripted({ lock: async () => false })
  await assert.rejects(async () => tokenFor('audit'), { code: 'provider_unavailable', retryAfterSeconds: 2 })
  assert.ok(time.ms > 4_000 && time.ms <= 4_050, `${time.ms} ms`)
  assert.ok(time.pauses.every((ms) => ms >= 25 && ms < 50))
  assert.equal(steps.length, 2 * (time.pauses.length + 1), 'no permit is held meanwhile')
})

test('a store that is away is no reason to go without a token', async () => {
  for (const broken of [{ lock: away, unlock: away }, { write: away }, { read: away }, { unlock: away }]) {
    const { tokenFor, steps } = scripted(broken)
    assert.match((await tokenFor('audit')).value, /^at-/)
    assert.ok(steps.some((step) => Array.isArray(step) && step[0] === 'grant'))
  }
})

test('a token of the client is renewed from its time on, and waited for once it has expired', async () => {
  const { tokenFor, steps, time } = scripted(undefined)
  const first = await tokenFor('audit')
  time.ms = first.renewAt - 1
  assert.equal(tokenFor('audit'), first)
  assert.equal(steps.length, 3)
  time.ms = first.renewAt
  assert.equal(tokenFor('audit'), first)
  await new Promise(setImmediate)
  assert.equal(steps.length, 6, 'renewed in the background')
  const second = await tokenFor('audit')
  assert.notEqual(second, first)
  time.ms = second.expiresAt
  assert.ok(tokenFor('audit') instanceof Promise)
})

test('only a forced token says when it was forced', async () => {
  const { tokenFor, onRejected, time } = scripted(undefined)
  const first = await tokenFor('audit')
  assert.equal('forcedAt' in first, false)
  time.ms = 7
  const reaction = await onRejected('audit', rejected(first.value))
  assert.equal(reaction.kind === 'resend' && reaction.token.forcedAt, 7)
})

test('a client without a lasting credential shares nothing', () => {
  const deps = { records: {} as ClientTokenRecords, sealing: createSealing([randomBytes(32)]), now: () => 0 }
  const config = { ...GRANTS, provider: { ...GRANTS.provider, clientAuth: { method: 'none' } } }
  assert.equal(createSharedClientTokens({ ...deps, config: config as unknown as typeof GRANTS }), undefined)
})

test('the shared cache is named by the whole definition of a resource, and keeps a token until it expires', async () => {
  const key = new Secret(() => 'a private key')
  const log: unknown[][] = []
  const records: ClientTokenRecords = {
    read: async (name) => void log.push(['read', name]) as undefined,
    write: async (name, _, ttlMs) => void log.push(['write', name, ttlMs]),
    async lock(...request) {
      log.push(['lock', ...request])
      return true
    },
    unlock: async (...request) => void log.push(['unlock', ...request]),
  }
  const shared = (scopes: string[]) => {
    const provider = { ...GRANTS.provider, clientAuth: { method: 'private_key_jwt', key } }
    const resources = { audit: { ...GRANTS.resources.audit, scopes } }
    const config = { provider, resources } as unknown as typeof GRANTS
    return createSharedClientTokens({
      records,
      sealing: createSealing([randomBytes(32)]),
      config,
      now: () => 100,
    })!
  }
  const one = shared(['a'])
  assert.equal(await one.read('audit'), undefined)
  await one.write('audit', { value: 'at', expiresAt: 350.5, renewAt: 300 })
  await one.write('audit', { value: 'at', expiresAt: 50, renewAt: 0 })
  assert.equal(await one.lock('audit', 'me', 7), true)
  await one.unlock('audit', 'me')
  const [[, name] = []] = log
  assert.match(String(name), /^[\w-]{43}$/)
  assert.deepEqual(log, [
    ['read', name],
    ['write', name, 251],
    ['write', name, 1],
    ['lock', name, 'me', 7],
    ['unlock', name, 'me'],
  ])
  await shared(['b']).unlock('audit', 'me')
  assert.notEqual(log[5]?.[1], name)
})

test('a late word on an older token gets the one that took its place, without another grant', async () => {
  const { tokenFor, onRejected, steps, time } = scripted(undefined)
  const first = await tokenFor('audit')
  time.ms = first.expiresAt
  const second = await tokenFor('audit')
  const reaction = await onRejected('audit', rejected(first.value))
  assert.equal(reaction.kind === 'resend' && reaction.token, second)
  assert.equal(tokenFor('audit'), second)
  assert.equal(steps.filter((step) => Array.isArray(step)).length, 2)
})

test('callers at once share a token of one resource, and those of two have their own', async () => {
  const { tokenFor, steps } = scripted(undefined)
  const tokens = await Promise.all([tokenFor('audit'), tokenFor('audit'), tokenFor('stock')])
  assert.equal(tokens[0], tokens[1])
  assert.notEqual(tokens[0], tokens[2])
  assert.deepEqual(
    steps.filter((step) => Array.isArray(step)),
    [
      ['grant', 'audit'],
      ['grant', 'stock'],
    ],
  )
})
