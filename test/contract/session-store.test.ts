import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { BffError } from '../../src/errors.ts'
import { sessionHash } from '../../src/session/session.ts'
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

/** Seals by turning the text round and naming the id: enough to see that nothing passes unsealed. */
const sealing: Pick<SessionStoreDeps, 'seal' | 'open'> = {
  seal: (id, plaintext) => `${id}|${[...plaintext].reverse().join('')}`,
  open: (id, sealed) =>
    sealed.startsWith(`${id}|`) ? [...sealed.slice(id.length + 1)].reverse().join('') : undefined,
}

async function setUp(t: TestContext, { open }: Contestant, options: Partial<SessionStoreDeps> = {}) {
  const { store } = await open(t, { idleTimeoutMs: IDLE_MS })
  const sessionStore = (changed: Partial<SessionStoreDeps> = {}) =>
    createSessionStore({
      ...{ records: store.sessions, ...sealing, hash: sessionHash, cookie: COOKIE },
      ...options,
      ...changed,
    })
  const id = crypto.randomUUID()
  return { store, sessions: sessionStore(), sessionStore, id, hash: sessionHash(id) }
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
  test('a session is read back with the cookie attributes of today; its record is sealed and holds none', async (t) => {
    const { sessions, sessionStore, store, id, hash } = await setUp(t, contestant)
    assert.equal(await sessions.get(id), null)
    await sessions.set(id, session())
    const sealed = await store.sessions.read(hash)
    assert.doesNotMatch(String(sealed), /alice|cookie|sameSite/)
    assert.deepEqual(JSON.parse(sealing.open(id, sealed ?? '') ?? ''), {
      createdAt: 1_000_000,
      user: 'alice',
    })
    const tomorrow = sessionStore({ cookie: { ...COOKIE, sameSite: 'lax' } })
    assert.deepEqual(await tomorrow.get(id), {
      createdAt: 1_000_000,
      user: 'alice',
      cookie: { ...COOKIE, sameSite: 'lax' },
      stored: true,
    })
  })

  test('each call is one command for the records, and none of them touches a life', async (t) => {
    const calls: unknown[] = []
    const records = {
      read: async (hash: string) => void calls.push(['read', hash]),
      create: async (hash: string, value: string) => calls.push(['create', hash, value]) > 0,
      end: async (hash: string) => void calls.push(['end', hash]),
    } as unknown as SessionRecords
    const { sessions, id, hash } = await setUp(t, contestant, { records })
    await sessions.get(id)
    await sessions.set(id, session())
    await sessions.destroy(id)
    const sealed = sealing.seal(id, JSON.stringify({ createdAt: 1_000_000, user: 'alice' }))
    assert.deepEqual(calls, [
      ['read', hash],
      ['create', hash, sealed],
      ['end', hash],
    ])
  })

  test('a session that was read is not saved again', async (t) => {
    const { sessions, store, id, hash } = await setUp(t, contestant)
    await sessions.set(id, session())
    const sealed = await store.sessions.read(hash)
    const found = await sessions.get(id)
    await assert.rejects(sessions.set(id, Object.assign(found, { user: 'bob' })), sessionRequired)
    assert.equal((await sessions.get(id)).user, 'alice')
    assert.equal(await store.sessions.read(hash), sealed)
  })

  test('a new session is saved once, and its members stay the same', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    const fresh = session()
    const keys = Object.keys(fresh)
    await sessions.set(id, fresh)
    assert.deepEqual(Object.keys(fresh), keys)
    await assert.rejects(sessions.set(id, Object.assign(fresh, { user: 'changed' })), sessionRequired)
    assert.deepEqual(Object.keys(fresh), keys)
    assert.equal((await sessions.get(id)).user, 'alice')
  })

  test('a late save does not revive a session that logged out: neither the one that was saved nor one that was read', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    const begun = session()
    await sessions.set(id, begun)
    const slow = await sessions.get(id)
    await sessions.destroy(id)
    for (const late of [slow, begun]) {
      await assert.rejects(sessions.set(id, late), sessionRequired)
      assert.equal(await sessions.get(id), null)
    }
  })

  test('a new session does not take the place of one with the same id', async (t) => {
    const { sessions, id } = await setUp(t, contestant)
    await sessions.set(id, session())
    await assert.rejects(sessions.set(id, session({ user: 'mallory' })), sessionRequired)
    assert.equal((await sessions.get(id)).user, 'alice')
  })

  test('a record that does not open counts as absent, and stays for the replica that has its key', async (t) => {
    const { sessions, sessionStore, store, id, hash } = await setUp(t, contestant)
    await sessions.set(id, session())
    const keyless = sessionStore({ open: () => undefined })
    assert.equal(await keyless.get(id), null)
    assert.ok(await store.sessions.read(hash))
    assert.equal((await sessions.get(id)).user, 'alice')
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
const unreachable: SessionStoreDeps['records'] = { read: away, create: away, end: away }
