import type { GrantFault, GrantReaction } from '../../../src/oidc/token-endpoint/reactions.ts'

/** One row of a table: what is said, and what must follow. */
export type ReactionRow = readonly [said: string, fault: GrantFault, means: GrantReaction]

const CLAIMS =
  '{"access_token":{"polids":{"essential":true,"Values":["9ab03e19-ed42-4168-b6b7-7001fb3e933a"]}}}'

type Members = { readonly [member: string]: unknown; readonly status?: number }

function said(error: string, { status = 400, ...more }: Members = {}): GrantFault {
  return { status, body: { error, ...more } }
}

/** The reaction model, each alternative of each line a row, then what only the order of the lines decides. */
export const MODEL: readonly ReactionRow[] = [
  ['no answer', { status: undefined, body: undefined }, 'retry_later'],
  ['a page of status 200', { status: 200, body: undefined }, 'retry_later'],
  ['a page of status 400', { status: 400, body: undefined }, 'retry_later'],
  ['a page of status 403', { status: 403, body: undefined }, 'retry_later'],
  ['a redirect', { status: 307, body: undefined }, 'retry_later'],
  ['a page of status 503', { status: 503, body: undefined }, 'retry_later'],
  ...[500, 502, 503, 504, 599, 429].map(
    (status): ReactionRow => [
      `status ${status} with an error of ours`,
      said('invalid_client', { status }),
      'retry_later',
    ],
  ),
  ['temporarily_unavailable', said('temporarily_unavailable'), 'retry_later'],
  ['server_error', said('server_error'), 'retry_later'],
  // JSON that is no OAuth error (RFC 6749 §5.2 requires `error`) is some gateway's page in another dress.
  ['a JSON object without an error', { status: 400, body: { message: 'Forbidden' } }, 'retry_later'],
  ['an error that is no text', { status: 400, body: { error: { code: 'invalid_grant' } } }, 'retry_later'],
  ['an empty error', said(''), 'retry_later'],

  ['50196 with status 503', said('temporarily_unavailable', { status: 503, error_codes: [50196] }), 'loop'],
  ['50196 with status 429', said('invalid_grant', { status: 429, error_codes: [50196] }), 'loop'],
  ['50196 after another code', said('invalid_grant', { error_codes: [70002, 50196] }), 'loop'],
  ['50196 with bad_token', said('invalid_grant', { suberror: 'bad_token', error_codes: [50196] }), 'loop'],
  ['50196 under invalid_client', said('invalid_client', { error_codes: [50196] }), 'loop'],

  ['invalid_client', said('invalid_client'), 'configuration'],
  ['invalid_client with 401', said('invalid_client', { status: 401 }), 'configuration'],
  ['unauthorized_client', said('unauthorized_client'), 'configuration'],
  ['unsupported_grant_type', said('unsupported_grant_type'), 'configuration'],

  ['invalid_resource', said('invalid_resource'), 'route_configuration'],
  ['invalid_scope', said('invalid_scope'), 'route_configuration'],
  ['invalid_target', said('invalid_target'), 'route_configuration'],

  ['claims with interaction_required', said('interaction_required', { claims: CLAIMS }), 'step_up'],
  ['claims with invalid_grant', said('invalid_grant', { claims: CLAIMS }), 'step_up'],
  ['claims with another error', said('made_up', { claims: CLAIMS }), 'step_up'],
  ['empty claims', said('invalid_grant', { claims: '' }), 'dead_grant'],
  ['claims that are no text', said('invalid_grant', { claims: { access_token: {} } }), 'dead_grant'],

  ['the suberror consent_required', said('invalid_grant', { suberror: 'consent_required' }), 'consent'],
  ['the error consent_required', said('consent_required'), 'consent'],
  ['both', said('interaction_required', { suberror: 'consent_required' }), 'consent'],

  ...[
    'basic_action',
    'additional_action',
    'message_only',
    'user_password_expired',
    'ui_not_allowed',
    'interrupted_user',
  ].flatMap((suberror): ReactionRow[] => [
    [`the suberror ${suberror}`, said('invalid_grant', { suberror }), 'step_up'],
    [`${suberror} under interaction_required`, said('interaction_required', { suberror }), 'step_up'],
  ]),
  ['interaction_required', said('interaction_required'), 'step_up'],
  ['login_required', said('login_required'), 'step_up'],

  ['bad_token', said('invalid_grant', { suberror: 'bad_token' }), 'dead_grant'],
  ['token_expired', said('invalid_grant', { suberror: 'token_expired' }), 'dead_grant'],
  ['client_mismatch', said('invalid_grant', { suberror: 'client_mismatch' }), 'configuration'],
  [
    'protection_policy_required',
    said('invalid_grant', { suberror: 'protection_policy_required' }),
    'user_must_act',
  ],
  [
    'device_authentication_failed',
    said('invalid_grant', { suberror: 'device_authentication_failed' }),
    'user_must_act',
  ],
  ['invalid_grant alone', said('invalid_grant'), 'dead_grant'],
  ['a suberror of tomorrow', said('invalid_grant', { suberror: 'made_up' }), 'dead_grant'],
  ['a code of tomorrow', said('invalid_grant', { error_codes: [99999999] }), 'dead_grant'],

  ['a garbage token', said('invalid_request', { error_codes: [9002313] }), 'dead_grant'],
  ['invalid_request', said('invalid_request'), 'configuration'],
  ['another code under invalid_request', said('invalid_request', { error_codes: [90014] }), 'configuration'],
  ['an unknown error', said('made_up'), 'configuration'],

  // Words of Auth0, Okta, Keycloak, Cognito, Google, Ping and others for one user's grant.
  ['mfa_required with 403', said('mfa_required', { status: 403 }), 'step_up'],
  ['access_denied', said('access_denied'), 'step_up'],
  ['access_denied with 403', said('access_denied', { status: 403 }), 'step_up'],
  ['unauthorized with 401', said('unauthorized', { status: 401 }), 'step_up'],
  ['invalid_grant with 403', said('invalid_grant', { status: 403 }), 'dead_grant'],
  ['unmet_authentication_requirements', said('unmet_authentication_requirements'), 'step_up'],
  ['admin_policy_enforced', said('admin_policy_enforced'), 'user_must_act'],
  ['invalid_token', said('invalid_token', { status: 401 }), 'dead_grant'],
  ['expired_token', said('expired_token'), 'dead_grant'],
  ['deleted_client', said('deleted_client', { status: 401 }), 'configuration'],
  ['internal_failure', said('internal_failure'), 'retry_later'],
  ['slow_down', said('slow_down'), 'retry_later'],

  ['status 401 and an unknown error', said('made_up', { status: 401 }), 'configuration'],

  // The order of the lines: error before claims, claims before suberror, suberror before codes.
  ['invalid_client with claims', said('invalid_client', { claims: CLAIMS }), 'configuration'],
  [
    'claims with bad_token',
    said('invalid_grant', { suberror: 'bad_token', claims: CLAIMS, error_codes: [50173] }),
    'step_up',
  ],
  [
    'claims with device_authentication_failed',
    said('invalid_grant', { suberror: 'device_authentication_failed', claims: CLAIMS }),
    'step_up',
  ],
  [
    'bad_token with the code of a step-up',
    said('invalid_grant', { suberror: 'bad_token', error_codes: [50076] }),
    'dead_grant',
  ],
  [
    'basic_action with the code of a dead token',
    said('invalid_grant', { suberror: 'basic_action', error_codes: [700082] }),
    'step_up',
  ],
  [
    'an unknown suberror with the code of a step-up',
    said('invalid_grant', { suberror: 'made_up', error_codes: [50076] }),
    'dead_grant',
  ],
  [
    'the code of a step-up under invalid_client',
    said('invalid_client', { error_codes: [50076] }),
    'configuration',
  ],
  ['codes as text', said('invalid_grant', { error_codes: ['50076', '50196'] }), 'dead_grant'],
  ['codes that are no list', said('invalid_grant', { error_codes: 50076 }), 'dead_grant'],
]
