import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError, type ErrorCode } from '../../../src/errors.ts'
import { createCauseLog } from '../../../src/http/request-log.ts'
import { captureLog } from '../../kit/cloakroom.ts'

function setUp() {
  let time = 0
  const { log, lines } = captureLog()
  const logCause = createCauseLog({ log, monotonicNow: () => time })
  return {
    fail(code: ErrorCode, cause?: unknown, requestId = 'r') {
      logCause(new BffError(code, 'failed', cause ? { cause } : {}), requestId)
    },
    pass(ms: number) {
      time += ms
    },
    told: () =>
      lines.splice(0).map((line) => {
        const { code, count, err, request_id } = JSON.parse(line)
        return [code, count, err.message, request_id]
      }),
  }
}

test('what is wrong at the provider is told once, and then once a minute with its number', () => {
  const { fail, pass, told } = setUp()
  for (let user = 0; user < 40; user += 1) fail('provider_rejected', new Error(`no. ${user}`), `r${user}`)
  assert.deepEqual(told(), [['provider_rejected', 1, 'no. 0', 'r0']])
  pass(59_999)
  fail('provider_rejected', new Error('late'))
  assert.deepEqual(told(), [])
  pass(1)
  fail('provider_rejected', new Error('later'))
  assert.deepEqual(told(), [['provider_rejected', 41, 'later', 'r']])
})

test('another cause, or another problem, has a line of its own', () => {
  const { fail, told } = setUp()
  const cut = Object.assign(new Error('cut'), { code: 'ECONNRESET' })
  for (let user = 0; user < 3; user += 1) {
    fail('provider_unavailable', cut)
    fail('provider_unavailable', new TypeError('fetch failed', { cause: cut }))
    fail('provider_rejected', cut)
  }
  assert.deepEqual(
    told().map(([code, , message]) => [code, message]),
    [
      ['provider_unavailable', 'cut'],
      ['provider_unavailable', 'fetch failed'],
      ['provider_rejected', 'cut'],
    ],
  )
})

test('every failure of an upstream or of the store is told, and nothing of a problem without a cause', () => {
  const { fail, told } = setUp()
  for (let request = 0; request < 3; request += 1) {
    fail('upstream_unreachable', new Error('refused'))
    fail('store_unavailable', new Error('away'))
    fail('provider_rejected')
  }
  assert.equal(told().length, 6)
})
