import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError, type ErrorCode } from '../../../../src/errors.ts'
import { outcomeOf } from '../../../../src/oidc/grants/resource-grants.ts'

const SUCCESS = { status: 200, body: {}, retryAfterSeconds: undefined, isHtml: false }

function outcome(code: ErrorCode) {
  return outcomeOf({ error: new BffError(code, 'any'), answer: SUCCESS })
}

test('a success that cannot be used is a fault that only the operator can cure', () => {
  assert.equal(outcome('provider_rejected'), 'unusable_answer')
})

test('a success that came too late, or could not be kept because the user signed out, is no fault of the provider', () => {
  assert.equal(outcome('provider_unavailable'), 'retry_later')
  assert.equal(outcome('session_required'), 'retry_later')
  assert.equal(outcome('store_unavailable'), 'retry_later')
})
