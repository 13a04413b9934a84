import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { SessionHash } from '../../../src/store/port.ts'

test('with more sessions than it may hold, the one used longest ago ends and is told', async (t) => {
  const store = createMemoryStore({ idleTimeoutMs: () => 1000, monotonicNow: () => 0 }, { maxSessions: 2 })
  t.after(() => store.close())
  const told: unknown[] = []
  store.invalidations.onInvalidate((hash) => told.push(hash))
  const [first, second, third] = ['first', 'second', 'third'] as SessionHash[]
  await store.sessions.create(first!, 'sealed')
  await store.sessions.create(second!, 'sealed')
  await store.sessions.slide(first!)
  await store.sessions.create(third!, 'sealed')
  assert.deepEqual(told, [second])
  assert.equal(await store.sessions.slide(second!), undefined)
  assert.ok(await store.sessions.slide(first!))
})

test('login attempts are bounded as well', async (t) => {
  const store = createMemoryStore({ idleTimeoutMs: () => 1000, monotonicNow: () => 0 }, { maxSessions: 2 })
  t.after(() => store.close())
  for (const key of ['a', 'b', 'c']) await store.logins.put(key, key, 1000)
  assert.equal(await store.logins.take('a'), undefined)
  assert.equal(await store.logins.take('c'), 'c')
})
