import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { BffError } from '../../src/errors.ts'
import { sessionHash } from '../../src/session/bff-session.ts'
import { createBelievedCache } from '../../src/session/session-cache.ts'
import { createMemoryStore } from '../../src/store/memory/memory-store.ts'
import type { RefreshGrant } from '../../src/tokens/refresh-grant.ts'
import { createRefreshTurns } from '../../src/tokens/refresh-turn.ts'
import { createRejections } from '../../src/tokens/rejection.ts'
import { createRenewal } from '../../src/tokens/renewal.ts'
import { createSealing, type Sealing } from '../../src/tokens/sealed.ts'
import { createTokenSealer } from '../../src/tokens/token-record.ts'
import { clockWaiting } from '../../src/tokens/waiting.ts'

const RESOURCES = ['orders', 'billing', 'audit', 'stock', 'search']
const SESSIONS = 2_000
/** No map may keep more than this once nobody asks any more. */
const BOUND = 10_000

test('G20: after 2,000 sessions with 5 resources each nothing is left in flight, and what is remembered is bounded', async (t) => {
  const { maps, engine } = counted(() => setUp(t, renews, PLAIN))
  for (let done = 0; done < SESSIONS; done += 500) {
    const holders = await Promise.all(Array.from({ length: 500 }, () => engine.signedIn()))
    const wishes = holders.flatMap((holder) => RESOURCES.map((resource) => ({ holder, resource })))
    const answers = wishes.map((wish) => engine.renew(wish))
    assert.ok(
      sizesOf(maps).some((size) => size >= 500),
      'the maps of this test are those in use',
    )
    await Promise.all(answers)
    for (const { hash } of holders) await engine.store.sessions.end(hash)
  }
  await idle()
  assert.deepEqual(new Set(sizesOf(maps)), new Set([0]))
})

test('G20: refusals of very many sessions and tokens that upstreams reject are remembered up to a bound', async (t) => {
  const { maps, engine } = counted(() => setUp(t, refuses, PLAIN))
  for (let done = 0; done < BOUND + 2_000; done += 500) {
    const holders = await Promise.all(Array.from({ length: 500 }, () => engine.signedIn()))
    const challenge = { kind: 'invalid_token' } as const
    const reactions = holders.map((holder) =>
      engine.onRejected(holder, 'orders', { token: { value: 'bad' }, challenge, isRepeatable: true }),
    )
    for (const { status } of await Promise.allSettled(reactions)) assert.equal(status, 'rejected')
    for (const { hash } of holders) await engine.store.sessions.end(hash)
  }
  await idle()
  const sizes = sizesOf(maps).filter((size) => size > 0)
  assert.ok(sizes.length === 2 && sizes.every((size) => size <= BOUND), `${sizes}`)
})

test('G20: the copies of tokens are bounded however many sessions there are', async () => {
  const { maps, engine: cache } = counted(() =>
    createBelievedCache<{ value: string }>({
      invalidations: { isLive: () => true, onInvalidate: () => () => undefined },
      ...{ believeMs: 5_000, max: 100, now: () => 0 },
    }),
  )
  for (let session = 0; session < 5_000; session += 1) {
    const hash = sessionHash(String(session))
    await cache.load(hash, hash, async () => ({ value: 'v' }))
  }
  assert.ok(
    sizesOf(maps).every((size) => size <= 100),
    `${sizesOf(maps)}`,
  )
})

test('G18: resources and sessions whose names look alike when joined have a token each', async (t) => {
  const engine = setUp(t, renews, createSealing([randomBytes(32)]))
  const names = [
    'a',
    'A',
    'a|b',
    'b',
    'a/',
    'a:',
    'a b',
    '["a","b"]',
    '__proto__',
    'constructor',
    'v',
    'spend',
    '',
  ]
  const holders = await Promise.all([engine.signedIn(), engine.signedIn()])
  const wishes = holders.flatMap((holder) => names.map((resource) => ({ holder, resource })))
  const expected = ({ holder, resource }: (typeof wishes)[number]) => `${holder.hash} ${resource}`
  const given = await Promise.all(wishes.map((wish) => engine.renew(wish)))
  assert.deepEqual(
    given.map(({ value }) => value),
    wishes.map(expected),
  )
  for (const holder of holders) {
    const stored = await engine.stored(holder)
    assert.deepEqual([...stored.keys()].sort(), [...names].sort())
    for (const resource of names) assert.equal(stored.get(resource)?.value, expected({ holder, resource }))
  }
})

const renews: RefreshGrant = async ({ refreshToken, resource, keep }) => {
  await keep(refreshToken)
  // A refresh token of these tests is the name of its session.
  const times = { obtainedAt: Date.now(), expiresAt: Date.now() + 3_600_000 }
  return { kind: 'renewed', accessToken: `${refreshToken} ${resource}`, ...times }
}

const refuses: RefreshGrant = async () => ({
  kind: 'refused',
  error: new BffError('provider_rejected', 'no'),
  isMaybeSpent: false,
})

/** Keeps what it is given as it is: this is about numbers. */
const PLAIN: Sealing = { seal: (_, text) => text, open: (_, text) => text }

function setUp(t: TestContext, refreshGrant: RefreshGrant, sealing: Sealing) {
  const store = createMemoryStore({ idleTimeoutMs: 3_600_000, now: Date.now })
  t.after(() => store.close())
  const sealer = createTokenSealer(sealing)
  const common = { records: store.tokens, now: Date.now, waiting: clockWaiting }
  const renew = createRenewal({
    ...{ ...common, sealer, refreshGrant, offersUncertain: true },
    takeTurn: createRefreshTurns({
      ...{ ...common, lockTtlMs: 60_000, waitMs: 60_000 },
      admit: (work) => work(),
      observe() {},
    }),
    revoke: async () => undefined,
    endSession: async () => assert.fail('no session ends'),
    observe() {},
  })
  const stored = async (holder: Holder) => {
    const record = await store.tokens.read(holder.hash)
    return sealer.openTokens(holder, record!).accessTokens
  }
  const onRejected = createRejections({
    renew,
    stored: async (holder, resource) => (await stored(holder)).get(resource),
    now: Date.now,
  })
  async function signedIn() {
    const id = randomBytes(16).toString('hex')
    const holder = { id, hash: sessionHash(id), claims: { sub: 'ada' } }
    await store.sessions.create(holder.hash, 'sealed')
    const refreshToken = sealer.sealRefreshToken(holder, holder.hash)
    await store.tokens.create(holder.hash, { refreshToken, accessTokens: {} })
    return holder
  }
  return { store, renew, onRejected, stored, signedIn }
}

type Holder = { readonly id: string; readonly hash: ReturnType<typeof sessionHash> }
type AnyMap = Map<unknown, unknown>

/** Runs `make`, and notes every Map that lives on from it. */
function counted<T>(make: () => T): { maps: AnyMap[]; engine: T } {
  const maps: AnyMap[] = []
  const { Map: Plain } = globalThis
  globalThis.Map = class<K, V> extends Plain<K, V> {
    constructor(entries?: Iterable<readonly [K, V]> | null) {
      super(entries)
      maps.push(this as AnyMap)
    }
  } as typeof Plain
  try {
    return { engine: make(), maps }
  } finally {
    globalThis.Map = Plain
  }
}

function sizesOf(maps: readonly AnyMap[]): number[] {
  return maps.map(({ size }) => size)
}

/** What runs after an answer, such as giving a turn back, has run. */
async function idle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate)
}
