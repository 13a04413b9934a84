import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { type Clock, systemClock } from '../../../../src/async/clock.ts'
import { createInFlightWork, type InFlightWork } from '../../../../src/async/in-flight.ts'
import { BffError } from '../../../../src/errors.ts'
import { sessionHash } from '../../../../src/session/session.ts'
import { createMemoryStore } from '../../../../src/store/memory/memory-store.ts'
import type { TokenWrite } from '../../../../src/store/port.ts'
import { createSealing } from '../../../../src/tokens/record/sealing.ts'
import type { RefreshGrant } from '../../../../src/tokens/refresh/refresh.ts'
import { createTokens } from '../../../../src/tokens/tokens.ts'

/** How a replica differs from one whose store always answers. What it calls may throw. */
type Luck = {
  readonly reuses?: boolean | 'auto'
  /** Before a write other than the mark. */
  readonly write?: () => void
  readonly clock?: Pick<Clock, 'monotonicNow' | 'pause'>
  readonly inFlight?: InFlightWork
  /** Between the store's taking the mark and its answer. */
  readonly afterBegin?: () => void
}

const YEAR_MS = 365 * 24 * 3_600_000

/** One session in a memory store, and any number of replicas on it that differ in their provider and their luck. */
async function setUp(t: TestContext) {
  const now = () => Date.now()
  const store = createMemoryStore({ idleTimeoutMs: () => YEAR_MS, monotonicNow: now })
  t.after(() => store.close())
  const sealing = createSealing([randomBytes(32)])
  const id = randomBytes(16).toString('hex')
  const holder = { id, hash: sessionHash(id), claims: { sub: 'ada' } }
  const revoked: string[] = []

  function replica(refreshGrant: RefreshGrant, luck: Luck = {}) {
    const tokens = {
      ...store.tokens,
      async write(hash: typeof holder.hash, change: TokenWrite) {
        const isBegin = change.attempt?.startsWith('open:')
        if (!isBegin) luck.write?.()
        const outcome = await store.tokens.write(hash, change)
        if (isBegin) luck.afterBegin?.()
        return outcome
      },
    }
    return createTokens({
      store: { sessions: store.sessions, tokens },
      sealing,
      copy: { peek: () => undefined, load: (_key, _hash, read) => read(), prefetch() {} },
      provider: {
        refreshGrant,
        clientCredentialsGrant: async () => assert.fail(),
        tokenExchangeGrant: async () => assert.fail(),
        admit: (work) => work(),
        revoke: async (token) => void revoked.push(token),
      },
      resources: {},
      reusesRefreshTokens: luck.reuses ?? true,
      inFlight: luck.inFlight,
      providerTimeoutMs: 1_000,
      clock: { ...systemClock, ...luck.clock },
      observe: { unseenRefresh() {}, refreshLock() {}, sessionEnded() {} },
    })
  }

  await store.sessions.create(holder.hash, 'sealed')
  const first = { refreshToken: 'rt-1', accessToken: 'old', obtainedAt: now() - 1000, expiresAt: now() }
  await replica(async () => assert.fail()).keepFirst(holder, first, 'orders')
  return { store, holder, replica, revoked }
}

const rotatesTo =
  (refreshToken: string): RefreshGrant =>
  async ({ resource, keep }) => {
    await keep(refreshToken)
    return {
      kind: 'renewed',
      accessToken: `${resource} by ${refreshToken}`,
      obtainedAt: Date.now(),
      expiresAt: Date.now() + 3_600_000,
    }
  }

const code = (expected: string) => (error: unknown) => error instanceof BffError && error.code === expected

test('the token is marked before it is offered, and the mark goes in the same write that brings the next one', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const marks: (string | undefined)[] = []
  const tokens = replica(async (request) => {
    marks.push((await store.tokens.read(holder.hash))?.attempt)
    const outcome = await rotatesTo('rt-2')(request)
    marks.push((await store.tokens.read(holder.hash))?.attempt)
    return outcome
  })
  await tokens.tokenFor(holder, 'orders')
  assert.match(marks[0] ?? '', /^open:/)
  assert.equal(marks[1], undefined)
})

