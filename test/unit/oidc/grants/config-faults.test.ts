import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { BffError } from '../../../../src/errors.ts'
import { createConfigFaults, type GrantOutcome } from '../../../../src/oidc/grants/config-faults.ts'
import { captureLog } from '../../../kit/cloakroom.ts'

const MINUTE = 60_000

function setUp(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_800_000_000_000 })
  const { log, lines } = captureLog()
  const gauges = new Map<string, boolean>()
  const counted: string[] = []
  const { note, retire } = createConfigFaults({
    log,
    observe: {
      grant: (resource, outcome) => void counted.push(`${resource} ${outcome}`),
      configFault: (resource, error, isFault) => void gauges.set(`${resource} ${error}`, isFault),
    },
    monotonicNow: () => Date.now(),
  })
  return {
    ...{ note, retire, counted },
    refused: (oauthError: string, resource = 'orders') =>
      note({ resource, outcome: 'route_configuration', refusal: { oauthError } }),
    renewed: (resource = 'orders') => note({ resource, outcome: 'renewed' }),
    pass: (ms: number) => t.mock.timers.tick(ms),
    gauges: () => Object.fromEntries(gauges),
    /** The lines since the last look. */
    told: () =>
      lines.splice(0).map((line) => {
        const { level, reason, outcome, count } = JSON.parse(line)
        return [level, reason ?? outcome, ...(count === undefined ? [] : [count])]
      }),
  }
}

test('a fault that comes and goes is one fault: one line, one gauge, and a minute later one reminder', (t) => {
  const { refused, renewed, pass, gauges, told } = setUp(t)
  for (let user = 0; user < 20; user += 1) {
    refused('invalid_client')
    renewed()
    pass(1_000)
  }
  assert.deepEqual([gauges(), told()], [{ 'orders invalid_client': true }, [['error', 'invalid_client', 1]]])
  pass(39_999)
  refused('invalid_client')
  assert.deepEqual(told(), [])
  pass(1)
  refused('invalid_client')
  assert.deepEqual(told(), [['error', 'invalid_client', 21]])
})

test('two faults that alternate are two: a line each, both gauges stand', (t) => {
  const { refused, pass, gauges, told } = setUp(t)
  for (let user = 0; user < 40; user += 1) {
    refused(user % 2 ? 'invalid_scope' : 'unauthorized_client')
    pass(1_000)
  }
  assert.deepEqual(gauges(), { 'orders unauthorized_client': true, 'orders invalid_scope': true })
  assert.deepEqual(told(), [
    ['error', 'unauthorized_client', 1],
    ['error', 'invalid_scope', 1],
  ])
})

test('a fault is over a minute after the first token, when it has not come again, and nobody needs to ask for that', (t) => {
  const { refused, renewed, pass, gauges, told } = setUp(t)
  refused('invalid_client')
  pass(10 * MINUTE)
  assert.deepEqual(gauges(), { 'orders invalid_client': true }, 'silence cures nothing')
  renewed()
  pass(MINUTE - 1)
  refused('invalid_client')
  renewed()
  pass(MINUTE - 1)
  assert.deepEqual(gauges(), { 'orders invalid_client': true })
  told()
  pass(1)
  assert.deepEqual([gauges(), told()], [{ 'orders invalid_client': false }, [['info', 'invalid_client']]])
  refused('invalid_client')
  assert.deepEqual([gauges(), told()], [{ 'orders invalid_client': true }, [['error', 'invalid_client', 1]]])
})

test('a fault that became another is over a minute later; what concerns one user or will pass ends none', (t) => {
  const { note, refused, pass, gauges } = setUp(t)
  refused('invalid_client')
  for (const outcome of ['step_up', 'dead_grant', 'user_must_act', 'retry_later'] as const) {
    note({ resource: 'orders', outcome })
    pass(2 * MINUTE)
  }
  assert.deepEqual(gauges(), { 'orders invalid_client': true })
  refused('invalid_scope')
  pass(MINUTE)
  assert.deepEqual(gauges(), { 'orders invalid_client': false, 'orders invalid_scope': true })
})

test('a token for one resource says nothing of another', (t) => {
  const { refused, renewed, pass, gauges } = setUp(t)
  refused('invalid_scope', 'billing')
  renewed('orders')
  pass(2 * MINUTE)
  assert.deepEqual(gauges(), { 'billing invalid_scope': true })
})

