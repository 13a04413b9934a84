import assert from 'node:assert/strict'
import { suite } from 'node:test'
import type { SessionHash, SessionIndexes, Store } from '../../src/store/port.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { sharedCluster, sharedSentinels } from '../kit/store/shared-sets.ts'
import {
  type Contestant,
  FIRST_TOKENS,
  memoryContestant,
  redisContestant,
  redisForThisFile,
  signedIn,
  someHash,
} from '../kit/store/store-contestants.ts'
import { skipWithoutValkey, valkeyProgram } from '../kit/store/valkey.ts'

const server = redisForThisFile()
const valkey = redisForThisFile({ program: valkeyProgram() ?? 'redis-server' })

const CONTESTANTS = [
  memoryContestant,
  redisContestant(() => ({ url: server().url })),
  redisContestant(() => ({ url: valkey().url }), { name: 'Valkey', skip: skipWithoutValkey() }),
  redisContestant(async () => (await sharedCluster()).address, { name: 'Redis Cluster' }),
  redisContestant(async () => (await sharedSentinels()).address, { name: 'Redis Sentinel' }),
]

// Side by side, because most of their time is spent waiting for lives to end.
suite('every store', { concurrency: true }, () => {
  for (const contestant of CONTESTANTS) {
    suite(`the ${contestant.name} store`, { skip: contestant.skip, concurrency: 1 }, () => {
      sessionRules(contestant)
      changingRules(contestant)
      endingRules(contestant)
      indexRules(contestant)
      forgetAllRules(contestant)
      loginRules(contestant)
      replayRules(contestant)
      endingRulesOfSignIns(contestant)
      invalidationRules(contestant)
    })
  }
})

function sessionRules({ open }: Contestant): void {
  test('a session that was created is read back with the whole idle timeout before it', async (t) => {
    const { store } = await open(t, { idleTimeoutMs: 60_000 })
    const hash = someHash()
    assert.equal(await store.sessions.read(hash), undefined)
    assert.equal(await store.sessions.slide(hash), undefined)
    assert.equal(await store.sessions.timeLeft(hash), undefined)
    await store.sessions.create(hash, 'sealed ünïcode')
    assert.equal(await store.sessions.read(hash), 'sealed ünïcode')
    const leftMs = await store.sessions.timeLeft(hash)
    assert.ok(leftMs && leftMs > 59_000 && leftMs <= 60_000)
  })

  test('a session is created once: a second creation writes nothing', async (t) => {
    const { store } = await open(t)
    const hash = someHash()
    const created = await Promise.all([
      store.sessions.create(hash, 'one'),
      store.sessions.create(hash, 'two'),
    ])
    assert.deepEqual(created, [true, false])
    assert.equal(await store.sessions.read(hash), 'one')
  })

  test('what is created or locked again word for word, because its answer was lost, is the same; anything else is not', async (t) => {
    const { store } = await open(t)
    const hash = someHash()
    const twice = (step: () => Promise<boolean>) => Promise.all([step(), step()])
    assert.deepEqual(await twice(() => store.sessions.create(hash, 'sealed')), [true, true])
    assert.equal(await store.sessions.create(hash, 'another'), false)
    assert.deepEqual(await twice(() => store.tokens.create(hash, FIRST_TOKENS)), [true, true])
    assert.equal(await store.tokens.create(hash, { ...FIRST_TOKENS, refreshToken: 'another' }), false)
    assert.deepEqual(await twice(() => store.tokens.lock(hash, 'me', 60_000)), [true, true])
    assert.equal(await store.tokens.lock(hash, 'another', 60_000), false)
    await store.tokens.write(hash, { expectedVersion: 1, accessToken: { resource: 'b', sealed: 'at' } })
    assert.equal(await store.tokens.create(hash, FIRST_TOKENS), false)
  })

  test('sliding starts the idle timeout again; reading, and asking for the time left, do not', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 60_000 })
    const hash = await signedIn(store)
    await elapse(600)
    assert.equal(await store.sessions.read(hash), 'sealed')
    const untouched = await store.sessions.timeLeft(hash)
    assert.ok(untouched && untouched <= 59_400)
    assert.equal(await store.sessions.slide(hash), 60_000)
    assert.equal(await store.sessions.read(hash), 'sealed')
    const after = await store.sessions.timeLeft(hash)
    assert.ok(after && after > 59_400)
  })

  test('a session that idled for its timeout is gone, with its tokens, and cannot be written', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 300 })
    const hash = await signedIn(store)
    await elapse(300)
    assert.equal(await store.sessions.read(hash), undefined)
    assert.equal(await store.sessions.slide(hash), undefined)
    assert.equal(await store.sessions.replace(hash, { before: 'sealed', after: 'again' }), false)
    assert.equal(await store.tokens.read(hash), undefined)
    assert.equal(await store.tokens.create(hash, FIRST_TOKENS), false)
    await store.tokens.lock(hash, 'me', 60_000)
    assert.equal(await store.tokens.write(hash, { expectedVersion: 1 }), 'gone')
    assert.equal(await store.sessions.end(hash), undefined)
  })

  test('constant use carries no session beyond its absolute timeout by the clock of the store, and its tokens end with it', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 1_000, absoluteTimeoutMs: 1_750 })
    const hash = await signedIn(store)
    await elapse(750)
    const slid = await store.sessions.slide(hash)
    assert.ok(slid && slid > 500 && slid <= 1_000)
    assert.equal(await store.sessions.replace(hash, { before: 'sealed', after: 'sealed' }), true)
    assert.ok(await store.sessions.slide(hash))
    await elapse(1_000)
    assert.equal(await store.sessions.slide(hash), undefined)
    assert.equal(await store.sessions.read(hash), undefined)
    assert.equal(await store.tokens.read(hash), undefined)
    assert.equal(await store.sessions.create(hash, 'another'), true)
    assert.ok(await store.sessions.end(hash).then(() => true))
  })

  test('a record that was replaced slides as before, and keeps its tokens', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 60_000 })
    const hash = await signedIn(store)
    await elapse(600)
    assert.equal(await store.sessions.replace(hash, { before: 'sealed', after: 'changed' }), true)
    assert.equal(await store.sessions.slide(hash), 60_000)
    assert.equal(await store.sessions.read(hash), 'changed')
    const leftMs = await store.sessions.timeLeft(hash)
    assert.ok(leftMs && leftMs > 59_400)
    assert.equal((await store.tokens.read(hash))?.refreshToken, 'sealed-rt-1')
  })
}

