import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFollowClaims, sessionHash } from '../../../src/session/session.ts'
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
