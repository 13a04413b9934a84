import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mostWaiting } from '../../../src/async/semaphore.ts'
import type { BffError } from '../../../src/errors.ts'
import { createSessionCache, type SessionCacheDeps } from '../../../src/session/session-cache.ts'
import type { Invalidations, SessionHash } from '../../../src/store/port.ts'

const ALICE = 'alice' as SessionHash
const BOB = 'bob' as SessionHash

function setUp(options: Partial<SessionCacheDeps<string>> = {}) {
  const world = { time: 0, live: true, reads: 0 }
  const listeners = new Set<(hash: SessionHash | undefined) => void>()
  const invalidations: Invalidations = {
    isLive: () => world.live,
    onInvalidate(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
  const cache = createSessionCache<string>({
    invalidations,
    trustedMs: 5000,
    max: 100,
    maxBytes: 1_000_000,
    monotonicNow: () => world.time,
    ...options,
  })
  return {
    world,
    cache,
    listeners,
    invalidate: (hash: SessionHash | undefined) => {
      for (const listener of listeners) listener(hash)
    },
    reading: (value: string | undefined) => async () => {
      world.reads += 1
      return value
    },
  }
}

/** A read that ends when the test says so. */
function heldRead() {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  return { read: () => promise, resolve, reject }
}

test('a copy is trusted for its time and then read again', async () => {
  const { cache, world, reading } = setUp()
  assert.equal(cache.peek('k'), undefined)
  assert.equal(await cache.load('k', ALICE, reading('one')), 'one')
  world.time = 4999
  assert.equal(cache.peek('k'), 'one')
  assert.equal(await cache.load('k', ALICE, reading('two')), 'one')
  world.time = 5000
  assert.equal(cache.peek('k'), undefined)
  assert.equal(await cache.load('k', ALICE, reading('two')), 'two')
  assert.equal(world.reads, 2)
})

test('a session is found by its hash under whatever key it was read, for as long as that copy is trusted', async () => {
  const { cache, world, reading, invalidate } = setUp()
  const load = () => cache.load('background k', ALICE, reading('one'))
  assert.equal(cache.peekOf(ALICE), undefined)
  await load()
  assert.equal(cache.peekOf(ALICE), 'one')
  assert.equal(cache.peekOf(BOB), undefined)
  world.live = false
  assert.equal(cache.peekOf(ALICE), undefined)
  world.live = true
  world.time = 5000
  assert.equal(cache.peekOf(ALICE), undefined)
  await load()
  invalidate(ALICE)
  assert.equal(cache.peekOf(ALICE), undefined)
})

test('the time of a copy counts from the start of its read', async () => {
  const { cache, world } = setUp()
  const held = heldRead()
  const loaded = cache.load('k', ALICE, held.read)
  world.time = 3000
  held.resolve('one')
  await loaded
  world.time = 5000
  assert.equal(cache.peek('k'), undefined)
})

test('a value that ends sooner is not trusted beyond its end', async () => {
  const { cache, world, reading } = setUp({ lifeMs: () => 1000 })
  await cache.load('k', ALICE, reading('one'))
  world.time = 999
  assert.equal(cache.peek('k'), 'one')
  world.time = 1000
  assert.equal(cache.peek('k'), undefined)
})

test('an invalidation drops every copy of its session and no other', async () => {
  const { cache, invalidate, reading } = setUp()
  await cache.load('a1', ALICE, reading('one'))
  await cache.load('a2', ALICE, reading('two'))
  await cache.load('b', BOB, reading('bob'))
  invalidate(ALICE)
  assert.deepEqual([cache.peek('a1'), cache.peek('a2'), cache.peek('b')], [undefined, undefined, 'bob'])
  invalidate(undefined)
  assert.equal(cache.peek('b'), undefined)
  assert.equal(cache.size, 0)
})

test('a copy that was replaced is still dropped by an invalidation', async () => {
  const { cache, world, invalidate, reading } = setUp()
  await cache.load('k', ALICE, reading('one'))
  world.time = 6000
  await cache.load('k', ALICE, reading('two'))
  invalidate(ALICE)
  assert.equal(cache.peek('k'), undefined)
})

for (const [name, hash] of [
  ['its session', ALICE],
  ['every session', undefined],
] as const) {
  test(`a read that began before an invalidation of ${name} is answered but not kept`, async () => {
    const { cache, invalidate } = setUp()
    const held = heldRead()
    const loaded = cache.load('k', ALICE, held.read)
    invalidate(hash)
    held.resolve('from before')
    assert.equal(await loaded, 'from before')
    assert.equal(cache.peek('k'), undefined)
    assert.equal(cache.size, 0)
  })
}

test('a load after an invalidation does not share the read from before it, and its own copy is kept', async () => {
  const { cache, invalidate } = setUp()
  const before = heldRead()
  const after = heldRead()
  const loadedBefore = cache.load('k', ALICE, before.read)
  invalidate(ALICE)
  const loadedAfter = cache.load('k', ALICE, after.read)
  after.resolve('new')
  assert.equal(await loadedAfter, 'new')
  before.resolve('old')
  assert.equal(await loadedBefore, 'old')
  assert.equal(cache.peek('k'), 'new')
})

test('an invalidation of another session leaves a read in flight alone', async () => {
  const { cache, invalidate } = setUp()
  const held = heldRead()
  const loaded = cache.load('k', ALICE, held.read)
  invalidate(BOB)
  held.resolve('one')
  await loaded
  assert.equal(cache.peek('k'), 'one')
})

test('concurrent loads of one key share one read, also when it fails', async () => {
  const { cache, world, reading } = setUp()
  const both = [cache.load('k', ALICE, reading('one')), cache.load('k', ALICE, reading('one'))]
  assert.deepEqual(await Promise.all(both), ['one', 'one'])
  assert.equal(world.reads, 1)

  const held = heldRead()
  const failing = [cache.load('f', ALICE, held.read), cache.load('f', ALICE, reading('never'))]
  held.reject(new Error('store is away'))
  for (const load of failing) await assert.rejects(load, /store is away/)
  assert.equal(await cache.load('f', ALICE, reading('back')), 'back')
})

test('an absent value is not kept', async () => {
  const { cache, world, reading } = setUp()
  assert.equal(await cache.load('k', ALICE, reading(undefined)), undefined)
  assert.equal(await cache.load('k', ALICE, reading('now there')), 'now there')
  assert.equal(world.reads, 2)
})

test('while invalidations do not reach us nothing is trusted, shared or kept', async () => {
  const { cache, world, reading } = setUp()
  await cache.load('k', ALICE, reading('copy'))
  world.live = false
  assert.equal(cache.peek('k'), undefined)
  const both = [cache.load('k', ALICE, reading('read')), cache.load('k', ALICE, reading('read'))]
  assert.deepEqual(await Promise.all(both), ['read', 'read'])
  assert.equal(world.reads, 3)
  await cache.load('other', ALICE, reading('read'))
  world.live = true
  assert.equal(cache.peek('other'), undefined)
})

test('a read that began while invalidations were lost is not kept when they are back', async () => {
  const { cache, world } = setUp()
  world.live = false
  const held = heldRead()
  const loaded = cache.load('k', ALICE, held.read)
  world.live = true
  held.resolve('maybe old')
  await loaded
  assert.equal(cache.peek('k'), undefined)
})

test('no more than max copies are held: the one unused longest goes', async () => {
  const { cache, invalidate, reading } = setUp({ max: 2 })
  await cache.load('a', ALICE, reading('a'))
  await cache.load('b', BOB, reading('b'))
  cache.peek('a')
  await cache.load('c', BOB, reading('c'))
  assert.equal(cache.size, 2)
  assert.deepEqual([cache.peek('a'), cache.peek('b'), cache.peek('c')], ['a', undefined, 'c'])
  invalidate(BOB)
  assert.equal(cache.size, 1)
})

test('a closed cache holds nothing and listens to nothing', async () => {
  const { cache, listeners, reading } = setUp()
  await cache.load('k', ALICE, reading('one'))
  cache.close()
  assert.equal(cache.size, 0)
  assert.equal(listeners.size, 0)
})

test('what was begun before it is asked for is shared, and kept', async () => {
  const { cache, world, reading } = setUp()
  cache.prefetch('k', ALICE, reading('one'))
  assert.equal(await cache.load('k', ALICE, reading('two')), 'one')
  cache.prefetch('k', ALICE, reading('two'))
  assert.equal(cache.peek('k'), 'one')
  assert.equal(world.reads, 1)
})

test('what was begun before a change is not shared by whoever asks after it', async () => {
  const { cache, invalidate, reading } = setUp()
  const held = heldRead()
  cache.prefetch('k', ALICE, held.read)
  invalidate(ALICE)
  const asked = cache.load('k', ALICE, reading('new'))
  held.resolve('old')
  assert.equal(await asked, 'new')
  assert.equal(cache.peek('k'), 'new')
})

test('nothing is begun while no copy is trusted, and a failure is met by who asks', async () => {
  const { cache, world, reading } = setUp()
  const held = heldRead()
  cache.prefetch('k', ALICE, held.read)
  const asked = cache.load('k', ALICE, reading('two'))
  held.reject(new Error('away'))
  await assert.rejects(asked, /away/)
  world.live = false
  cache.prefetch('k', ALICE, reading('two'))
  assert.equal(world.reads, 0)
})

const WAITING_LATELY = Math.floor(mostWaiting(1_000) / 4)
/** The places of sessions that were read lately; below those of all others. */
const MOST_LATELY = 64 + WAITING_LATELY
const AT_ONCE = 192
const MOST = AT_ONCE + mostWaiting(1_000) - WAITING_LATELY

test('so many reads go to the store at a time, the others in order of arrival, and those beyond a line are told to come back', async () => {
  for (const live of [true, false]) {
    const { cache, world } = setUp()
    world.live = live
    const { read, resolve } = heldRead()
    let begun = 0
    const counted = () => {
      begun += 1
      return read()
    }
    const waiting = Array.from({ length: MOST }, (_, n) => cache.load(`${live} ${n}`, ALICE, counted))
    assert.equal(begun, AT_ONCE)
    const refused = await Promise.all(
      Array.from({ length: 50 }, (_, n) =>
        cache.load(`more ${n}`, BOB, async () => 'value').catch((error: BffError) => error),
      ),
    )
    for (const error of refused) assert.equal((error as BffError).code, 'store_unavailable')
    assert.equal((refused[0] as BffError).retryAfterSeconds, 2)
    resolve('one')
    assert.ok((await Promise.all(waiting)).every((value) => value === 'one'))
    assert.equal(begun, MOST)
    assert.equal(await cache.load('one more', BOB, async () => 'value'), 'value')
  }
})

test('a session that was read in the last minute is read beside a crowd of others, and one that was not is refused', async () => {
  for (const live of [true, false]) {
    const { cache, world, reading } = setUp()
    world.live = live
    await cache.load('alice', ALICE, reading('one'))
    world.time = 60_000
    const crowd = heldRead()
    const waiting = Array.from({ length: MOST }, (_, n) => cache.load(`${n}`, BOB, crowd.read))
    assert.equal(await cache.load('alice', ALICE, reading('two')), 'two')
    await assert.rejects(cache.load('bob', BOB, reading('two')), { code: 'store_unavailable' })
    world.time = 200_000
    await assert.rejects(cache.load('alice', ALICE, reading('three')), { code: 'store_unavailable' })
    crowd.resolve('one')
    await Promise.all(waiting)
  }
})

test('sessions that were read lately take the places of all others when theirs do not suffice', async () => {
  const { cache, world, reading } = setUp()
  await cache.load('k', ALICE, reading('one'))
  world.time = 5_000
  const { read, resolve } = heldRead()
  const waiting = Array.from({ length: MOST_LATELY + MOST }, (_, n) => cache.load(`${n}`, ALICE, read))
  await assert.rejects(cache.load('one more', ALICE, read), { code: 'store_unavailable' })
  resolve('one')
  assert.ok((await Promise.all(waiting)).every((value) => value === 'one'))
})

test('a session that has ended keeps no place', async () => {
  const { cache, world, reading, invalidate } = setUp()
  await cache.load('k', ALICE, reading('one'))
  invalidate(ALICE)
  await cache.load('k', ALICE, reading(undefined))
  const crowd = heldRead()
  const waiting = Array.from({ length: MOST }, (_, n) => cache.load(`${n}`, BOB, crowd.read))
  await assert.rejects(cache.load('k', ALICE, reading('one')), { code: 'store_unavailable' })
  assert.equal(world.reads, 2)
  crowd.resolve('one')
  await Promise.all(waiting)
})

test('a read that fails is waited for no more', async () => {
  const { cache } = setUp()
  const { read, reject } = heldRead()
  const waiting = Array.from({ length: MOST }, (_, n) => cache.load(`${n}`, ALICE, read))
  reject(new Error('away'))
  for (const one of await Promise.allSettled(waiting)) assert.equal(one.status, 'rejected')
  assert.equal(await cache.load('next', BOB, async () => 'value'), 'value')
})
