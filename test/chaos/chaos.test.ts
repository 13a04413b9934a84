import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { failuresOf, tableOf } from './report.ts'
import { runChaos } from './run.ts'

test('killed replicas, a frozen and restarted Redis and lost answers: no token is mixed up, none is spent twice by a race, and all recovers', {
  skip: skipWithoutRedis(),
  timeout: 300_000,
}, async (t) => {
  const seed = Number(process.env.CHAOS_SEED ?? randomInt(1, 2 ** 31))
  t.diagnostic(`seed ${seed}; play it again with CHAOS_SEED=${seed}`)
  const report = await runChaos({
    ...{
      seed,
      seconds: 12,
      sessions: 20,
      requestsPerSecond: 30,
      reuses: 'auto',
      pace: 0.5,
      signal: t.signal,
    },
  })
  for (const line of tableOf(report).split('\n')) t.diagnostic(line)
  assert.deepEqual(failuresOf(report), [])
})
