import assert from 'node:assert/strict'
import { test } from 'node:test'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createExpiringMap, heapBytes, heapShare, ownText } from '../../../src/async/expiring-map.ts'

test('sweeping removes what nobody asks for any more', () => {
  let time = 0
  const map = createExpiringMap<string, string>({ monotonicNow: () => time, max: 10 })
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
    monotonicNow: () => time,
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
  const map = createExpiringMap<string, string>({ monotonicNow: () => time, max: 1 })
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

test('an entry that is asked for outlives one that is not', () => {
  const map = createExpiringMap<string, number>({ monotonicNow: () => 0, max: 2 })
  map.set('a', 1, 10)
  map.set('b', 2, 10)
  map.get('a')
  map.set('c', 3, 10)
  assert.deepEqual([map.get('a'), map.get('b'), map.get('c')], [1, undefined, 3])
})

test('a map holds no more bytes than it may, and no entry that alone takes more', () => {
  const removed: string[] = []
  const map = createExpiringMap<string, string>({
    ...{ monotonicNow: () => 0, max: 100 },
    bytes: { max: 1_000, of: (value) => value.length },
    removed: (key) => removed.push(key),
  })
  for (const key of ['a', 'b', 'c']) map.set(key, 'x'.repeat(400), 10)
  assert.deepEqual(removed, ['a'])
  map.set('b', 'x'.repeat(1_100), 10)
  assert.equal(map.get('b'), undefined)
  map.update('c', 'x'.repeat(900))
  map.set('d', 'x'.repeat(200), 10)
  assert.deepEqual([map.size(), removed.toSorted()], [1, ['a', 'b', 'c']])
  for (let n = 0; n < 200; n += 1) map.set(`small ${n}`, '', 10)
  assert.ok(map.size() <= 100, `${map.size()} entries`)
})

test('what has ended goes although nobody asks, and the timer for it ends with the last entry', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let time = 0
  const map = createExpiringMap<string, string>({ monotonicNow: () => time, max: 10, sweepMs: 100 })
  map.set('short', 'x', 50)
  map.set('long', 'y', 150)
  for (const [at, left] of [
    [100, 1],
    [200, 0],
  ] as const) {
    time = at
    t.mock.timers.tick(100)
    assert.equal(map.size(), left)
  }
  time = 300
  map.set('later', 'z', 50)
  time = 400
  t.mock.timers.tick(100)
  assert.equal(map.size(), 0, 'it begins again with the next entry')
})

test('very many that have ended go in parts, because requests wait meanwhile', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let time = 0
  const map = createExpiringMap<number, true>({ monotonicNow: () => time, max: 20_000, sweepMs: 1_000 })
  for (let n = 0; n < 12_000; n += 1) map.set(n, true, 500)
  map.set(-1, true, 10_000)
  time = 1_000
  t.mock.timers.tick(1_000)
  assert.ok(map.size() > 1, `${map.size()} are left`)
  for (let n = 0; n < 4; n += 1) t.mock.timers.tick(50)
  assert.equal(map.size(), 1, 'the rest does not wait for the next round')
})

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void
const heapUsed = () => {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

test('the estimate of what plain data takes is near the truth, rather above', () => {
  const claims = (n: number) =>
    JSON.parse(
      JSON.stringify({
        sub: `user ${n}`,
        name: `Zoë Ünal ${n}`,
        groups: Array.from({ length: 100 }, (_, g) => `group-${n}-${g}`),
        address: { street: `${n} Street`, [`x${n}`]: true },
        idToken: String(n).padEnd(2_000, 'x'),
      }),
    ) as object
  const before = heapUsed()
  const held = Array.from({ length: 1_000 }, (_, n) => claims(n))
  const really = heapUsed() - before
  const estimated = held.reduce((sum, one) => sum + heapBytes(one), 0)
  assert.ok(estimated > really * 0.9 && estimated < really * 2, `${estimated} of ${really}`)
})

test('a part of a long text, kept as a text of its own, does not keep the whole', () => {
  const headers = (n: number) => `${n} `.padEnd(50_000, 'x')
  const before = heapUsed()
  const held = Array.from({ length: 200 }, (_, n) => ownText(headers(n).slice(0, 40)))
  assert.ok(heapUsed() - before < 2_000_000, `${heapUsed() - before} bytes for ${held.length} texts`)
  assert.equal(ownText('zoë 東'), 'zoë 東')
})

test('a share of the heap follows the limit of the process', () => {
  assert.equal(heapShare(1 / 8), Math.floor(getHeapStatistics().heap_size_limit / 8))
})
