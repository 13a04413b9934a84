import assert from 'node:assert/strict'
import { steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { runStorm } from './run.ts'

test('many sign-outs at once end what they are about on every replica, and nothing else', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const size = { users: 8, bystanders: 1, replicas: 2, downloads: false }
  const report = await runStorm(t, { ...size, areProcesses: false })
  assert.deepEqual([report.sessions, report.events, report.endings.length, report.untouched], [27, 16, 20, 7])
})