function changingRules({ open }: Contestant): void {
  test('a change is based on the record that was read: it is refused for another and for none, tells every copy, and gives no life', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 60_000 })
    const hash = await signedIn(store)
    const told: unknown[] = []
    t.after(store.invalidations.onInvalidate((changed) => void told.push(changed)))
    await elapse(600)
    assert.equal(await store.sessions.replace(hash, { before: 'another', after: 'mine' }), false)
    assert.equal(await store.sessions.read(hash), 'sealed')
    assert.equal(await store.sessions.replace(hash, { before: 'sealed', after: 'mine' }), true)
    assert.equal(await store.sessions.read(hash), 'mine')
    const leftMs = await store.sessions.timeLeft(hash)
    assert.ok(leftMs && leftMs <= 59_400)
    assert.equal((await store.tokens.read(hash))?.refreshToken, 'sealed-rt-1')
    assert.ok(told.includes(hash))
    await store.sessions.end(hash)
    assert.equal(await store.sessions.replace(hash, { before: 'mine', after: 'revived' }), false)
    assert.equal(await store.sessions.read(hash), undefined)
  })
}

function endingRules({ open }: Contestant): void {
  test('a session that ended is not revived by a late save', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.sessions.end(hash)
    assert.equal(await store.sessions.replace(hash, { before: 'sealed', after: 'revived' }), false)
    assert.equal(await store.sessions.slide(hash), undefined)
    assert.equal(await store.sessions.read(hash), undefined)
  })

  test('ending takes session, tokens and lock in one step and gives the tokens to exactly one caller', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.tokens.lock(hash, 'me', 60_000)
    const taken = await Promise.all([
      store.sessions.end(hash),
      store.sessions.end(hash),
      store.sessions.end(hash),
    ])
    assert.deepEqual(
      taken.filter((tokens) => tokens !== undefined),
      [{ version: 1, ...FIRST_TOKENS }],
    )
    assert.equal(await store.sessions.read(hash), undefined)
    assert.equal(await store.tokens.read(hash), undefined)
    assert.equal(await store.tokens.lock(hash, 'other', 1000), true)
  })

  test('a token write that races the end of its session either comes before it or is told that it is gone', async (t) => {
    const { store } = await open(t)
    for (let round = 0; round < 50; round += 1) {
      const hash = await signedIn(store)
      await store.tokens.lock(hash, 'me', 60_000)
      const write = () => store.tokens.write(hash, { expectedVersion: 1, refreshToken: 'rt-2' })
      const end = () => store.sessions.end(hash)
      const [outcome, taken] =
        round % 2 ? await Promise.all([write(), end()]) : (await Promise.all([end(), write()])).reverse()
      const expected = outcome === 'written' ? 'rt-2' : 'sealed-rt-1'
      assert.ok(outcome === 'written' || outcome === 'gone')
      assert.equal((taken as { refreshToken?: string }).refreshToken, expected)
      assert.equal(await store.tokens.read(hash), undefined)
    }
  })
}

