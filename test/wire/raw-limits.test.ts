import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LIMIT_CASES } from './cases/limits.ts'
import { inTime, openRawClient } from './raw-kit.ts'
import { playTable } from './suite.ts'
import { get } from './wire-case.ts'
import { startWorld } from './world.ts'

playTable('limits', LIMIT_CASES)

test('A16: a long target costs less than 50 ms of processor time, whatever it is made of', async (t) => {
  const world = await startWorld()
  t.after(() => world.close())
  const targets = [
    '/'.repeat(16_000),
    '/x'.repeat(8_000),
    '/%61'.repeat(4_000),
    '/.'.repeat(8_000),
    '%25'.repeat(5_000),
  ]
  for (const target of [...targets, '/'.repeat(1_048_576)]) {
    const costs: number[] = []
    for (let round = 0; round < 5; round += 1) {
      const client = openRawClient(world.port, () => ['GET'])
      const before = process.cpuUsage()
      client.write(get(target, 'Host: app.example.test\r\nConnection: close\r\n'))
      await inTime(client.closed, () => 'the refusal')
      const { user, system } = process.cpuUsage(before)
      costs.push((user + system) / 1000)
    }
    // The least of five: the others pay for the collection of garbage that is not theirs.
    const least = Math.min(...costs)
    assert.ok(least < 50, `${target.slice(0, 12)}… of ${target.length} bytes took ${least} ms`)
  }
  assert.equal(world.upstream.requests.filter(({ startLine }) => startLine.length > 1000).length, 0)
})