test('an answer that comes late to a configuration no longer in use is counted, and that is all', (t) => {
  const { note, refused, renewed, retire, pass, gauges, told, counted } = setUp(t)
  refused('invalid_client')
  renewed()
  told()
  retire()
  refused('invalid_scope')
  note({ resource: 'orders', outcome: 'retry_later' })
  renewed()
  pass(2 * MINUTE)
  assert.deepEqual([gauges(), told()], [{ 'orders invalid_client': true }, []])
  assert.equal(counted.length, 5)
})

test('a passing fault has one line a minute for each problem, with its cause; what concerns a user is left to the caller', (t) => {
  const { note, pass, told } = setUp(t)
  const error = new BffError('provider_unavailable', 'no answer', { cause: new TypeError('fetch failed') })
  for (let user = 0; user < 30; user += 1)
    assert.equal(note({ resource: 'orders', outcome: 'retry_later', error }), true)
  pass(MINUTE)
  note({ resource: 'orders', outcome: 'retry_later', error })
  assert.deepEqual(told(), [
    ['warn', 'retry_later', 1],
    ['warn', 'retry_later', 30],
  ])
  for (const outcome of ['dead_grant', 'step_up', 'consent', 'user_must_act'] satisfies GrantOutcome[])
    assert.equal(note({ resource: 'orders', outcome, error }), false)
  assert.deepEqual(told(), [])
})

test('a failed step of a sign-in is a fault where only our configuration can be the reason', (t) => {
  const { log, lines } = captureLog()
  const outcome = (
    step: 'discovery' | 'par' | 'code',
    failure: { code?: 'provider_unavailable'; logged?: Record<string, string>; isOwnRequest?: boolean },
  ) => {
    const seen: string[] = []
    const faults = createConfigFaults({
      log,
      observe: {
        grant: () => undefined,
        configFault: (resource, error) => void seen.push(`${resource} ${error}`),
      },
      monotonicNow: () => 0,
    })
    t.after(faults.retire)
    const { code = 'provider_rejected', logged, isOwnRequest } = failure
    const error = new BffError(code, 'refused', { logged })
    faults.noteSignIn(step, isOwnRequest === undefined ? { error } : { error, isOwnRequest })
    return seen.join()
  }
  const own = { isOwnRequest: true }
  assert.equal(outcome('discovery', {}), '(discovery) discovery')
  assert.equal(outcome('discovery', { code: 'provider_unavailable' }), '')
  assert.equal(outcome('code', { logged: { step: 'keys' } }), '(code) keys')
  assert.equal(
    outcome('code', { logged: { step: 'code', oauthError: 'invalid_client' } }),
    '(code) invalid_client',
  )
  assert.equal(outcome('code', { logged: { step: 'authorization', oauthError: 'invalid_client' } }), '')
  for (const word of [
    'unauthorized_client',
    'unsupported_grant_type',
    'invalid_scope',
    'invalid_target',
    'invalid_resource',
  ])
    assert.equal(outcome('par', { logged: { oauthError: word } }), `(par) ${word}`)
  for (const word of [
    ...[
      'invalid_request',
      'invalid_grant',
      'access_denied',
      'invalid_redirect_uri',
      'invalid_request_object',
    ],
    'unsupported_response_type',
  ]) {
    assert.equal(outcome('par', { logged: { oauthError: word } }), '', word)
    assert.equal(outcome('par', { logged: { oauthError: word }, ...own }), `(par) ${word}`)
  }
  assert.equal(outcome('par', { logged: { oauthError: 'made_up' }, ...own }), '(par) other')
  assert.equal(outcome('par', own), '(par) other')
  assert.equal(outcome('par', {}), '')
  assert.match(lines.join('\n'), /nobody can sign in: the provider rejects how we are configured/)
})

test('a sign-in step that goes well again ends its fault a minute later, and another step does not', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_800_000_000_000 })
  const { log } = captureLog()
  const gauges: string[] = []
  const { noteSignIn } = createConfigFaults({
    log,
    observe: {
      grant: () => undefined,
      configFault: (resource, error, isFault) => void gauges.push(`${resource} ${error} ${isFault}`),
    },
    monotonicNow: () => Date.now(),
  })
  noteSignIn('discovery', { error: new BffError('provider_rejected', '') })
  noteSignIn('code')
  t.mock.timers.tick(MINUTE * 2)
  assert.deepEqual(gauges, ['(discovery) discovery true'])
  noteSignIn('discovery')
  noteSignIn('discovery', { error: new BffError('provider_unavailable', '') })
  t.mock.timers.tick(MINUTE)
  assert.deepEqual(gauges, ['(discovery) discovery true', '(discovery) discovery false'])
})
