import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { suite, type TestContext } from 'node:test'
import { systemClock } from '../../src/async/clock.ts'
import type { SessionConfig } from '../../src/config/config.ts'
import { type BffSession, createSessions, sessionHash } from '../../src/session/session.ts'
import { createSessionCache } from '../../src/session/session-cache.ts'
import type { Invalidations } from '../../src/store/port.ts'
import { createSessionStore } from '../../src/store/session-store.ts'
import {
  type AccessToken,
  createSealing,
  createTokenSealer,
  type Sealing,
} from '../../src/tokens/record/sealing.ts'
import { type CopiedToken, createTokens } from '../../src/tokens/tokens.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { everyContestant } from '../kit/store/shared-sets.ts'
import { type Contestant, silentLog } from '../kit/store/store-contestants.ts'

const CONTESTANTS = everyContestant()

for (const contestant of CONTESTANTS) {
  suite(`copies past their trust time, of the ${contestant.name} store`, { skip: contestant.skip }, () => {
    heldCopyRules(contestant)
  })
}

const TRUSTED_MS = 5_000
const HELD_MS = 60_000
const IDLE_MS = 600_000
const NOW = 1_800_000_000_000
const COOKIE = { path: '/', httpOnly: true, secure: false, sameSite: 'strict' } as const
/** Of a channel that is live and says nothing, as if each message came too late: only the texts in the store are left to tell. */
const SILENT: Invalidations = { isLive: () => true, onInvalidate: () => () => undefined }

const OLD_KEY = randomBytes(32)
const NEW_KEY = randomBytes(32)

/** One replica, whose clock the test moves, and which counts what it opens. */
async function setUp(
  t: TestContext,
  contestant: Contestant,
  { keys = [OLD_KEY], isTold = false }: { keys?: readonly Buffer[]; isTold?: boolean } = {},
) {
  const { store } = await contestant.open(t, { idleTimeoutMs: IDLE_MS })
  const world = { time: NOW, opened: 0 }
  const ring = createSealing(keys)
  const counting: Sealing = {
    ...ring,
    open(purpose, sealed) {
      world.opened += 1
      return ring.open(purpose, sealed)
    },
  }
  const clock = { now: () => world.time, monotonicNow: () => world.time, pause: systemClock.pause }
  const cacheDeps = {
    ...{ invalidations: isTold ? store.invalidations : SILENT, monotonicNow: clock.now },
    ...{ trustedMs: TRUSTED_MS, heldMs: HELD_MS, max: 100, maxBytes: 1_000_000 },
  }
  const copies = createSessionCache<BffSession>({
    ...cacheDeps,
    lifeMs: ({ expiresAt }) => expiresAt - world.time,
  })
  const tokenCopies = createSessionCache<CopiedToken>(cacheDeps)
  const tokens = createTokens({
    ...{ store, sealing: counting, copy: tokenCopies, clock },
    provider: {
      refreshGrant: async () => assert.fail('nothing is refreshed'),
      clientCredentialsGrant: async () => assert.fail('no client token is asked for'),
      tokenExchangeGrant: async () => assert.fail('no token is exchanged'),
      admit: (work) => work(),
      revoke: async () => undefined,
    },
    ...{ resources: {}, reusesRefreshTokens: true, providerTimeoutMs: 1_000 },
    observe: { unseenRefresh() {}, refreshLock() {}, sessionEnded() {} },
  })
  const sessions = createSessions({
    store: createSessionStore({
      records: store.sessions,
      seal: (id, text) => counting.seal({ id, kind: 'session' }, text),
      open: (id, sealed) => counting.open({ id, kind: 'session' }, sealed),
      ...{ hash: sessionHash, cookie: COOKIE },
    }),
    ...{ records: store.sessions, readAhead: tokens.readAhead },
    config: {
      ...{ idleTimeoutMs: IDLE_MS, absoluteTimeoutMs: 10 * IDLE_MS },
      cookie: { name: 'sid', secure: false, sameSite: 'strict' },
    } as SessionConfig,
    signingSecrets: ['new', 'old'],
    ...{ copy: copies, log: silentLog, now: clock.now, monotonicNow: clock.now },
  })

  /** What a request finds. */
  async function ask(cookie: string) {
    const session = await sessions.find({ headers: { cookie: `sid=${cookie}` } } as IncomingMessage, 'orders')
    return { session, sub: session?.claims.sub, token: session && (await tokens.tokenFor(session, 'orders')) }
  }

  /** The same, and how many sealed texts were opened for it, after so many ms. */
  async function askAfter(ms: number, cookie: string) {
    world.time += ms
    const before = world.opened
    const found = await ask(cookie)
    return { ...found, opened: world.opened - before }
  }

  return { store, world, copies, tokenCopies, askAfter }
}

type Replica = Awaited<ReturnType<typeof setUp>>

const recordOf = (id: string, sub: string, key = OLD_KEY) =>
  createSealing([key]).seal(
    { id, kind: 'session' },
    JSON.stringify({ user: { claims: { sub }, idToken: 'a.b.c', logoutHandle: 'h' }, createdAt: NOW }),
  )

const tokenOf = (value: string): AccessToken => ({ value, expiresAt: 2 * NOW, renewAt: 2 * NOW })

const sealedToken = (id: string, value: string, key = OLD_KEY) =>
  createTokenSealer(createSealing([key])).sealAccessToken(
    { id, hash: sessionHash(id) },
    'orders',
    tokenOf(value),
  )