const INDEXES = { user: 'sub:ada', idpSession: 'idp:one' } as const

async function indexed(store: Store, indexes: SessionIndexes = INDEXES): Promise<SessionHash> {
  const hash = someHash()
  assert.equal(await store.sessions.create(hash, 'sealed', indexes), true)
  assert.equal(await store.tokens.create(hash, FIRST_TOKENS), true)
  return hash
}

const hashes = (found: readonly { readonly hash: SessionHash }[]) => found.map(({ hash }) => hash)

function indexRules({ open }: Contestant): void {
  test('sessions are found under their user, oldest first, and under their session at the provider; nobody finds those of others', async (t) => {
    const { store, elapse } = await open(t)
    assert.deepEqual(await store.index.living('sub:ada'), [])
    const mine: SessionHash[] = []
    for (const idpSession of ['idp:one', 'idp:one', 'idp:two'] as const) {
      mine.push(await indexed(store, { user: 'sub:ada', idpSession }))
      await elapse(2)
    }
    const withoutSid = await indexed(store, { user: 'sub:ada' })
    const other = await indexed(store, { user: 'sub:bob', idpSession: 'idp:three' })
    const found = await store.index.living('sub:ada')
    assert.deepEqual(hashes(found), [...mine, withoutSid])
    assert.ok(found.every(({ order }, at) => at === 0 || order > (found[at - 1]?.order ?? 0)))
    const ages = found.map(({ startedMsAgo }) => startedMsAgo ?? Number.NaN)
    assert.ok(ages.every((age, at) => age >= 0 && age < 10_000 && (at === 0 || age < ages[at - 1]!)))
    assert.deepEqual(hashes(await store.index.living('idp:one')).sort(), mine.slice(0, 2).sort())
    assert.deepEqual(hashes(await store.index.living('idp:two')), mine.slice(2))
    assert.deepEqual(hashes(await store.index.living('sub:bob')), [other])
    const [named] = await store.index.living('idp:three')
    assert.equal(named?.startedMsAgo, undefined)
  })

  test('a session is found under another name of its user as long as it lives', async (t) => {
    const { store } = await open(t)
    const mine = await indexed(store, { user: 'sub:ada', alias: 'sub:mail' })
    const other = await indexed(store, { user: 'sub:bob', idpSession: 'idp:one', alias: 'sub:mail' })
    assert.deepEqual(hashes(await store.index.living('sub:mail')).sort(), [mine, other].sort())
    await store.sessions.end(mine)
    assert.deepEqual(hashes(await store.index.living('sub:mail')), [other])
    await store.sessions.end(other)
    assert.deepEqual(await store.index.living('sub:mail'), [])
  })

  test('a session that ended, or was idle for too long, is under no name any more', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 300 })
    const [ended, idle] = [await indexed(store), await indexed(store)]
    await store.sessions.end(ended)
    for (const name of ['sub:ada', 'idp:one'] as const)
      assert.deepEqual(hashes(await store.index.living(name)), [idle])
    await elapse(300)
    const fresh = await indexed(store)
    for (const name of ['sub:ada', 'idp:one'] as const)
      assert.deepEqual(hashes(await store.index.living(name)), [fresh])
  })

  test('a session that began twice, because an answer was lost, is there once; one that was refused is not that of another', async (t) => {
    const { store } = await open(t)
    const hash = await indexed(store)
    assert.equal(await store.sessions.create(hash, 'sealed', INDEXES), true)
    assert.deepEqual(hashes(await store.index.living('sub:ada')), [hash])
    await store.sessions.end(hash)
    assert.deepEqual(await store.index.living('sub:ada'), [])
  })

  test('what a list tells of a session lives with it, is replaced, and is kept for none that has ended', async (t) => {
    const { store, elapse } = await open(t, { idleTimeoutMs: 400 })
    const hash = await indexed(store)
    assert.equal(await store.sessions.about(hash), undefined)
    assert.equal(await store.sessions.noteAbout(hash, 'sealed one'), true)
    assert.equal(await store.sessions.noteAbout(hash, 'sealed two'), true)
    await elapse(300)
    await store.sessions.slide(hash)
    await elapse(300)
    assert.equal(await store.sessions.about(hash), 'sealed two')
    await elapse(100)
    assert.equal(await store.sessions.about(hash), undefined)
    assert.equal(await store.sessions.noteAbout(hash, 'sealed late'), false)
    const ended = await indexed(store)
    await store.sessions.noteAbout(ended, 'sealed')
    await store.sessions.end(ended)
    assert.equal(await store.sessions.about(ended), undefined)
    assert.equal(await store.sessions.noteAbout(ended, 'sealed late'), false)
    assert.equal(await store.sessions.about(ended), undefined)
  })

  test('a session that began without indexes, or lost them, is under them once its use is noted, and goes with its end', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    assert.deepEqual(await store.index.living('sub:ada'), [])
    for (let times = 0; times < 2; times += 1) {
      const noted = { indexes: INDEXES, startedMsAgo: 1_000 }
      assert.equal(await store.sessions.noteAbout(hash, 'sealed', noted), true)
      const found = await store.index.living('sub:ada')
      assert.deepEqual(hashes(found), [hash])
      assert.ok(Number(found[0]?.startedMsAgo) >= 1_000 && Number(found[0]?.startedMsAgo) < 30_000)
      assert.deepEqual(hashes(await store.index.living('idp:one')), [hash])
    }
    await store.sessions.end(hash)
    assert.deepEqual(await store.index.living('sub:ada'), [])
    assert.equal(await store.sessions.noteAbout(hash, 'sealed', { indexes: INDEXES, startedMsAgo: 0 }), false)
    assert.deepEqual(await store.index.living('idp:one'), [])
  })

  test('of a user with many sessions the newest can be looked at alone', async (t) => {
    const { store, elapse } = await open(t)
    const made: SessionHash[] = []
    for (let count = 0; count < 4; count += 1) {
      made.push(await indexed(store))
      await elapse(2)
    }
    assert.deepEqual(hashes(await store.index.living('sub:ada', 2)), made.slice(2))
    assert.deepEqual(hashes(await store.index.living('sub:ada', 9)), made)
  })
}

