import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { BffError } from '../../src/errors.ts'
import { sessionHash } from '../../src/session/bff-session.ts'
import type { SessionRecords } from '../../src/store/port.ts'
import { createSessionStore, type SessionStoreDeps } from '../../src/store/session-store.ts'
import {
  type Contestant,
  memoryContestant,
  redisContestant,
  redisForThisFile,
} from '../kit/store/store-contestants.ts'

const server = redisForThisFile()

for (const contestant of [memoryContestant, redisContestant(server)]) {
  suite(`express-session's store over the ${contestant.name} store`, { skip: contestant.skip }, () => {
    sessionStoreRules(contestant)
  })
}

const COOKIE = { path: '/', httpOnly: true, secure: true, sameSite: 'strict' } as const
const IDLE_MS = 60_000
const ABSOLUTE_MS = 600_000

/** Seals by turning the text round and naming the id: enough to see that nothing passes unsealed. */
const sealing: Pick<SessionStoreDeps, 'seal' | 'open'> = {
  seal: (id, plaintext) => `${id}|${[...plaintext].reverse().join('')}`,
  open: (id, sealed) =>
    sealed.startsWith(`${id}|`) ? [...sealed.slice(id.length + 1)].reverse().join('') : undefined,
}

async function setUp(t: TestContext, { open }: Contestant, options: Partial<SessionStoreDeps> = {}) {
  const { store, elapse } = await open(t, { idleTimeoutMs: IDLE_MS })
  const clock = { time: 1_000_000 }
  const sessions = createSessionStore({
    records: store.sessions,
    ...sealing,
    hash: sessionHash,
    cookie: () => COOKIE,
    slide: true,
    absoluteTimeoutMs: ABSOLUTE_MS,
    now: () => clock.time,
    ...options,
  })
  const id = crypto.randomUUID()
  return { store, sessions, clock, elapse, id, hash: sessionHash(id) }
}

/** A session as express-session hands it to a store. */
function session(contents: object = {}): never {
  return {
    cookie: { ...COOKIE, originalMaxAge: null },
    createdAt: 1_000_000,
    user: 'alice',
    ...contents,
  } as never
}

const sessionRequired = (error: unknown) => error instanceof BffError && error.code === 'session_required'

function sessionStoreRules(contestant: Contestant): void {
  test('a session is read back with its end and with the cookie attributes of today', async (t) => {
    let cookie: SessionStoreDeps['cookie'] = () => COOKIE
    const { sessions, store, id, hash } = await setUp(t, contestant, { cookie: () => cookie() })
    assert.equal(await sessions.get(id), null)
    await sessions.set(id, session())
    const raw = (await store.sessions.read(hash, { slide: false }))?.value
    assert.doesNotMatch(String(raw), /alice|cookie|sameSite/)
    cookie = () => ({ ...COOKIE, sameSite: 'lax' })
    const found = await sessions.get(id)
    assert.deepEqual(found, {
      createdAt: 1_000_000,
      user: 'alice',
      cookie: { ...COOKIE, sameSite: 'lax' },
      expiresAt: 1_000_000 + IDLE_MS,
      stored: true,
    })
  })

  test('a session that was read is replaced, without what the store had added', async (t) => {
    const { sessions, store, id, hash } = await setUp(t, contestant)
    await sessions.set(id, session())
    const found = await sessions.get(id)
    await sessions.set(id, Object.assign(found, { user: 'bob' }))
    assert.equal((await sessions.get(id)).user, 'bob')
    const sealed = (await store.sessions.read(hash, { slide: false }))?.value
    const kept = JSON.parse(sealing.open(id, sealed ?? '') ?? '')
    assert.deepEqual(kept, { createdAt: 1_000_000, user: 'bob' })
  })

  test('saving a new session twice creates it and then replaces it', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    const fresh = session()
    await sessions.set(id, fresh)
    const keys = Object.keys(fresh)
    await sessions.set(id, Object.assign(fresh, { user: 'changed' }))
    assert.deepEqual(Object.keys(fresh), keys)
    assert.equal((await sessions.get(id)).user, 'changed')
  })

  test('a late save does not revive a session that logged out', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    await sessions.set(id, session())
    const slow = await sessions.get(id)
    await sessions.destroy(id)
    await assert.rejects(sessions.set(id, slow), sessionRequired)
    assert.equal(await sessions.get(id), null)
  })

  test('a new session does not take the place of one with the same id', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    await sessions.set(id, session())
    await assert.rejects(sessions.set(id, session({ user: 'mallory' })), sessionRequired)
    assert.equal((await sessions.get(id)).user, 'alice')
  })

  test('constant use does not carry a session beyond its absolute timeout, and who finds it over leaves it to the others', async (t) => {
    const { sessions, store, clock, id, hash } = await setUp(t, contestant)
    await sessions.set(id, session())
    await store.tokens.create(hash, { refreshToken: 'sealed', accessTokens: {} })
    clock.time += ABSOLUTE_MS - 1
    assert.equal((await sessions.get(id)).expiresAt, 1_000_000 + ABSOLUTE_MS)
    clock.time += 1
    assert.equal(await sessions.get(id), null)
    // It may be this clock that is wrong.
    assert.ok(await store.sessions.read(hash, { slide: false }))
    assert.ok(await store.tokens.read(hash))
    clock.time -= 1
    assert.ok(await sessions.get(id))
  })

  test('a session without a login time counts as absent', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    await sessions.set(id, session({ createdAt: undefined }))
    assert.equal(await sessions.get(id), null)
  })

  test('a record that does not open counts as absent, and stays for the replica that has its key', async (t) => {
    const { sessions, store, id, hash } = await setUp(t, contestant)
    await sessions.set(id, session())
    const keyless = createSessionStore({
      ...{ records: store.sessions, ...sealing, hash: sessionHash, cookie: () => COOKIE, slide: true },
      ...{ absoluteTimeoutMs: ABSOLUTE_MS, now: () => 1_000_000 },
      open: () => undefined,
    })
    assert.equal(await keyless.get(id), null)
    assert.ok(await store.sessions.read(hash, { slide: false }))
    assert.equal((await sessions.get(id)).user, 'alice')
  })

  test('a reader that does not slide leaves the idle timeout running', async (t) => {
    const { sessions, elapse, id } = await setUp(t, contestant, { slide: false })
    await sessions.set(id, session())
    await elapse(300)
    assert.ok((await sessions.get(id)).expiresAt <= 1_000_000 + IDLE_MS - 300)
  })

  test('a touch at the end of a response asks nothing of the store', async (t) => {
    const { sessions, id } = await setUp(t, contestant, { records: unreachable })
    const called = Promise.withResolvers<void>()
    sessions.touch(id, session(), (error) => (error ? called.reject(error) : called.resolve()))
    await called.promise
  })

  test('errors of the store come out as they are', async (t) => {
    const { sessions, id } = await setUp(t, contestant, { records: unreachable })
    for (const call of [
      (done: (error: unknown) => void) => sessions.get(id, done),
      (done: (error: unknown) => void) => sessions.set(id, session(), done),
      (done: (error: unknown) => void) => sessions.destroy(id, done),
    ]) {
      const thrown = await new Promise((resolve) => call(resolve))
      assert.ok(thrown instanceof BffError && thrown.code === 'store_unavailable')
    }
  })
}

const away = async () => {
  throw new BffError('store_unavailable', 'away')
}
const unreachable: SessionRecords = { read: away, create: away, replace: away, end: away }
