import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createExpiringMap } from '../../../src/store/memory/expiring-map.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { SessionHash } from '../../../src/store/port.ts'

test('with more sessions than it may hold, the one used longest ago ends and is told', async (t) => {
  const store = createMemoryStore({ idleTimeoutMs: () => 1000, now: () => 0 }, { maxSessions: 2 })
  t.after(() => store.close())
  const told: unknown[] = []
  store.invalidations.onInvalidate((hash) => told.push(hash))
  const [first, second, third] = ['first', 'second', 'third'] as SessionHash[]
  await store.sessions.create(first!, 'sealed')
  await store.sessions.create(second!, 'sealed')
  await store.sessions.read(first!, { slide: true })
  await store.sessions.create(third!, 'sealed')
  assert.deepEqual(told, [second])
  assert.equal(await store.sessions.read(second!, { slide: true }), undefined)
  assert.ok(await store.sessions.read(first!, { slide: true }))
})

test('login attempts are bounded as well', async (t) => {
  const store = createMemoryStore({ idleTimeoutMs: () => 1000, now: () => 0 }, { maxSessions: 2 })
  t.after(() => store.close())
  for (const key of ['a', 'b', 'c']) await store.logins.put(key, key, 1000)
  assert.equal(await store.logins.take('a'), undefined)
  assert.equal(await store.logins.take('c'), 'c')
})

test('sweeping removes what nobody asks for any more', () => {
  let time = 0
  const map = createExpiringMap<string, string>({ now: () => time, max: 10 })
  map.set('short', 'x', 10)
  map.set('long', 'y', 100)
  time = 10
  assert.equal(map.size(), 2)
  map.sweep()
  assert.equal(map.size(), 1)
  assert.equal(map.get('long'), 'y')
})

test('an entry that has ended anyway is not reported as evicted', () => {
  let time = 0
  const evicted: string[] = []
  const map = createExpiringMap<string, string>({
    now: () => time,
    max: 1,
    evicted: (key) => evicted.push(key),
  })
  map.set('a', 'x', 10)
  time = 10
  map.set('b', 'y', 10)
  assert.deepEqual(evicted, [])
  map.set('c', 'z', 10)
  assert.deepEqual(evicted, ['b'])
})

test('updating keeps the end of an entry, and does nothing for one that has ended', () => {
  let time = 0
  const map = createExpiringMap<string, string>({ now: () => time, max: 1 })
  map.set('a', 'x', 10)
  time = 4
  map.update('a', 'y')
  assert.equal(map.get('a'), 'y')
  assert.equal(map.expiresInMs('a'), 6)
  time = 10
  map.update('a', 'z')
  assert.equal(map.get('a'), undefined)
  assert.equal(map.expiresInMs('a'), 0)
})
