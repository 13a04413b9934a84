import assert from 'node:assert/strict'
import { test } from 'node:test'
import { notePause, steadyNow, steadyTest } from '../../kit/steady.ts'

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

test('the steady clock goes on with time, but not while the process stands still', async () => {
  const [startedAt, steadyStart] = [performance.now(), steadyNow()]
  while (steadyNow() - steadyStart < 100) await new Promise(setImmediate)
  assert.ok(performance.now() - startedAt >= 100)
  const before = steadyNow()
  standStill(500)
  assert.ok(steadyNow() - before < 100)
})

let tries = 0
steadyTest('a test that fails after its process stood still is tried again', async () => {
  tries += 1
  if (tries === 3) return
  standStill(200)
  assert.fail('too late')
})

let othersTries = 0
steadyTest('so is one that fails after a server of it stood still', async () => {
  othersTries += 1
  if (othersTries === 2) return
  notePause(200)
  assert.fail('too late')
})
