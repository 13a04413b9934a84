import assert from 'node:assert/strict'
import { test } from 'node:test'
import { retryAfterSeconds } from '../../../../src/oidc/token-endpoint/provider-fetch.ts'
import {
  type GrantReaction,
  reactionTo,
  reactionToExchange,
} from '../../../../src/oidc/token-endpoint/reactions.ts'

const CLAIMS = '{"access_token":{"polids":{"essential":true,"Values":["x"]}}}'
const LINES: readonly [string, number | undefined, Record<string, unknown> | undefined, GrantReaction][] = [
  ['no answer', undefined, undefined, 'retry_later'],
  ['an HTML page', 400, undefined, 'retry_later'],
  ['a 503', 503, { error: 'invalid_grant' }, 'retry_later'],
  ['a 429', 429, { error: 'invalid_request' }, 'retry_later'],
  ['temporarily_unavailable', 400, { error: 'temporarily_unavailable' }, 'retry_later'],
  ['server_error', 400, { error: 'server_error' }, 'retry_later'],
  ['the loop detector, as invalid_grant', 400, { error: 'invalid_grant', error_codes: [50196] }, 'loop'],
  ['invalid_client', 401, { error: 'invalid_client', error_codes: [7000222] }, 'configuration'],
  ['unauthorized_client', 400, { error: 'unauthorized_client' }, 'configuration'],
  ['unsupported_grant_type', 400, { error: 'unsupported_grant_type' }, 'configuration'],
  ['invalid_resource', 400, { error: 'invalid_resource', error_codes: [50001] }, 'route_configuration'],
  ['invalid_scope', 400, { error: 'invalid_scope' }, 'route_configuration'],
  ['invalid_target', 400, { error: 'invalid_target' }, 'route_configuration'],
  ['claims with interaction_required', 400, { error: 'interaction_required', claims: CLAIMS }, 'step_up'],
  [
    'claims with invalid_grant',
    400,
    { error: 'invalid_grant', suberror: 'basic_action', claims: CLAIMS },
    'step_up',
  ],
  [
    'basic_action',
    400,
    { error: 'invalid_grant', suberror: 'basic_action', error_codes: [50076] },
    'step_up',
  ],
  ['50076 without a suberror', 400, { error: 'invalid_grant', error_codes: [50076] }, 'step_up'],
  ['login_required', 400, { error: 'login_required' }, 'step_up'],
  [
    'consent as suberror',
    400,
    { error: 'invalid_grant', suberror: 'consent_required', error_codes: [65001] },
    'consent',
  ],
  ['65001 without a suberror', 400, { error: 'invalid_grant', error_codes: [65001] }, 'consent'],
  ['bad_token', 400, { error: 'invalid_grant', suberror: 'bad_token', error_codes: [700082] }, 'dead_grant'],
  ['700082 without a suberror', 400, { error: 'invalid_grant', error_codes: [700082] }, 'dead_grant'],
  ['plain invalid_grant', 400, { error: 'invalid_grant' }, 'dead_grant'],
  ['a misleading first code', 400, { error: 'invalid_grant', error_codes: [70002, 70008] }, 'dead_grant'],
  ['client_mismatch', 400, { error: 'invalid_grant', suberror: 'client_mismatch' }, 'configuration'],
  [
    'device authentication',
    400,
    { error: 'invalid_grant', suberror: 'device_authentication_failed' },
    'user_must_act',
  ],
  ['a garbage token', 400, { error: 'invalid_request', error_codes: [9002313] }, 'dead_grant'],
  ['resource sent to Entra v2', 400, { error: 'invalid_request', error_codes: [901002] }, 'configuration'],
  ['an unknown error', 400, { error: 'made_up' }, 'configuration'],
]

for (const [name, status, body, expected] of LINES) {
  test(`${name} means ${expected}`, () => {
    assert.equal(reactionTo({ status, body }), expected)
  })
}

test('the text of an error decides nothing', () => {
  const body = {
    error: 'invalid_grant',
    error_description: 'AADSTS50076: interaction_required consent_required',
  }
  assert.equal(reactionTo({ status: 400, body }), 'dead_grant')
})

test('Retry-After is read as seconds or as a date, and is at most an hour', () => {
  const now = Date.parse('2026-01-01T00:00:00Z')
  assert.equal(retryAfterSeconds('7', now), 7)
  assert.equal(retryAfterSeconds('Thu, 01 Jan 2026 00:00:30 GMT', now), 30)
  assert.equal(retryAfterSeconds('99999', now), 3600)
  assert.equal(retryAfterSeconds('Wed, 31 Dec 2025 00:00:00 GMT', now), 0)
  assert.equal(retryAfterSeconds('soon', now), undefined)
  assert.equal(retryAfterSeconds(null, now), undefined)
})

test('no answer to a token exchange means that the session is dead', () => {
  const exchange = (body: Record<string, unknown>) => reactionToExchange({ status: 400, body })
  assert.equal(exchange({ error: 'invalid_grant' }), 'step_up')
  assert.equal(exchange({ error: 'invalid_grant', suberror: 'bad_token', error_codes: [500133] }), 'step_up')
  assert.equal(exchange({ error: 'invalid_grant', error_codes: [500131] }), 'route_configuration')
  assert.equal(exchange({ error: 'invalid_grant', error_codes: [65001] }), 'consent')
  assert.equal(exchange({ error: 'interaction_required', claims: '{}' }), 'step_up')
  assert.equal(exchange({ error: 'invalid_request', error_codes: [9002313] }), 'route_configuration')
  assert.equal(exchange({ error: 'invalid_target' }), 'route_configuration')
})

test('Dex has one word for whatever is wrong with a refresh: its own whole sentences for a dead token are known', () => {
  const said = (error_description: string) =>
    reactionTo({ status: 400, body: { error: 'invalid_request', error_description } })
  assert.equal(said('Refresh token expired.'), 'dead_grant')
  assert.equal(said('Refresh token is invalid or has already been claimed by another client.'), 'dead_grant')
  assert.equal(said('Requested scopes contain unauthorized scope(s): ["billing"].'), 'configuration')
  assert.equal(said('No refresh token is found in request.'), 'configuration')
  assert.equal(said('Refresh token expired. Or so.'), 'configuration')
})

test('what may be exchanged is a policy for clients; a subject token that is no good is had again', () => {
  const exchange = (error: string) => reactionToExchange({ status: 403, body: { error } })
  assert.equal(exchange('access_denied'), 'route_configuration')
  assert.equal(exchange('invalid_token'), 'step_up')
  assert.equal(exchange('mfa_required'), 'step_up')
})
