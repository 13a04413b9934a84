import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { createUserSessions } from '../../../src/session/session-index.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { SessionHash } from '../../../src/store/port.ts'

const ISS = 'https://idp.test'
const claims = (sub: string, sid?: string, iss = ISS) => ({ iss, sub, ...(sid === undefined ? {} : { sid }) })

function setUp(pseudonyms = [(text: string) => `1(${text})`]) {
  const clock = { now: 1_000_000 }
  const store = createMemoryStore({ idleTimeoutMs: () => 3_600_000, monotonicNow: () => clock.now })
  const ended: string[] = []
  const usersUnder = (names: typeof pseudonyms) =>
    createUserSessions({
      ...{ store, pseudonyms: names, signInLifetimeMs: 900_000 },
      ended: (hash, reason) => ended.push(`${hash} ${reason}`),
    })
  const users = usersUnder(pseudonyms)
  let count = 0
  async function begin(sub: string, sid?: string, { iss = ISS, by = users } = {}): Promise<SessionHash> {
    count += 1
    const hash = `s${count}` as SessionHash
    await store.sessions.create(hash, 'sealed', by.indexesOf(claims(sub, sid, iss)))
    await store.tokens.create(hash, { refreshToken: undefined, accessTokens: {} })
    return hash
  }
  const isAlive = async (hash: SessionHash) => (await store.sessions.read(hash)) !== undefined
  return { store, clock, users, usersUnder, ended, begin, isAlive }
}

test('ending by sub ends every session of that user at that issuer, and of no other', async () => {
  const { users, begin, isAlive, ended } = setUp()
  const mine = [await begin('ada', 'one'), await begin('ada'), await begin('ada', 'two')]
  const others = [await begin('bob', 'one'), await begin('ada', 'one', { iss: 'https://other.test' })]
  assert.deepEqual(await users.of(claims('ada')), mine)
  assert.equal(await users.end({ iss: ISS, sub: 'ada' }, 'backchannel_logout'), 3)
  assert.deepEqual(
    ended,
    mine.map((hash) => `${hash} backchannel_logout`),
  )
  for (const hash of mine) assert.equal(await isAlive(hash), false)
  for (const hash of others) assert.equal(await isAlive(hash), true)
  assert.equal(await users.end({ iss: ISS, sub: 'ada' }, 'backchannel_logout'), 0)
})

test('ending by sid ends the sessions that began there; with a sub beside it only those that are of both', async () => {
  const { users, begin, isAlive } = setUp()
  const [one, two] = [await begin('ada', 'one'), await begin('ada', 'two')]
  assert.equal(await users.end({ iss: ISS, sub: 'bob', sid: 'one' }, 'r'), 0)
  assert.equal(await users.end({ iss: ISS, sub: 'ada', sid: 'none' }, 'r'), 0)
  assert.equal(await users.end({ iss: 'https://other.test', sid: 'one' }, 'r'), 0)
  assert.deepEqual([await isAlive(one), await isAlive(two)], [true, true])
  assert.equal(await users.end({ iss: ISS, sub: 'ada', sid: 'one' }, 'r'), 1)
  assert.equal(await users.end({ iss: ISS, sid: 'two' }, 'r'), 1)
  assert.deepEqual([await isAlive(one), await isAlive(two)], [false, false])
})

test('no choice of names makes a sub of a sid, or two users one', () => {
  const { users } = setUp()
  const names = [
    users.indexesOf({ iss: 'a', sub: 'b"c', sid: 'd' }),
    users.indexesOf({ iss: 'a"b', sub: 'c', sid: 'd"' }),
    users.indexesOf({ sub: 'b' }),
    users.indexesOf({ iss: 'null', sub: 'b' }),
    users.indexesOf({ iss: 'a', sub: 'd' }),
  ].flatMap(({ user, idpSession }) => [user, idpSession].filter((name) => name !== undefined))
  assert.equal(new Set(names).size, names.length)
  assert.equal(users.indexesOf({ iss: 'a', sub: 'b', sid: '' }).idpSession, undefined)
  assert.equal(users.indexesOf({ iss: 'a', sub: 'b', sid: 7 }).idpSession, undefined)
})

test('changing the session keys loses no session: each is found under the keys of before and after', async () => {
  const { usersUnder, begin, isAlive } = setUp()
  const [older, newer] = [(text: string) => `1(${text})`, (text: string) => `2(${text})`]
  const [added, promoted] = [usersUnder([older, newer]), usersUnder([newer, older])]
  const hashes = [
    await begin('ada', 'one', { by: added }),
    await begin('ada', 'one', { by: promoted }),
    await begin('ada', 'one', { by: added }),
  ]
  for (const users of [added, promoted]) assert.deepEqual(await users.of(claims('ada')), hashes)
  assert.equal(await added.end({ iss: ISS, sid: 'one' }, 'r'), 3)
  for (const hash of hashes) assert.equal(await isAlive(hash), false)
})

test('a logout that overtakes its login: what began before it is refused, what began after it is not', async () => {
  const { users, clock, store } = setUp()
  const refused = (error: unknown) =>
    error instanceof BffError && error.code === 'invalid_callback' && error.details?.reason === 'grant_ended'
  const before = await store.endings.last()
  await users.requireNotEnded(claims('ada', 'one'), before)
  await users.end({ iss: ISS, sid: 'one' }, 'r')
  const between = await store.endings.last()
  clock.now += 899_999
  await assert.rejects(users.requireNotEnded(claims('ada', 'one'), before), refused)
  await users.requireNotEnded(claims('ada', 'one'), between)
  await users.requireNotEnded(claims('ada', 'two'), before)
  await users.end({ iss: ISS, sub: 'ada' }, 'r')
  await assert.rejects(users.requireNotEnded(claims('ada', 'two'), between), refused)
  await users.requireNotEnded(claims('bob', 'two'), before)
  clock.now += 1
  await users.requireNotEnded(claims('bob', 'one'), before)
})

test('a sign-in races its logout: whatever comes first, no session is left', async () => {
  for (let round = 0; round < 6; round += 1) {
    const { users, begin, isAlive, store, clock } = setUp()
    // The logout begins before each step of the sign-in in turn, or after the last.
    const steps = [
      () => begin('ada', 'one'),
      () =>
        users.requireNotEnded(claims('ada', 'one'), 0).catch(() => store.sessions.end('s1' as SessionHash)),
    ] as const
    if (round === 0) await users.end({ iss: ISS, sid: 'one' }, 'r')
    clock.now += 1
    const logout = round === 1 ? users.end({ iss: ISS, sid: 'one' }, 'r') : undefined
    await steps[0]()
    if (round === 2) await users.end({ iss: ISS, sid: 'one' }, 'r')
    const late = round === 3 ? users.end({ iss: ISS, sid: 'one' }, 'r') : undefined
    await steps[1]()
    if (round >= 4) await users.end({ iss: ISS, sid: 'one' }, 'r')
    await Promise.all([logout, late])
    assert.equal(await isAlive('s1' as SessionHash), false, `round ${round}`)
  }
})

test('more sessions than one round trip ends are all ended and counted', async () => {
  const { users, begin } = setUp()
  for (let count = 0; count < 250; count += 1) await begin('ada')
  assert.equal(await users.end({ iss: ISS, sub: 'ada' }, 'r'), 250)
  assert.deepEqual(await users.of(claims('ada')), [])
})