test('an attempt in flight is waited for, and the refresh token is not offered again', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<void>()
  const slow = replica(async (request) => {
    asked.resolve()
    await answer.promise
    return rotatesTo('rt-2')(request)
  })
  const first = (async () => slow.tokenFor(holder, 'orders'))()
  await asked.promise
  const { attempt = '' } = (await store.tokens.read(holder.hash)) ?? {}
  await store.tokens.unlock(holder.hash, attempt.slice('open:'.length)) // its lock has run out
  const other = replica(async () => assert.fail('the old token was offered'))
  const second = (async () => other.tokenFor(holder, 'orders'))()
  while (await store.tokens.lock(holder.hash, 'probe', 1))
    await new Promise((resolve) => setTimeout(resolve, 5))
  answer.resolve()
  assert.equal((await first).value, 'orders by rt-2')
  assert.equal((await second).value, 'orders by rt-2')
})

test('a mark whose write was not answered is taken back: nothing was offered under it', async (t) => {
  const { store, holder, replica } = await setUp(t)
  let timeouts = 2
  const unlucky = replica(async () => assert.fail('offered without a mark'), {
    afterBegin() {
      if (timeouts-- > 0) throw new BffError('store_unavailable', 'no answer in time')
    },
  })
  await assert.rejects((async () => unlucky.tokenFor(holder, 'orders'))(), code('store_unavailable'))
  assert.match((await store.tokens.read(holder.hash))?.attempt ?? '', /^open:/)
  while ((await store.tokens.read(holder.hash))?.attempt)
    await new Promise((resolve) => setTimeout(resolve, 5))
  const cautious = replica(rotatesTo('rt-2'), { reuses: false })
  assert.equal((await cautious.tokenFor(holder, 'orders')).value, 'orders by rt-2')
})

test('an attempt whose owner never comes back counts as unanswered after a while', async (t) => {
  const { store, holder, replica } = await setUp(t)
  await store.tokens.write(holder.hash, { expectedVersion: 1, attempt: 'open:dead-replica' })
  const token = await replica(rotatesTo('rt-2'), { clock: passingTime() }).tokenFor(holder, 'orders')
  assert.equal(token.value, 'orders by rt-2')
})

test('with reusesRefreshTokens: false a token whose answer was lost is never offered again', async (t) => {
  const { holder, replica } = await setUp(t)
  const error = new BffError('provider_unavailable', 'timeout', { retryAfterSeconds: 1 })
  const lost = replica(async () => ({ kind: 'unavailable', error, isMaybeUsed: true }))
  await assert.rejects(async () => lost.tokenFor(holder, 'orders'), code('provider_unavailable'))
  const strict = replica(async () => assert.fail('it was offered'), { reuses: false })
  await assert.rejects(async () => strict.tokenFor(holder, 'orders'), code('reauthentication_required'))
  const lenient = replica(rotatesTo('rt-2'))
  assert.equal((await lenient.tokenFor(holder, 'orders')).value, 'orders by rt-2')
})

/** What a provider that rotates before it looks at the resource says of one that it does not serve. */
const refusing: RefreshGrant = async () => {
  const error = new BffError('provider_rejected', 'invalid_target')
  return { kind: 'refused', error, isMaybeUsed: true }
}

test('with auto a token that a refused resource may have used up is not offered to a provider that nothing is known of', async (t) => {
  const { store, holder, replica } = await setUp(t)
  await assert.rejects(async () => replica(refusing).tokenFor(holder, 'billing'), code('provider_rejected'))
  assert.equal((await store.tokens.read(holder.hash))?.attempt, 'burnt')
  const other = replica(async () => assert.fail('it was offered'), { reuses: 'auto' })
  await assert.rejects(async () => other.tokenFor(holder, 'orders'), code('reauthentication_required'))
})

