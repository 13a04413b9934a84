import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skipWithoutRedis } from '../kit/redis.ts'
import { playRound, startReplicas } from './replicas.ts'

test('200 requests to two replicas at expiry: one refresh per resource; a logout on one is seen by the other within 100 ms', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const { renewalMs, logoutSeenMs, servedAfterLogout } = await playRound(await startReplicas(t))
  t.diagnostic(
    `200 answers after ${renewalMs.toFixed(0)} ms, logout seen after ${logoutSeenMs.toFixed(1)} ms`,
  )
  assert.ok(logoutSeenMs < 100, `B served ${servedAfterLogout} more for ${logoutSeenMs} ms`)
})
