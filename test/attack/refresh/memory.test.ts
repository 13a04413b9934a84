import '../../kit/untracked.ts'
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { sessionHash } from '../../../src/session/session.ts'
import { createSessionCache } from '../../../src/session/session-cache.ts'
import { createSealing } from '../../../src/tokens/record/sealing.ts'
import { counted, idle, PLAIN, refuses, renews, setUpEngine, sizesOf } from '../../kit/attack/engine.ts'
import type { ScaleReport } from '../../kit/attack/engine-scale.ts'

const SESSIONS = 100_000
const SCALE = fileURLToPath(new URL('../../kit/attack/engine-scale.ts', import.meta.url))
/** No map may keep more than this once no more requests come. */
const BOUND = 10_000

test('G20: after 100,000 sessions with 5 resources each nothing is left in flight, and the heap is as before', {
  timeout: 600_000,
}, async (t) => {
  // In a process of its own: the test runner follows every promise, and would need three times as long.
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--expose-gc',
    '--max-semi-space-size=64',
    SCALE,
    String(SESSIONS),
  ])
  const found = JSON.parse(stdout) as ScaleReport
  t.diagnostic(stdout.trim())
  assert.equal(found.renewals, SESSIONS * 5)
  assert.ok(found.mostHeld >= 500, 'the maps that were counted are those in use')
  assert.deepEqual(new Set(found.heldAfter), new Set([0]))
  assert.ok(found.heapGrowthMiB < 16, `${found.heapGrowthMiB} MiB`)
})

test('G20: refusals of very many sessions and tokens that upstreams reject are remembered up to a bound', async (t) => {
  const { maps, engine } = counted(() => setUpEngine(t, refuses, PLAIN))
  for (let done = 0; done < BOUND + 2_000; done += 500) {
    const holders = await Promise.all(Array.from({ length: 500 }, () => engine.signedIn()))
    const challenge = { kind: 'invalid_token' } as const
    const reactions = holders.map((holder) =>
      engine.onRejected(holder, 'orders', { token: { value: 'bad' }, challenge, isRepeatable: true }),
    )
    for (const { status } of await Promise.allSettled(reactions)) assert.equal(status, 'rejected')
    for (const { hash } of holders) await engine.store.sessions.end(hash)
  }
  await idle()
  const sizes = sizesOf(maps).filter((size) => size > 0)
  assert.ok(sizes.length === 2 && sizes.every((size) => size <= BOUND), `${sizes}`)
})

test('G20: the copies of tokens are bounded however many sessions there are', async () => {
  const { maps, engine: cache } = counted(() =>
    createSessionCache<{ value: string }>({
      invalidations: { isLive: () => true, onInvalidate: () => () => undefined },
      ...{ trustedMs: 5_000, max: 100, maxBytes: 10_000_000, monotonicNow: () => 0 },
    }),
  )
  for (let session = 0; session < 5_000; session += 1) {
    const hash = sessionHash(String(session))
    await cache.load(hash, hash, async () => ({ value: 'v' }))
  }
  assert.ok(
    sizesOf(maps).every((size) => size <= 100),
    `${sizesOf(maps)}`,
  )
})

test('G18: resources and sessions whose names look alike when joined have a token each', async (t) => {
  const engine = setUpEngine(t, renews, createSealing([randomBytes(32)]))
  const names = [
    'a',
    'A',
    'a|b',
    'b',
    'a/',
    'a:',
    'a b',
    '["a","b"]',
    '__proto__',
    'constructor',
    'v',
    'spend',
    '',
  ]
  const holders = await Promise.all([engine.signedIn(), engine.signedIn()])
  const wanted = holders.flatMap((holder) => names.map((resource) => ({ holder, resource })))
  const expected = ({ holder, resource }: (typeof wanted)[number]) => `${holder.hash} ${resource}`
  const given = await Promise.all(wanted.map((one) => engine.renew(one)))
  assert.deepEqual(
    given.map(({ value }) => value),
    wanted.map(expected),
  )
  for (const holder of holders) {
    const stored = await engine.stored(holder)
    assert.deepEqual([...stored.keys()].sort(), [...names].sort())
    for (const resource of names) assert.equal(stored.get(resource)?.value, expected({ holder, resource }))
  }
})
