import assert from 'node:assert/strict'
import { steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { runStorm } from './run.ts'

test('many sign-outs at once end what they are about on every replica, and nothing else', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const report = await runStorm(t, { replicas: 2, areProcesses: false, users: 12, downloads: false })
  assert.deepEqual(
    [report.sessions, report.events, report.endings.length, report.untouched],
    [36, 12, 24, 12],
  )
})
