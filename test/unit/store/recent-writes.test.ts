import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRecentWrites } from '../../../src/store/redis/recent-writes.ts'
import { captureLog } from '../../kit/cloakroom.ts'
import { eventually, someHash } from '../../kit/store/store-contestants.ts'

test('what Redis is to be told again is given up when the store closes, and is not said to be told', async () => {
  let sent = 0
  const { log, lines } = captureLog()
  const run = () => {
    sent += 1
    return Promise.reject(new Error('away'))
  }
  const recent = createRecentWrites({ run }, log)
  const hash = someHash()
  for (const version of [1, 2, 3]) recent.note({ hash, script: 'writeTokens', keys: [], args: [version] })
  recent.serverChanged()
  await eventually(() => sent === 2)
  recent.close()
  await new Promise((resolve) => setTimeout(resolve, 10))
  const told = lines.filter((line) => line.includes('told again what it had taken'))
  assert.deepEqual([sent, told], [2, []])
})
