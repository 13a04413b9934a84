import assert from 'node:assert/strict'
import { test } from 'node:test'
import { causeOf, cureIn } from '../../../src/cli/doctor/finding.ts'

test('the doctor has a cure for words of its tables alone, and for none that every object has', () => {
  assert.equal(cureIn({ invalid_scope: 'grant it' }, 'invalid_scope'), 'grant it')
  for (const word of ['constructor', 'toString', '__proto__', undefined])
    assert.equal(cureIn({ invalid_scope: 'grant it' }, word), undefined)
  const error = Object.assign(new Error('no such thing'), { code: 'constructor' })
  assert.deepEqual(causeOf(error), { message: 'no such thing', cure: undefined })
})
