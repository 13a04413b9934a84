import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createTroubles } from '../../../../src/admin/console/trouble.ts'
import { type LogFields, withListener } from '../../../../src/log.ts'

describe('what the console remembers of the log', () => {
  function setUp() {
    let time = 1_800_000_000_000
    const troubles = createTroubles({ now: () => (time += 1_000) })
    const written: LogFields[] = []
    const keep = (fields: LogFields) => void written.push(fields)
    const log = withListener({ info: keep, warn: keep, error: keep }, troubles.note)
    const refuse = (request_id: string, fields: LogFields = {}) =>
      log.info(
        {
          request_id,
          path: '/api/orders',
          route: 'orders',
          status: 401,
          code: 'session_required',
          ...fields,
        },
        'request',
      )
    return { troubles, log, written, refuse }
  }

  test('a refusal has its code, reason, route, request id and time, and none of the path, address or session', () => {
    const { troubles, refuse, written } = setUp()
    const more = {
      reason: 'absent',
      path: '/api/secret',
      clientIp: '192.0.2.1',
      session: 'abc',
      host: 'evil',
    }
    refuse('r1', more)
    assert.deepEqual(troubles.lastRefusals(), [
      {
        ...{ at: '2027-01-15T08:00:01.000Z', request_id: 'r1', route: 'orders', status: 401 },
        ...{ code: 'session_required', reason: 'absent' },
      },
    ])
    assert.equal(written[0]?.path, '/api/secret', 'the log has them')
  })

  test('requests that were served are no refusals, and what is not theirs has no status', () => {
    const { troubles, log } = setUp()
    log.info({ request_id: 'r1', status: 200, route: 'orders' }, 'request')
    log.info(
      { code: 'provider_rejected', resource: 'orders', status: 400 },
      'the grant is dead: its session ends',
    )
    log.error({ code: 'provider_rejected', resource: 'orders', status: 400 }, 'no token for this resource')
    assert.deepEqual([troubles.refused(), troubles.lastRefusals()], [0, []])
  })

  test("what was logged of a request before its own line, such as the provider's error, is told as its cause", () => {
    const { troubles, log, refuse } = setUp()
    const err = { name: 'Error', message: 'connect failed', code: 'ECONNREFUSED' }
    log.warn(
      { request_id: 'r1', code: 'provider_unavailable', oauthError: 'server_error', err },
      'a sign-in failed',
    )
    refuse('r1', { code: 'provider_unavailable', status: 503 })
    const [refusal] = troubles.lastRefusals()
    assert.equal(refusal?.oauthError, 'server_error')
    assert.equal(refusal?.cause, 'connect failed · ECONNREFUSED')
    assert.equal(troubles.lastOfCode('provider_unavailable')?.cause, refusal?.cause)
  })

  test('the last 50 are kept; a flood of one kind pushes no other kind out of the causes', () => {
    const { troubles, refuse } = setUp()
    refuse('first', { code: 'provider_rejected', status: 502, reason: 'invalid_client' })
    for (let at = 0; at < 500; at += 1) refuse(`r${at}`)
    assert.equal(troubles.refused(), 501)
    assert.equal(troubles.lastRefusals().length, 50)
    assert.equal(troubles.lastRefusals()[0]?.request_id, 'r499')
    const causes = troubles.causes().map(({ code, count, request_id }) => [code, count, request_id])
    assert.deepEqual(causes, [
      ['session_required', 500, 'r499'],
      ['provider_rejected', 1, 'first'],
    ])
  })

  test('nothing that clients can vary makes it grow without end, and texts are cut', () => {
    const { troubles, log, refuse } = setUp()
    for (let at = 0; at < 2_000; at += 1) {
      refuse(`r${at}`, { reason: `made-up-${at}`, route: 'x'.repeat(10_000) })
      log.warn({ request_id: `w${at}`, resource: `made-up-${at}`, outcome: 'x' }, `message ${at}`)
    }
    assert.equal(troubles.causes().length, 200)
    assert.equal(troubles.warnings().length, 50)
    assert.equal(troubles.lastOfResource('made-up-0'), undefined)
    assert.ok(
      JSON.stringify([troubles.causes(), troubles.warnings(), troubles.lastRefusals()]).length < 250_000,
    )
  })

  test('warnings that are alike are one, with how often and the facts of the last', () => {
    const { troubles, log } = setUp()
    for (const request_id of ['a', 'b', 'c']) log.warn({ request_id, upstream: 'http://orders' }, 'no answer')
    log.error({ resource: 'orders', outcome: 'configuration', reason: 'invalid_client' }, 'no token')
    const told = troubles
      .warnings()
      .map(({ level, message, count, request_id }) => [level, message, count, request_id])
    assert.deepEqual(told, [
      ['error', 'no token', 1, undefined],
      ['warn', 'no answer', 3, 'c'],
    ])
    assert.equal(troubles.lastOfResource('orders')?.reason, 'invalid_client')
  })
})