test('with auto a token that a refused resource may have used up is not offered to a provider that rotates', async (t) => {
  const { holder, replica } = await setUp(t)
  const rotating = replica(
    async (request) => {
      if (request.resource === 'billing') return refusing(request)
      assert.equal(request.refreshToken, 'rt-1')
      return rotatesTo('rt-2')(request)
    },
    { reuses: 'auto' },
  )
  await rotating.tokenFor(holder, 'orders')
  await assert.rejects(async () => rotating.tokenFor(holder, 'billing'), code('provider_rejected'))
  await assert.rejects(async () => rotating.tokenFor(holder, 'stock'), code('reauthentication_required'))
  assert.equal((await rotating.tokenFor(holder, 'orders')).value, 'orders by rt-2')
})

test('with auto it is offered to a provider that leaves its refresh tokens as they are', async (t) => {
  const { holder, replica } = await setUp(t)
  const steady = replica(
    async (request) => {
      if (request.resource === 'billing') return refusing(request)
      return rotatesTo('rt-1')({ ...request, keep: async () => undefined })
    },
    { reuses: 'auto' },
  )
  await steady.tokenFor(holder, 'orders')
  await assert.rejects(async () => steady.tokenFor(holder, 'billing'), code('provider_rejected'))
  assert.equal((await steady.tokenFor(holder, 'stock')).value, 'stock by rt-1')
})

test('with auto a token whose answer was lost is offered once more, when it is needed', async (t) => {
  const { holder, replica } = await setUp(t)
  const error = new BffError('provider_unavailable', 'timeout', { retryAfterSeconds: 1 })
  const lost = replica(async () => ({ kind: 'unavailable', error, isMaybeUsed: true }))
  await assert.rejects(async () => lost.tokenFor(holder, 'orders'), code('provider_unavailable'))
  const other = replica(rotatesTo('rt-2'), { reuses: 'auto' })
  assert.equal((await other.tokenFor(holder, 'orders')).value, 'orders by rt-2')
})

test('with auto the token of a replica that died is offered to a provider that no replica has seen rotate', async (t) => {
  const { store, holder, replica } = await setUp(t)
  await store.tokens.write(holder.hash, { expectedVersion: 1, attempt: 'open:dead-replica' })
  const lucky = replica(rotatesTo('rt-2'), { reuses: 'auto', clock: passingTime() })
  const token = await lucky.tokenFor(holder, 'orders')
  assert.equal(token.value, 'orders by rt-2')
})

test('with auto the token of a replica that may stand still is not offered to a provider that any replica has seen rotate', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const clock = passingTime()
  const offered: string[] = []
  const seasoned = replica(
    async (request) => {
      offered.push(request.refreshToken)
      return rotatesTo('rt-2')(request)
    },
    { reuses: 'auto', clock },
  )
  await seasoned.tokenFor(holder, 'orders')
  const { version } = (await store.tokens.read(holder.hash))!
  await store.tokens.write(holder.hash, { expectedVersion: version, attempt: 'open:still-replica' })
  await assert.rejects(async () => seasoned.tokenFor(holder, 'billing'), code('reauthentication_required'))
  // The one that stands still has seen it, and this one has not.
  await store.tokens.write(holder.hash, { expectedVersion: version + 1, attempt: 'open:rotates:still' })
  const fresh = replica(async () => assert.fail('it was offered'), { reuses: 'auto', clock })
  await assert.rejects(async () => fresh.tokenFor(holder, 'billing'), code('reauthentication_required'))
  assert.deepEqual(offered, ['rt-1'])
  // It runs again, and stores what it had: everything goes on.
  await store.tokens.write(holder.hash, { expectedVersion: version + 2, attempt: 'ended' })
  const other = replica(rotatesTo('rt-3'), { reuses: 'auto', clock })
  assert.equal((await other.tokenFor(holder, 'billing')).value, 'billing by rt-3')
})

