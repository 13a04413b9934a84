import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { steadyTest } from '../kit/steady.ts'
import {
  type Contestant,
  FIRST_TOKENS,
  memoryContestant,
  redisContestant,
  redisForThisFile,
  signedIn,
  someHash,
} from '../kit/store/store-contestants.ts'

const server = redisForThisFile()

for (const contestant of [memoryContestant, redisContestant(server)]) {
  suite(`token records of the ${contestant.name} store`, { skip: contestant.skip }, () => {
    tokenRules(contestant)
    lockRules(contestant)
    clientTokenRules(contestant)
  })
}

function tokenRules({ open }: Contestant): void {
  test('tokens are created for a living session only, and once', async (t) => {
    const { store } = await open(t)
    assert.equal(await store.tokens.create(someHash(), FIRST_TOKENS), false)
    const hash = await signedIn(store)
    assert.equal(await store.tokens.create(hash, { refreshToken: 'other', accessTokens: {} }), false)
    assert.deepEqual(await store.tokens.read(hash), { version: 1, ...FIRST_TOKENS })
  })

  test('a record without refresh token and access tokens is a record all the same', async (t) => {
    const { store } = await open(t)
    const hash = someHash()
    await store.sessions.create(hash, 'sealed')
    assert.equal(await store.tokens.read(hash), undefined)
    await store.tokens.create(hash, { refreshToken: undefined, accessTokens: {} })
    assert.deepEqual(await store.tokens.read(hash), { version: 1, refreshToken: undefined, accessTokens: {} })
  })

  test('a write changes what it names, keeps the rest and raises the version', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.tokens.lock(hash, 'me', 60_000)
    const accessToken = { resource: 'v', sealed: 'sealed-at-2' }
    assert.equal(await store.tokens.write(hash, { expectedVersion: 1, accessToken }), 'written')
    assert.deepEqual(await store.tokens.read(hash), {
      version: 2,
      refreshToken: 'sealed-rt-1',
      accessTokens: { orders: 'sealed-at-1', v: 'sealed-at-2' },
    })
    const refreshToken = 'sealed-rt-2'
    assert.equal(await store.tokens.write(hash, { expectedVersion: 2, refreshToken }), 'written')
    assert.equal((await store.tokens.read(hash))?.refreshToken, 'sealed-rt-2')
  })

  test('a write is refused when its version is not the current one', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    for (const expectedVersion of [0, 2, 10]) {
      assert.equal(await store.tokens.write(hash, { expectedVersion, refreshToken: 'late' }), 'superseded')
    }
    assert.deepEqual(await store.tokens.read(hash), { version: 1, ...FIRST_TOKENS })
  })

  test('of two who begin a refresh attempt at once one is told so, and the other cannot write any more', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    const begin = (owner: string) =>
      store.tokens.write(hash, { expectedVersion: 1, attempt: `open:${owner}` })
    assert.deepEqual(await Promise.all([begin('a'), begin('b')]), ['written', 'superseded'])
    assert.equal(await begin('a'), 'written', 'the same again, because its answer was lost')
    assert.equal((await store.tokens.read(hash))?.attempt, 'open:a')
    await store.tokens.write(hash, { expectedVersion: 2, refreshToken: 'rotated' })
    assert.equal((await store.tokens.read(hash))?.attempt, 'open:a')
    await store.tokens.write(hash, { expectedVersion: 3, attempt: 'lost' })
    assert.equal((await store.tokens.read(hash))?.attempt, 'lost')
    await store.tokens.write(hash, { expectedVersion: 4, attempt: 'ended' })
    assert.deepEqual(await store.tokens.read(hash), { ...FIRST_TOKENS, version: 5, refreshToken: 'rotated' })
  })

  test('of two writes based on the same version one is refused', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.tokens.lock(hash, 'me', 60_000)
    const write = (refreshToken: string) => store.tokens.write(hash, { expectedVersion: 1, refreshToken })
    assert.deepEqual(await Promise.all([write('one'), write('two')]), ['written', 'superseded'])
    assert.equal((await store.tokens.read(hash))?.refreshToken, 'one')
  })

  test('a token that costs no refresh token is kept beside a refresh attempt in flight without fencing it off', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.tokens.write(hash, { expectedVersion: 1, attempt: 'open:me' })
    assert.equal(await store.tokens.keep(hash, { resource: 'ledger', sealed: 'sealed-x' }), true)
    assert.equal(await store.tokens.write(hash, { expectedVersion: 2, refreshToken: 'rotated' }), 'written')
    assert.deepEqual(await store.tokens.read(hash), {
      ...{ version: 3, attempt: 'open:me', refreshToken: 'rotated' },
      accessTokens: { ...FIRST_TOKENS.accessTokens, ledger: 'sealed-x' },
    })
    await store.sessions.end(hash)
    assert.equal(await store.tokens.keep(hash, { resource: 'ledger', sealed: 'late' }), false)
    assert.equal(await store.tokens.read(hash), undefined)
  })

  test('a write repeated word for word, because its answer was lost, succeeds without a second change', async (t) => {
    const { store } = await open(t)
    const hash = await signedIn(store)
    await store.tokens.lock(hash, 'me', 60_000)
    const change = { expectedVersion: 1, accessToken: { resource: 'orders', sealed: 'at-2' } }
    assert.equal(await store.tokens.write(hash, change), 'written')
    await store.tokens.unlock(hash, 'me')
    assert.equal(await store.tokens.write(hash, change), 'written')
    assert.equal((await store.tokens.read(hash))?.version, 2)
    assert.equal(await store.tokens.write(hash, { ...change, refreshToken: 'more' }), 'superseded')
  })
}

