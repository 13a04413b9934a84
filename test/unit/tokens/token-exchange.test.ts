import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { sessionHash } from '../../../src/session/session.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import { createSealing, createTokenSealer } from '../../../src/tokens/record/sealing.ts'
import { createTokenExchange, type TokenExchangeGrant } from '../../../src/tokens/token-exchange.ts'

const HOUR_MS = 3_600_000

/** One session whose subject token never ends, and a provider that counts. */
async function setUp(t: TestContext, respond?: TokenExchangeGrant) {
  const clock = { now: 1_800_000_000_000 }
  const store = createMemoryStore({ idleTimeoutMs: () => HOUR_MS, monotonicNow: () => clock.now })
  t.after(() => store.close())
  const sealer = createTokenSealer(createSealing([randomBytes(32)]))
  const id = randomBytes(16).toString('hex')
  const holder = { id, hash: sessionHash(id), claims: { sub: 'ada' } }
  await store.sessions.create(holder.hash, 'sealed')
  await store.tokens.create(holder.hash, { refreshToken: undefined, accessTokens: {} })
  const calls: Parameters<TokenExchangeGrant>[0][] = []
  const exchangeGrant: TokenExchangeGrant = async (request) => {
    calls.push(request)
    if (respond) return respond(request)
    return { accessToken: `at-${calls.length}`, obtainedAt: clock.now, expiresAt: clock.now + HOUR_MS }
  }
  const replica = () =>
    createTokenExchange({
      ...{ exchangeGrant, records: store.tokens, sealer },
      clock: { now: () => clock.now, monotonicNow: () => clock.now },
      subjectTokenFor: () => ({ value: 'subject', expiresAt: 9e15, renewAt: 9e15 }),
    })
  return { clock, store, sealer, holder, calls, replica, wanted: { holder, resource: 'ledger' } }
}

test('callers at once in one process share one exchange, and another replica finds its result', async (t) => {
  const { calls, replica, wanted } = await setUp(t)
  const renew = replica()
  const tokens = await Promise.all([renew(wanted), renew(wanted), renew(wanted)])
  tokens.push(await replica()(wanted))
  assert.deepEqual(new Set(tokens.map(({ value }) => value)), new Set(['at-1']))
  assert.deepEqual(
    calls.map(({ resource, subjectToken, claims }) => [resource, subjectToken, claims]),
    [['ledger', 'subject', undefined]],
  )
})

test('a rejected token is exchanged anew, with the claims that are asked for, and remembers when', async (t) => {
  const { calls, clock, replica, wanted } = await setUp(t)
  await replica()(wanted)
  const token = await replica()({ ...wanted, rejected: 'at-1', claims: '{"access_token":{}}' })
  assert.deepEqual([token.value, token.forcedAt], ['at-2', clock.now])
  assert.equal(calls[1]?.claims, '{"access_token":{}}')
})

test('a refusal is remembered for a while and ends nothing', async (t) => {
  const error = new BffError('reauthentication_required', 'MFA')
  const { calls, clock, replica, store, wanted } = await setUp(t, () => Promise.reject(error))
  const renew = replica()
  for (let call = 0; call < 3; call += 1) await assert.rejects(renew(wanted), error)
  assert.equal(calls.length, 1)
  clock.now += 6_000
  await assert.rejects(renew(wanted), error)
  assert.equal(calls.length, 2)
  assert.ok(await store.sessions.read(wanted.holder.hash))
})

test('a session that ends while its token is exchanged gets none', async (t) => {
  const answer = Promise.withResolvers<{ accessToken: string; obtainedAt: number; expiresAt: number }>()
  const asked = Promise.withResolvers<void>()
  const { replica, store, wanted } = await setUp(t, () => {
    asked.resolve()
    return answer.promise
  })
  const call = replica()(wanted)
  await asked.promise
  await store.sessions.end(wanted.holder.hash)
  answer.resolve({ accessToken: 'late', obtainedAt: 0, expiresAt: 9e15 })
  await assert.rejects(call, (error) => error instanceof BffError && error.code === 'session_required')
  assert.equal(await store.tokens.read(wanted.holder.hash), undefined)
})

test('the same wanted token is shared, one that was rejected or lacks claims is not', async (t) => {
  const { calls, replica, wanted } = await setUp(t)
  const renew = replica()
  const all = [wanted, wanted, { ...wanted, rejected: 'at-0' }, { ...wanted, claims: '{}' }]
  const tokens = await Promise.all(all.map(renew))
  assert.deepEqual([tokens[0] === tokens[1], calls.length], [true, 3])
  assert.equal('forcedAt' in tokens[0]!, false)
})

test('a token in the store is used until it is to be renewed', async (t) => {
  const { calls, clock, replica, wanted } = await setUp(t)
  const renew = replica()
  const { renewAt } = await renew(wanted)
  clock.now = renewAt - 1
  assert.equal((await renew(wanted)).value, 'at-1')
  clock.now = renewAt
  assert.equal((await renew(wanted)).value, 'at-2')
  assert.equal(calls.length, 2)
})

test('a session that has ended before is asked nothing for', async (t) => {
  const { calls, replica, store, wanted } = await setUp(t)
  await store.sessions.end(wanted.holder.hash)
  await assert.rejects(replica()(wanted), { code: 'session_required' })
  assert.equal(calls.length, 0)
})

test('a token that cannot be kept is used all the same', async (t) => {
  const { calls, sealer, clock, store, wanted } = await setUp(t)
  const renew = createTokenExchange({
    exchangeGrant: async (request) => {
      calls.push(request)
      return { accessToken: 'at', obtainedAt: clock.now, expiresAt: clock.now + HOUR_MS }
    },
    subjectTokenFor: () => ({ value: 'subject', expiresAt: 9e15, renewAt: 9e15 }),
    records: {
      read: store.tokens.read,
      keep: () => Promise.reject(new BffError('store_unavailable', 'away')),
    },
    sealer,
    clock: { now: () => clock.now, monotonicNow: () => clock.now },
  })
  assert.equal((await renew(wanted)).value, 'at')
  assert.equal(calls[0]?.session, wanted.holder.hash)
})

test('a refusal is that of one session and one resource', async (t) => {
  const error = new BffError('provider_rejected', 'no')
  const { calls, replica, wanted } = await setUp(t, () => Promise.reject(error))
  const renew = replica()
  await assert.rejects(renew(wanted), error)
  await assert.rejects(renew({ ...wanted, resource: 'stock' }), error)
  assert.deepEqual(
    calls.map(({ resource }) => resource),
    ['ledger', 'stock'],
  )
})