test('a replica that has seen the provider rotate says so in its marks', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const marks: (string | undefined)[] = []
  const rotating = replica(
    async (request) => {
      marks.push((await store.tokens.read(holder.hash))?.attempt)
      return rotatesTo(`rt-${marks.length + 1}`)(request)
    },
    { reuses: 'auto' },
  )
  await rotating.tokenFor(holder, 'orders')
  await rotating.tokenFor(holder, 'billing')
  assert.match(marks[0] ?? '', /^open:(?!rotates:)/)
  assert.match(marks[1] ?? '', /^open:rotates:/)
})

test('an answer that was lost while this process stood still may have used up the token: the provider had time enough', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const clock = passingTime()
  const error = new BffError('provider_unavailable', 'timeout', { retryAfterSeconds: 1 })
  const still = replica(
    async () => {
      clock.pass(60_000)
      return { kind: 'unavailable', error, isMaybeUsed: true }
    },
    { reuses: 'auto', clock },
  )
  await assert.rejects(async () => still.tokenFor(holder, 'orders'), code('provider_unavailable'))
  assert.equal((await store.tokens.read(holder.hash))?.attempt, 'burnt')
})

/** Time that passes when somebody waits, and when it is told to. */
function passingTime() {
  let ms = 0
  const pause = async (pauseMs: number, signal?: AbortSignal) => {
    if (signal) return new Promise<void>(() => undefined)
    ms += pauseMs
  }
  return {
    monotonicNow: () => ms,
    pause,
    pass(more: number) {
      ms += more
    },
  }
}

test('a mark that stays is waited for once, not by every request again', async (t) => {
  const { store, holder, replica } = await setUp(t)
  await store.tokens.write(holder.hash, { expectedVersion: 1, attempt: 'open:dead-replica' })
  let pausesMs = 0
  let ms = 0
  const pause = async (pauseMs: number, signal?: AbortSignal) => {
    if (signal) return new Promise<void>(() => undefined)
    pausesMs += pauseMs
    ms += pauseMs
  }
  const strict = replica(async () => assert.fail('it was offered'), {
    reuses: false,
    clock: { monotonicNow: () => ms, pause },
  })
  await assert.rejects(async () => strict.tokenFor(holder, 'orders'), code('reauthentication_required'))
  // Longer than where the token would then be offered: its owner may be on its way back to a store that was away.
  assert.ok(pausesMs >= 5_000, `${pausesMs} ms`)
  pausesMs = 0
  for (const resource of ['billing', 'stock', 'users']) {
    await assert.rejects(async () => strict.tokenFor(holder, resource), code('reauthentication_required'))
  }
  assert.equal(pausesMs, 0)
  const next = (await store.tokens.read(holder.hash))!.version
  await store.tokens.write(holder.hash, { expectedVersion: next, attempt: 'open:another-replica' })
  await assert.rejects(async () => strict.tokenFor(holder, 'parcels'), code('reauthentication_required'))
  assert.ok(pausesMs >= 5_000, 'another mark has its own time')
})

test('a rotated token is written however long the store takes no writes, at the end of the process too', async (t) => {
  const { store, holder, replica } = await setUp(t)
  let failing = true
  const full = new BffError('store_unavailable', 'OOM')
  const write = () => {
    if (failing) throw full
  }
  let ms = 0
  let pauses = 0
  const fast = async (pauseMs: number) => {
    ms += pauseMs
    pauses += 1
    // Now and then, for all else that is to happen meanwhile.
    if (pauses % 100 === 1) await new Promise(setImmediate)
  }
  const inFlight = createInFlightWork()
  const tokens = replica(rotatesTo('rt-2'), {
    write,
    inFlight,
    clock: {
      monotonicNow: () => ms,
      pause: (pauseMs, signal) => (signal ? systemClock.pause(pauseMs, signal) : fast(pauseMs)),
    },
  })
  await tokens.tokenFor(holder, 'orders')
  while (ms < 24 * 3_600_000) await new Promise(setImmediate)
  assert.match((await store.tokens.read(holder.hash))?.attempt ?? '', /^open:/)
  failing = false
  assert.equal(await inFlight.end(10_000), 0)
  assert.equal((await store.tokens.read(holder.hash))?.attempt, undefined)

  await assert.rejects(async () => tokens.tokenFor(holder, 'billing'), code('provider_unavailable'))
})