function clientTokenRules({ open }: Contestant): void {
  steadyTest("a client's token is read by all until it ends, and the next one takes its place", async (t) => {
    const { store, elapse } = await open(t)
    const { clientTokens } = store
    assert.equal(await clientTokens.read('audit'), undefined)
    await clientTokens.write('audit', 'sealed-1', 60_000)
    await clientTokens.write('audit', 'sealed-2', 40)
    assert.equal(await clientTokens.read('audit'), 'sealed-2')
    assert.equal(await clientTokens.read('another'), undefined)
    await elapse(40)
    assert.equal(await clientTokens.read('audit'), undefined)
  })

  test("the lock of a client's token is taken by one owner, given back by that owner only, and ends by itself", async (t) => {
    const { store, elapse } = await open(t)
    const take = (owner: string, ttlMs = 60_000) => store.clientTokens.lock('audit', owner, ttlMs)
    assert.deepEqual(await Promise.all([take('a'), take('b')]), [true, false])
    await store.clientTokens.unlock('audit', 'b')
    assert.equal(await take('b'), false)
    await store.clientTokens.unlock('audit', 'a')
    assert.equal(await take('b', 40), true)
    await elapse(40)
    assert.equal(await take('c'), true)
  })
}

function lockRules({ open }: Contestant): void {
  test('the refresh lock is taken by one owner and given back by that owner only', async (t) => {
    const { store } = await open(t)
    const hash = someHash()
    const take = (owner: string) => store.tokens.lock(hash, owner, 60_000)
    assert.deepEqual(await Promise.all([take('a'), take('b'), take('a')]), [true, false, true])
    await store.tokens.unlock(hash, 'b')
    assert.equal(await take('b'), false)
    await store.tokens.unlock(hash, 'a')
    assert.equal(await take('b'), true)
  })

  test('a refresh lock that is not released ends by itself', async (t) => {
    const { store, elapse } = await open(t)
    const hash = someHash()
    await store.tokens.lock(hash, 'slow', 40)
    await elapse(40)
    assert.equal(await store.tokens.lock(hash, 'next', 60_000), true)
    await store.tokens.unlock(hash, 'slow')
    assert.equal(await store.tokens.lock(hash, 'third', 60_000), false)
  })
}
