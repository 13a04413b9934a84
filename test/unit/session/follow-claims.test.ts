import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFollowClaims } from '../../../src/session/follow-claims.ts'
import { sessionHash } from '../../../src/session/session.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { UserClaims } from '../../../src/store/port.ts'

const owner = { id: 'session-id', hash: sessionHash('session-id') }
const seal = (_id: string, text: string) => `sealed ${text}`
const open = (_id: string, sealed: string) => (sealed.startsWith('sealed ') ? sealed.slice(7) : undefined)

async function setUp(t: { after(cleanUp: () => unknown): void }, record: object) {
  const store = createMemoryStore({ monotonicNow: Date.now, idleTimeoutMs: () => 60_000 })
  t.after(() => store.close())
  await store.sessions.create(owner.hash, seal('', JSON.stringify(record)))
  const read = async () => {
    const sealed = await store.sessions.read(owner.hash)
    return sealed && JSON.parse(open('', sealed) ?? '{}')
  }
  return { store, read, followClaims: createFollowClaims({ records: store.sessions, seal, open }) }
}

const RECORD = { user: { claims: { sub: 'ada', roles: ['admin'] }, idToken: 'jwt' }, createdAt: 1 }

test('the claims of a session are changed, and nothing else of it', async (t) => {
  const { read, followClaims } = await setUp(t, RECORD)
  await followClaims(owner, (before) => ({ sub: before.sub, name: 'Ada' }))
  assert.deepEqual(await read(), { ...RECORD, user: { ...RECORD.user, claims: { sub: 'ada', name: 'Ada' } } })
})

test('a change that another one came before is asked again, based on what that one stored', async (t) => {
  const { store, read, followClaims } = await setUp(t, RECORD)
  const met: UserClaims[] = []
  await followClaims(owner, (before) => {
    met.push(before)
    const other = { ...RECORD, user: { ...RECORD.user, claims: { sub: 'ada', roles: ['other'] } } }
    const change = { before: seal('', JSON.stringify(RECORD)), after: seal('', JSON.stringify(other)) }
    if (met.length === 1) store.sessions.replace(owner.hash, change)
    return { ...before, name: 'Ada' }
  })
  assert.deepEqual(
    met.map(({ roles }) => roles),
    [['admin'], ['other']],
  )
  assert.deepEqual((await read()).user.claims, { sub: 'ada', roles: ['other'], name: 'Ada' })
})

test('a session that ends meanwhile stays ended, and a record that does not open stays as it is', async (t) => {
  const { store, read, followClaims } = await setUp(t, RECORD)
  await followClaims(owner, (before) => {
    store.sessions.end(owner.hash)
    return { ...before, name: 'Ada' }
  })
  assert.equal(await read(), undefined)
  await store.sessions.create(owner.hash, 'of another key')
  await followClaims(owner, () => assert.fail('it does not open'))
})

test('the end of a refresh token is kept when it moves the end of the session, and not written again for a rounded second', async (t) => {
  const { store, read } = await setUp(t, RECORD)
  let written = 0
  const records = {
    read: store.sessions.read,
    replace: (...args: Parameters<typeof store.sessions.replace>) => {
      written += 1
      return store.sessions.replace(...args)
    },
  }
  const followClaims = createFollowClaims({ records, seal, open, absoluteTimeoutMs: 1_000_000 })
  const follow = async (
    endsAt: number | undefined,
    change = (_: UserClaims): UserClaims | undefined => undefined,
  ) => {
    written = 0
    await followClaims(owner, change, endsAt)
    return [written, (await read()).user.refreshTokenExpiresAt]
  }
  assert.deepEqual(await follow(undefined), [0, undefined])
  assert.deepEqual(await follow(2_000_000), [0, undefined])
  assert.deepEqual(await follow(500_000), [1, 500_000])
  assert.deepEqual(await follow(559_000), [0, 500_000])
  assert.deepEqual(await follow(560_000), [1, 560_000])
  assert.deepEqual(await follow(500_001), [0, 560_000])
  assert.deepEqual(await follow(undefined, (before) => ({ ...before, name: 'Ada' })), [1, 560_000])
  assert.deepEqual(await follow(2_000_000), [1, 2_000_000])
  assert.equal((await read()).user.claims.name, 'Ada')
})