test('while the process ends no attempt begins: its answer might come too late to be stored', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const inFlight = createInFlightWork()
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<void>()
  const resources: string[] = []
  const tokens = replica(
    async (request) => {
      resources.push(request.resource)
      asked.resolve()
      await answer.promise
      return rotatesTo('rt-2')(request)
    },
    { inFlight },
  )
  const first = (async () => tokens.tokenFor(holder, 'orders'))()
  const second = (async () => tokens.tokenFor(holder, 'billing'))()
  await asked.promise
  const ended = inFlight.end(10_000)
  answer.resolve()
  assert.equal((await first).value, 'orders by rt-2')
  await assert.rejects(second, code('provider_unavailable'))
  assert.equal(await ended, 0)
  assert.deepEqual(resources, ['orders'])
  assert.equal((await store.tokens.read(holder.hash))?.attempt, undefined)
})

test('the end of the process waits for a mark to be taken back', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const inFlight = createInFlightWork()
  let timeouts = 2
  const unlucky = replica(async () => assert.fail('offered without a mark'), {
    inFlight,
    afterBegin() {
      if (timeouts-- > 0) throw new BffError('store_unavailable', 'no answer in time')
    },
  })
  await assert.rejects(async () => unlucky.tokenFor(holder, 'orders'), code('store_unavailable'))
  assert.equal(await inFlight.end(10_000), 0)
  assert.equal((await store.tokens.read(holder.hash))?.attempt, undefined)
})

test('a request that never reached the provider leaves the token as it was', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const error = new BffError('provider_unavailable', 'refused')
  const down = replica(async () => ({ kind: 'unavailable', error, isMaybeUsed: false }))
  await assert.rejects(async () => down.tokenFor(holder, 'orders'), code('provider_unavailable'))
  assert.equal((await store.tokens.read(holder.hash))?.attempt, undefined)
})

test('while the store takes no writes the new token is used from memory, and the rotated one is kept and stored later', async (t) => {
  const { store, holder, replica } = await setUp(t)
  let failing = true
  const write = () => {
    if (failing) throw new BffError('store_unavailable', 'OOM')
  }
  let calls = 0
  const tokens = replica(
    async (request) => {
      calls += 1
      return rotatesTo('rt-2')(request)
    },
    { write },
  )
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders by rt-2')
  assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'orders by rt-2')
  assert.match((await store.tokens.read(holder.hash))?.attempt ?? '', /^open:/)
  failing = false
  while ((await store.tokens.read(holder.hash))?.attempt) await new Promise(setImmediate)
  assert.equal(calls, 1)
  const other = replica(async ({ refreshToken, ...request }) => {
    assert.equal(refreshToken, 'rt-2')
    return rotatesTo('rt-3')({ refreshToken, ...request })
  })
  assert.equal((await other.tokenFor(holder, 'billing')).value, 'billing by rt-3')
})

test('a late write of a superseded attempt is refused', async (t) => {
  const { store, holder, replica } = await setUp(t)
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<void>()
  const slow = replica(async (request) => {
    asked.resolve()
    await answer.promise
    return rotatesTo('late')(request)
  })
  const late = (async () => slow.tokenFor(holder, 'orders'))()
  await asked.promise
  // Its lock ended, and another replica took over.
  const version = (await store.tokens.read(holder.hash))?.version ?? 0
  await store.tokens.write(holder.hash, { expectedVersion: version, attempt: 'open:other' })
  answer.resolve()
  await assert.rejects(late, code('provider_unavailable'))
  assert.equal((await store.tokens.read(holder.hash))?.version, version + 1)
})