function forgetAllRules({ open }: Contestant): void {
  test('all access tokens of a session can be removed under its version, everywhere, unless nothing could renew them', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    const told: unknown[] = []
    t.after(store.invalidations.onInvalidate((changed) => told.push(changed)))
    await store.tokens.keep(hash, { resource: 'billing', sealed: 'sealed-at-2' })
    told.length = 0
    assert.equal(await store.tokens.forgetAll(hash), true)
    assert.equal(told[0], hash)
    const after = await store.tokens.read(hash)
    assert.deepEqual([after?.version, after?.accessTokens], [1, {}])
    assert.equal(after?.refreshToken, FIRST_TOKENS.refreshToken)
    const other = someHash()
    await store.sessions.create(other, 'sealed')
    assert.equal(await store.tokens.forgetAll(other), false)
    const accessTokens = { orders: 'sealed-at-1' }
    await store.tokens.create(other, { refreshToken: undefined, accessTokens })
    assert.equal(await store.tokens.forgetAll(other), false)
    assert.deepEqual((await store.tokens.read(other))?.accessTokens, accessTokens)
  })
}

function loginRules({ open }: Contestant): void {
  test('a login attempt is taken once', async (t) => {
    const { store } = await open(t)
    await store.logins.put('attempt', 'sealed', 60_000)
    const taken = await Promise.all([store.logins.take('attempt'), store.logins.take('attempt')])
    assert.deepEqual(taken, ['sealed', undefined])
  })

  test('a record that is read stays until it is taken', async (t) => {
    const { store } = await open(t)
    await store.logins.put('reference', 'sealed', 60_000)
    assert.equal(await store.logins.read('reference'), 'sealed')
    assert.equal(await store.logins.read('reference'), 'sealed')
    assert.equal(await store.logins.take('reference'), 'sealed')
    assert.equal(await store.logins.read('reference'), undefined)
  })

  test('a login attempt that took too long is gone', async (t) => {
    const { store, elapse } = await open(t)
    await store.logins.put('attempt', 'sealed', 40)
    await elapse(40)
    assert.equal(await store.logins.take('attempt'), undefined)
  })
}

