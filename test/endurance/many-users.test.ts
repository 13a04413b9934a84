import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sendCrowd } from '../kit/endurance/many-users.ts'
import { inMb, NOT_MEASURABLE } from '../kit/endurance/process-readings.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'

const MB = 1_000_000

test('users whose sessions are many times what the heap can hold pass through a replica, and leave nothing in it', {
  skip: NOT_MEASURABLE || skipWithoutRedis(),
  timeout: 300_000,
}, async (t) => {
  const report = await sendCrowd(t, { users: 300, heapMiB: 64, fatBytes: 250_000, idleSeconds: 20 })
  const { heapBefore, heapInCrowd, heapAfter } = report
  t.diagnostic(`heap ${[heapBefore, heapInCrowd, heapAfter].map(inMb).join(' → ')}`)
  assert.equal(report.served, 300)
  assert.ok(heapInCrowd < heapBefore + 20 * MB, inMb(heapInCrowd))
  assert.ok(heapAfter < heapBefore + 3 * MB, `${inMb(heapBefore)} → ${inMb(heapAfter)}`)
})
