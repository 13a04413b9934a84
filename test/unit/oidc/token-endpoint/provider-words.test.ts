import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type GrantReaction,
  isUnexplained,
  reactionTo,
  reactionToClient,
  reactionToExchange,
  wordForUser,
} from '../../../../src/oidc/token-endpoint/reactions.ts'

/** Every word that providers refuse with, and what is done about it. */
const WORDS: readonly [GrantReaction, readonly string[]][] = [
  [
    'retry_later',
    [
      ...['temporarily_unavailable', 'server_error', 'internal_failure', 'internal_error'],
      ...['slow_down', 'rate_limit_exceeded', 'too_many_requests', 'request_limit_exceeded'],
    ],
  ],
  [
    'configuration',
    [
      ...['invalid_client', 'unauthorized_client', 'unsupported_grant_type', 'deleted_client'],
      ...['disabled_client', 'invalid_client_metadata', 'invalid_request', 'made_up'],
    ],
  ],
  ['route_configuration', ['invalid_resource', 'invalid_scope', 'invalid_target']],
  ['consent', ['consent_required']],
  [
    'step_up',
    [
      ...['interaction_required', 'login_required', 'account_selection_required'],
      ...['unmet_authentication_requirements', 'insufficient_user_authentication'],
      ...['mfa_required', 'mfa_enrollment_required', 'mfa_registration_required', 'association_required'],
      ...['access_denied', 'unauthorized', 'too_many_attempts', 'password_expired', 'password_leaked'],
      ...['user_disabled', 'user_temporarily_disabled', 'account_disabled', 'account_temporarily_disabled'],
      ...['resolve_required_actions', 'user_blocked', 'blocked_user', 'reauthentication_required'],
    ],
  ],
  ['user_must_act', ['admin_policy_enforced', 'org_internal']],
  [
    'dead_grant',
    [
      ...['invalid_grant', 'invalid_token', 'expired_token', 'token_expired', 'token_revoked'],
      ...['invalid_refresh_token', 'refresh_token_expired', 'expired_refresh_token'],
      ...['refresh_token_revoked', 'token_inactive'],
    ],
  ],
]

const refusal = (error: string, more: object = {}) => ({ status: 400, body: { error, ...more } })

for (const [reaction, words] of WORDS)
  for (const word of words) {
    test(`${word} with 400 means ${reaction}`, () => {
      assert.equal(reactionTo(refusal(word)), reaction)
      // A passing fault says nothing of the word, and neither does no answer.
      for (const status of [429, 500, 599, undefined])
        assert.equal(reactionTo({ ...refusal(word), status }), 'retry_later')
    })

    test(`${word} for the client itself is never a user’s`, () => {
      const isOfUser = ['dead_grant', 'step_up', 'consent', 'user_must_act'].includes(reaction)
      assert.equal(reactionToClient(refusal(word)), isOfUser ? 'route_configuration' : reaction)
    })

    test(`${word} for an exchange never ends the session`, () => {
      const expected =
        word === 'access_denied' ? 'route_configuration' : reaction === 'dead_grant' ? 'step_up' : reaction
      assert.equal(reactionToExchange(refusal(word)), expected)
    })
  }

test('of an exchange, a foreign assertion is a fault of the route, and a challenge a step-up', () => {
  assert.equal(reactionToExchange(refusal('invalid_grant', { error_codes: [500131] })), 'route_configuration')
  assert.equal(reactionToExchange(refusal('invalid_grant', { error_codes: [500132] })), 'step_up')
  assert.equal(reactionToExchange(refusal('access_denied', { claims: '{}' })), 'step_up')
  assert.equal(
    reactionToExchange(refusal('invalid_request', { error_codes: [9002313] })),
    'route_configuration',
  )
  assert.equal(reactionToExchange({ status: 400, body: undefined }), 'retry_later')
})

test('a suberror or a code decides where invalid_grant leaves it open', () => {
  for (const [more, reaction] of [
    [{ suberror: 'client_mismatch' }, 'configuration'],
    [{ suberror: 'protection_policy_required' }, 'user_must_act'],
    [{ suberror: 'device_authentication_failed' }, 'user_must_act'],
    [{ suberror: 'bad_token', error_codes: [50076] }, 'dead_grant'],
    ...[
      'basic_action',
      'additional_action',
      'message_only',
      'user_password_expired',
      'ui_not_allowed',
      'interrupted_user',
    ].map((suberror) => [{ suberror }, 'step_up'] as const),
    [{ suberror: 'consent_required' }, 'consent'],
    [{ error_codes: [65001] }, 'consent'],
    [{ error_codes: [65001, 50076] }, 'consent'],
    ...[50105, 501051, 65004, 90094, 90095].map(
      (code) => [{ error_codes: [code] }, 'user_must_act'] as const,
    ),
    [{ error_codes: ['50076'] }, 'dead_grant'],
    [{ claims: '{}' }, 'step_up'],
    [{ claims: '' }, 'dead_grant'],
  ] as const)
    assert.equal(reactionTo(refusal('invalid_grant', more)), reaction, JSON.stringify(more))
  assert.equal(reactionTo(refusal('access_denied', { error_codes: [50105] })), 'user_must_act')
})

test('a refusal is unexplained where its words leave it open', () => {
  assert.equal(isUnexplained(refusal('made_up')), true)
  assert.equal(isUnexplained(refusal('invalid_request')), true)
  for (const word of ['invalid_client', 'invalid_grant', 'invalid_scope', 'login_required', 'server_error'])
    assert.equal(isUnexplained(refusal(word)), false, word)
  assert.equal(isUnexplained(refusal('invalid_grant', { suberror: 'client_mismatch' })), false)
  assert.equal(isUnexplained({ status: 400, body: undefined }), true)
  assert.equal(isUnexplained({ status: 400, body: {} }), true)
  assert.equal(isUnexplained({ status: 400, body: undefined, isHtml: true }), false)
  assert.equal(isUnexplained({ status: 401, body: undefined }), false)
})

test('the word for a user is the provider’s own, where it is none of OpenID Connect’s', () => {
  assert.equal(wordForUser(refusal('mfa_required')), 'mfa_required')
  assert.equal(wordForUser(refusal('login_required')), undefined)
  assert.equal(wordForUser({ body: undefined }), undefined)
  assert.equal(wordForUser({ body: { error: 7 } }), undefined)
})