function replayRules({ open }: Contestant): void {
  test('of all that bring one message, one is first; the same id of another kind is another', async (t) => {
    const { store } = await open(t)
    const once = () => store.replays.firstUse('logout', 'jti', 60_000)
    const first = await Promise.all([once(), once(), once()])
    assert.deepEqual(first.sort(), ['first', 'pending', 'pending'])
    assert.equal(await once(), 'pending')
    assert.equal(await store.replays.firstUse('event', 'jti', 60_000), 'first')
    assert.equal(await store.replays.firstUse('logout', `jti ${'x'.repeat(5_000)}`, 60_000), 'first')
  })

  test('a message that could not be acted on may come again; one that was is known for as long as it is kept', async (t) => {
    const { store, elapse } = await open(t)
    assert.equal(await store.replays.firstUse('logout', 'jti', 60_000), 'first')
    await store.replays.forget('logout', 'jti')
    assert.equal(await store.replays.firstUse('logout', 'jti', 100), 'first')
    await store.replays.keep('logout', 'jti', 400)
    await elapse(200)
    assert.equal(await store.replays.firstUse('logout', 'jti', 60_000), 'used')
    await elapse(200)
    assert.equal(await store.replays.firstUse('logout', 'jti', 60_000), 'first')
  })
}

function endingRulesOfSignIns({ open }: Contestant): void {
  test('an ending is later than whatever asked for the last one before, and not later than what asks afterwards', async (t) => {
    const { store, elapse } = await open(t)
    const { endings } = store
    assert.equal(await endings.last(), 0)
    assert.equal(await endings.lastOf(['ada', 'sid-1']), 0)
    await endings.note(['ada'], 60_000)
    const between = await endings.last()
    assert.equal(await endings.lastOf(['ada', 'sid-1']), between)
    assert.ok(between > 0)
    assert.equal(await endings.lastOf(['bob']), 0)
    await endings.note(['sid-1', 'bob'], 200)
    assert.ok((await endings.lastOf(['ada', 'sid-1'])) > between)
    assert.equal(await endings.lastOf(['ada']), between)
    await elapse(200)
    assert.equal(await endings.lastOf(['ada', 'sid-1']), between)
    assert.equal(await endings.lastOf(['bob']), 0)
  })

  test('of endings at the same time the latest one is noted', async (t) => {
    const { store } = await open(t)
    const { endings } = store
    await Promise.all(Array.from({ length: 20 }, () => endings.note(['ada'], 60_000)))
    assert.equal(await endings.lastOf(['ada']), await endings.last())
  })
}

function invalidationRules({ open }: Contestant): void {
  test('a refresh is told once, by its access token: its mark and its refresh token are in no copy', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    const told: unknown[] = []
    t.after(store.invalidations.onInvalidate((changed) => told.push(changed)))
    await store.tokens.write(hash, { expectedVersion: 1, attempt: 'open:me' })
    await store.tokens.write(hash, { expectedVersion: 2, refreshToken: 'rt-2', attempt: 'ended' })
    assert.deepEqual(told, [])
    const accessToken = { resource: 'orders', sealed: 'sealed-at-2' }
    await store.tokens.write(hash, { expectedVersion: 3, accessToken, attempt: 'ended' })
    assert.equal(told[0], hash)
  })

  test('every change of what is copied and every end is told in this process before its promise resolves', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.tokens.lock(hash, 'me', 60_000)
    const told: unknown[] = []
    const unsubscribe = store.invalidations.onInvalidate((changed) => told.push(changed))
    assert.equal(store.invalidations.isLive(), true)
    for (const change of [
      () =>
        store.tokens.write(hash, { expectedVersion: 1, accessToken: { resource: 'orders', sealed: 'at-2' } }),
      () => store.sessions.replace(hash, { before: 'sealed', after: 'changed' }),
      () => store.tokens.forgetAll(hash),
      () => store.sessions.end(hash),
    ]) {
      told.length = 0
      await change()
      assert.equal(told[0], hash)
    }
    unsubscribe()
    told.length = 0
    await store.sessions.end(hash)
    assert.deepEqual(told, [])
  })

  test('a store that answers can be pinged', async (t) => {
    const { store } = await open(t)
    await store.ping()
  })
}
