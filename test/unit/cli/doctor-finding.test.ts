import assert from 'node:assert/strict'
import { test } from 'node:test'
import { causeOf, cureIn } from '../../../src/cli/doctor/finding.ts'
import { judgeLatency } from '../../../src/cli/doctor/session-store.ts'

test('the doctor has a cure for words of its tables alone, and for none that every object has', () => {
  assert.equal(cureIn({ invalid_scope: 'grant it' }, 'invalid_scope'), 'grant it')
  for (const word of ['constructor', 'toString', '__proto__', undefined])
    assert.equal(cureIn({ invalid_scope: 'grant it' }, word), undefined)
  const error = Object.assign(new Error('no such thing'), { code: 'constructor' })
  assert.deepEqual(causeOf(error), { message: 'no such thing', cure: undefined })
})

test('the doctor fails a Redis that is slow, and only warns of one that was slow once', () => {
  const verdict = (medianMs: number, worstMs: number) => judgeLatency({ medianMs, worstMs }).level
  assert.deepEqual(
    [verdict(1, 20), verdict(1, 400), verdict(20, 30), verdict(300, 400)],
    ['ok', 'warn', 'warn', 'fail'],
  )
})