/** A user with a session and a token, as another replica stores them. */
async function signIn({ store }: Pick<Replica, 'store'>, sub: string) {
  const id = randomBytes(32).toString('base64url')
  const hash = sessionHash(id)
  const record = recordOf(id, sub)
  assert.ok(await store.sessions.create(hash, record))
  const accessTokens = { orders: sealedToken(id, `${sub}-1`) }
  assert.ok(await store.tokens.create(hash, { refreshToken: 'rt', accessTokens }))
  const signedBy = (secret: string) => {
    const signature = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
    return `s%3A${id}.${encodeURIComponent(signature)}`
  }
  return { id, hash, record, cookie: signedBy('new'), cookieOf: signedBy }
}

function heldCopyRules(contestant: Contestant): void {
  test('what the store still holds word for word is not opened again, and its session is extended', async (t) => {
    const replica = await setUp(t, contestant)
    const { cookie } = await signIn(replica, 'ada')
    const first = await replica.askAfter(0, cookie)
    assert.deepEqual([first.sub, first.token?.value, first.opened], ['ada', 'ada-1', 2])
    const again = await replica.askAfter(TRUSTED_MS, cookie)
    assert.deepEqual([again.sub, again.token?.value, again.opened], ['ada', 'ada-1', 0])
    assert.equal(again.token, first.token, 'the token is the very one')
    const moved = (again.session?.expiresAt ?? 0) - (first.session?.expiresAt ?? 0)
    assert.ok(Math.abs(moved - TRUSTED_MS) < 1_000, `its end moved by ${moved} ms`)
    const late = await replica.askAfter(HELD_MS, cookie)
    assert.deepEqual([late.sub, late.opened], ['ada', 2], 'it is held no longer than it should be')
  })

  test('an ended session is gone, and nothing of it is held, although nobody was told', async (t) => {
    const replica = await setUp(t, contestant)
    const { cookie, hash } = await signIn(replica, 'ada')
    await replica.askAfter(0, cookie)
    await replica.store.sessions.end(hash)
    assert.equal((await replica.askAfter(TRUSTED_MS, cookie)).session, undefined)
    assert.deepEqual([replica.copies.size, replica.tokenCopies.size], [0, 0])
  })

  test('a token that changed and a record that changed are opened, although nobody was told', async (t) => {
    const replica = await setUp(t, contestant)
    const { cookie, hash, id, record } = await signIn(replica, 'ada')
    await replica.askAfter(0, cookie)
    const accessToken = { resource: 'orders', sealed: sealedToken(id, 'ada-2') }
    assert.equal(await replica.store.tokens.write(hash, { expectedVersion: 1, accessToken }), 'written')
    const changed = await replica.askAfter(TRUSTED_MS, cookie)
    assert.deepEqual([changed.sub, changed.token?.value, changed.opened], ['ada', 'ada-2', 1])
    const after = recordOf(id, 'ada of the board')
    assert.ok(await replica.store.sessions.replace(hash, { before: record, after }))
    const replaced = await replica.askAfter(TRUSTED_MS, cookie)
    assert.deepEqual([replaced.sub, replaced.opened], ['ada of the board', 1])
    // The same words, sealed once more, are another text.
    assert.ok(await replica.store.sessions.replace(hash, { before: after, after: recordOf(id, 'ada') }))
    assert.deepEqual((await replica.askAfter(TRUSTED_MS, cookie)).opened, 1)
  })

  test('a record under a new session key opens with it, and is gone where the key is not known', async (t) => {
    for (const [keys, sub] of [
      [[NEW_KEY, OLD_KEY], 'ada'],
      [[OLD_KEY], undefined],
    ] as const) {
      const replica = await setUp(t, contestant, { keys })
      const { cookie, hash, id, record } = await signIn(replica, 'ada')
      await replica.askAfter(0, cookie)
      const after = recordOf(id, 'ada', NEW_KEY)
      assert.ok(await replica.store.sessions.replace(hash, { before: record, after }))
      assert.equal((await replica.askAfter(TRUSTED_MS, cookie)).sub, sub)
      assert.equal(replica.copies.size, sub ? 1 : 0)
    }
  })

  test('the copy of one session says nothing of another, nor of what one that it was swapped with holds', async (t) => {
    const replica = await setUp(t, contestant)
    const ada = await signIn(replica, 'ada')
    const bob = await signIn(replica, 'bob')
    await replica.askAfter(0, ada.cookie)
    assert.deepEqual([(await replica.askAfter(TRUSTED_MS, bob.cookie)).token?.value], ['bob-1'])
    assert.equal((await replica.askAfter(0, ada.cookieOf('old'))).sub, 'ada')
    assert.equal((await replica.askAfter(0, ada.cookieOf('forged'))).session, undefined)
    // Whoever may write to the store puts one's record in the place of the other's.
    assert.ok(await replica.store.sessions.replace(bob.hash, { before: bob.record, after: ada.record }))
    assert.equal((await replica.askAfter(TRUSTED_MS, bob.cookie)).session, undefined)
    assert.equal((await replica.askAfter(0, ada.cookie)).sub, 'ada')
  })

  test('the end of a session while its copy is looked at again leaves no copy', async (t) => {
    const replica = await setUp(t, contestant, { isTold: true })
    const { cookie, hash } = await signIn(replica, 'ada')
    await replica.askAfter(0, cookie)
    const asked = replica.askAfter(TRUSTED_MS, cookie).catch(() => undefined)
    await replica.store.sessions.end(hash)
    await asked
    assert.deepEqual([replica.copies.size, replica.tokenCopies.size], [0, 0])
    assert.equal((await replica.askAfter(0, cookie)).session, undefined)
  })
}
