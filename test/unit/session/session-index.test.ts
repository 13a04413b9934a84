import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { createUserSessions, listedId, type UserSessions } from '../../../src/session/session-index.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { SessionHash } from '../../../src/store/port.ts'

const ISS = 'https://idp.test'
const claims = (sub: string, sid?: string, iss = ISS) => ({ iss, sub, ...(sid === undefined ? {} : { sid }) })

const hashesOf = async (users: UserSessions, sub = 'ada') =>
  (await users.list(claims(sub))).map(({ hash }) => hash)

function setUp(pseudonyms = [(text: string) => `1(${text})`]) {
  const clock = { now: 1_000_000 }
  const store = createMemoryStore({ idleTimeoutMs: () => 3_600_000, monotonicNow: () => clock.now })
  const ended: string[] = []
  const usersUnder = (names: typeof pseudonyms, sharedIssuer?: string) =>
    createUserSessions({
      ...{ store, pseudonyms: names, signInLifetimeMs: 900_000, byEmail: true, now: () => clock.now },
      sharedIssuer,
      ended: (hash, reason) => ended.push(`${hash} ${reason}`),
      sealAbout: (hash, text) => `${hash}|${text}`,
      openAbout: (hash, sealed) =>
        sealed.startsWith(`${hash}|`) ? sealed.slice(hash.length + 1) : undefined,
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
  const endings = () => store.endings.last()
  return { store, clock, users, usersUnder, ended, begin, isAlive, endings }
}

test('ending by sub ends every session of that user at that issuer, and of no other', async () => {
  const { users, begin, isAlive, ended } = setUp()
  const mine = [await begin('ada', 'one'), await begin('ada'), await begin('ada', 'two')]
  const others = [await begin('bob', 'one'), await begin('ada', 'one', { iss: 'https://other.test' })]
  assert.deepEqual(await hashesOf(users), mine)
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

test('a session of the user that began after a moment is left; what began in a session of the provider that ended is not', async () => {
  const { users, begin, isAlive, clock, endings } = setUp()
  const early = await begin('ada', 'one')
  clock.now += 60_000
  const late = await begin('ada', 'one')
  assert.deepEqual(await users.find({ iss: ISS, sub: 'ada' }), [early, late])
  const startedBefore = clock.now - 1
  assert.equal(await users.end({ iss: ISS, sub: 'ada' }, 'r', { startedBefore: 900_000 }), 0)
  assert.equal(await users.end({ iss: ISS, sub: 'ada' }, 'r', { startedBefore }), 1)
  assert.deepEqual([await isAlive(early), await isAlive(late)], [false, true])
  await users.requireNotEnded(claims('ada', 'one'), await endings())
  assert.equal(await users.end({ iss: ISS, sid: 'one' }, 'r', { startedBefore }), 1)
})

test('an end that is about what began earlier refuses no sign-in that is on its way', async () => {
  const { users, clock, endings } = setUp()
  const before = await endings()
  await users.end({ iss: ISS, sub: 'ada' }, 'r', { startedBefore: clock.now - 1 })
  await users.requireNotEnded(claims('ada'), before)
  await users.end({ iss: ISS, sub: 'ada' }, 'r', { startedBefore: clock.now + 60_000 })
  await assert.rejects(users.requireNotEnded(claims('ada'), before), { code: 'invalid_callback' })
})

test('an e-mail address finds the sessions that it is verified for, in any case of its letters', async () => {
  const { users, store, isAlive } = setUp()
  const at = (email: unknown, isVerified: unknown, sub: string) => ({
    ...{ iss: ISS, sub, email, email_verified: isVerified },
  })
  const people = [
    at('Ada@Example.com', true, 'ada'),
    at('ada@example.com', 'true', 'eve'),
    at('ada@example.com', undefined, 'mallory'),
    at(['ada@example.com'], true, 'trent'),
  ]
  for (const one of people) {
    await store.sessions.create(one.sub as SessionHash, 'sealed', users.indexesOf(one))
    await store.tokens.create(one.sub as SessionHash, { refreshToken: undefined, accessTokens: {} })
  }
  assert.equal(await users.end({ email: 'ADA@example.com' }, 'r'), 1)
  const alive = await Promise.all(people.map(({ sub }) => isAlive(sub as SessionHash)))
  assert.deepEqual(alive, [false, true, true, true])
  await assert.rejects(users.requireNotEnded(people[0]!, 0), { code: 'invalid_callback' })
})

test('no choice of names makes a sub of a sid, or two users one, and an address names nobody', () => {
  const { users } = setUp()
  const names = [
    users.indexesOf({ iss: 'a', sub: 'b"c', sid: 'd' }),
    users.indexesOf({ iss: 'a"b', sub: 'c', sid: 'd"' }),
    users.indexesOf({ sub: 'b' }),
    users.indexesOf({ iss: 'null', sub: 'b' }),
    users.indexesOf({ iss: 'a', sub: 'd' }),
  ].flatMap(({ user, idpSession }) => [user, idpSession].filter((name) => name !== undefined))
  assert.equal(new Set(names).size, names.length)
  const [ada, bob] = ['ada', 'bob'].map((sub) => ({ iss: 'a', sub, email: 'one@example.test', upn: 'one' }))
  assert.notEqual(users.indexesOf(ada!).user, users.indexesOf(bob!).user)
  assert.equal(
    users.indexesOf({ ...ada!, email: 'two@example.test', upn: 'two' }).user,
    users.indexesOf(ada!).user,
  )
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
  for (const users of [added, promoted]) assert.deepEqual(await hashesOf(users), hashes)
  assert.equal(await added.end({ iss: ISS, sid: 'one' }, 'r'), 3)
  for (const hash of hashes) assert.equal(await isAlive(hash), false)
})

test('a logout that overtakes its login: what began before it is refused; what began after it is not, unless it is of that very session of the provider', async () => {
  const { users, clock, store } = setUp()
  const refused = (error: unknown) =>
    error instanceof BffError && error.code === 'invalid_callback' && error.details?.reason === 'grant_ended'
  const before = await store.endings.last()
  await users.requireNotEnded(claims('ada', 'one'), before)
  await users.end({ iss: ISS, sid: 'one' }, 'r')
  const between = await store.endings.last()
  clock.now += 899_999
  await assert.rejects(users.requireNotEnded(claims('ada', 'one'), before), refused)
  await assert.rejects(users.requireNotEnded(claims('ada', 'one'), between), refused)
  await users.requireNotEnded(claims('ada', 'two'), before)
  await users.end({ iss: ISS, sub: 'ada' }, 'r')
  await assert.rejects(users.requireNotEnded(claims('ada', 'two'), between), refused)
  await users.requireNotEnded(claims('ada', 'two'), await store.endings.last())
  await users.requireNotEnded(claims('bob', 'two'), before)
  clock.now += 1
  await users.requireNotEnded(claims('bob', 'one'), before)
})

test('a provider for many tenants names a session without its tenant, as Entra ID does at a front-channel logout', async () => {
  const { begin, isAlive, usersUnder } = setUp()
  const [shared, tenant] = ['https://login.test/organizations/v2.0', 'https://login.test/one/v2.0']
  const users = usersUnder([(text) => `1(${text})`], shared)
  const hashes = [
    await begin('ada', 'one', { iss: tenant, by: users }),
    await begin('ada', 'two', { iss: tenant, by: users }),
    await begin('bob', 'three', { iss: tenant, by: users }),
  ]
  assert.equal(await users.end({ iss: shared, sid: 'one' }, 'r'), 1)
  assert.equal(await users.end({ iss: tenant, sid: 'two' }, 'r'), 1)
  assert.equal(await users.end({ iss: tenant, sub: 'ada', sid: 'three' }, 'r'), 0)
  const before = Number.MAX_SAFE_INTEGER
  await assert.rejects(users.requireNotEnded(claims('ada', 'one', tenant), before), {
    code: 'invalid_callback',
  })
  assert.deepEqual(await Promise.all(hashes.map(isAlive)), [false, false, true])
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
  assert.deepEqual(await hashesOf(users), [])
})

test('a list names each session for its user alone, and says from where it is used, the one used last first', async () => {
  const { store, users, begin } = setUp()
  const [one, two, three] = [await begin('ada'), await begin('ada'), await begin('ada')]
  const about = (lastSeen: number) => JSON.stringify({ created: 1_000, lastSeen, userAgent: 'UA', ip: '::1' })
  await store.sessions.noteAbout(one, `${one}|${about(3_000)}`)
  await store.sessions.noteAbout(two, `${two}|${about(4_000)}`)
  await store.sessions.noteAbout(three, `sealed with a key that is gone`)
  const told = { created: 1_000, userAgent: 'UA', ip: '::1' }
  const listed = await users.list(claims('ada'))
  assert.deepEqual(listed, [
    { id: listedId(two), hash: two, ...told, lastSeen: 4_000 },
    { id: listedId(one), hash: one, ...told, lastSeen: 3_000 },
    { id: listedId(three), hash: three },
  ])
  for (const { id, hash } of listed) {
    assert.match(id, /^[\w-]{22}$/)
    assert.ok(!id.includes(hash))
  }
  assert.deepEqual(await users.list(claims('bob')), [])
})

test('the use of a session is kept for the list, its browser cut to a length, and notes it under its names again', async () => {
  const { store, users, clock } = setUp()
  const hash = 'begun-before-there-were-indexes' as SessionHash
  const session = { hash, createdAt: clock.now - 5_000, claims: claims('ada', 'one') }
  await users.noteUse(session, { ip: '::1', userAgent: 'none' })
  assert.deepEqual(await users.list(claims('ada')), [], 'it is not there')
  await store.sessions.create(hash, 'sealed')
  await users.noteUse(session, { ip: '192.0.2.7', userAgent: 'x'.repeat(1_000) })
  const told = {
    created: clock.now - 5_000,
    lastSeen: clock.now,
    ip: '192.0.2.7',
    userAgent: 'x'.repeat(256),
  }
  assert.deepEqual(await users.list(claims('ada')), [{ id: listedId(hash), hash, ...told }])
  await users.noteUse(session, { ip: '192.0.2.8' })
  assert.equal((await users.list(claims('ada')))[0]?.userAgent, undefined)
  assert.equal(await users.end({ iss: ISS, sub: 'ada' }, 'r', { startedBefore: clock.now - 6_000 }), 0)
  assert.equal(await users.endOldest(claims('ada'), 0), 0)
  assert.equal((await users.find({ iss: ISS, sid: 'one' })).length, 1)
})

test('a user ends one session or all others, and nobody ends those of another user', async () => {
  const { users, begin, isAlive, ended } = setUp()
  const [own, phone, laptop, ofBob] = [
    await begin('ada'),
    await begin('ada'),
    await begin('ada'),
    await begin('bob'),
  ]
  for (const id of [listedId(ofBob), ofBob, phone, '', 'x'.repeat(22)])
    assert.equal(await users.endOne(claims('ada'), id, 'by_user'), false, id)
  assert.deepEqual(await hashesOf(users), [own, phone, laptop])
  assert.equal(await users.endOne(claims('ada'), listedId(phone), 'by_user'), true)
  assert.equal(await users.endOne(claims('ada'), listedId(phone), 'by_user'), false)
  assert.equal(await users.endOthers(claims('ada'), own, 'by_user'), 1)
  assert.deepEqual([await isAlive(own), await isAlive(phone), await isAlive(laptop)], [true, false, false])
  assert.equal(await isAlive(ofBob), true)
  assert.deepEqual(ended, [`${phone} by_user`, `${laptop} by_user`])
})

test('of more sessions than a list shows, those that began last are listed and can be ended one by one, and the own is always there', async () => {
  const { users, begin } = setUp([(text) => `1(${text})`, (text) => `2(${text})`])
  const hashes: SessionHash[] = []
  for (let count = 0; count < 120; count += 1) hashes.push(await begin('ada'))
  assert.deepEqual(await hashesOf(users), hashes.slice(-100))
  const listed = (own: number) => users.list(claims('ada'), { own: hashes[own]! })
  const ofOldest = await listed(0)
  assert.deepEqual(ofOldest.map(({ hash }) => hash).sort(), [hashes[0], ...hashes.slice(-100)].sort())
  assert.equal((await listed(119)).length, 100, 'its own stands there once')
  assert.equal(await users.endOne(claims('ada'), listedId(hashes[0]!), 'by_user'), false)
  assert.equal(await users.endOthers(claims('ada'), hashes[119]!, 'by_user'), 119)
})

test('beyond so many sessions the oldest end, the same for every replica that looks at once', async () => {
  const { users, begin, ended, isAlive } = setUp()
  const hashes = [await begin('ada'), await begin('ada'), await begin('ada'), await begin('bob')]
  assert.equal(await users.endOldest(claims('ada'), 3), 0)
  const counts = await Promise.all([users.endOldest(claims('ada'), 1), users.endOldest(claims('ada'), 1)])
  assert.equal(counts[0] + counts[1], 2)
  assert.deepEqual(ended, [`${hashes[0]} max_per_user`, `${hashes[1]} max_per_user`])
  assert.deepEqual([await isAlive(hashes[2]!), await isAlive(hashes[3]!)], [true, true])
})
