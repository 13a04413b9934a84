import type { GrantReaction } from '../../../src/oidc/token-endpoint/reactions.ts'

/** How a code is sent: its error, and its suberror and status where they are not absent and 400. */
export type SentAs = readonly [error: string, suberror?: string | undefined, status?: number]
/** Codes of one meaning, the answers they are seen in, and what must follow. */
export type AadstsRow = readonly [codes: readonly number[], sentAs: readonly SentAs[], means: GrantReaction]

const GRANT: SentAs = ['invalid_grant']
const INTERACTION: SentAs = ['interaction_required']
const BASIC: readonly SentAs[] = [
  ['interaction_required', 'basic_action'],
  ['invalid_grant', 'basic_action'],
]
const CLIENT: readonly SentAs[] = [
  ['invalid_client', undefined, 401],
  ['invalid_client', undefined, 400],
]
const REQUEST: SentAs = ['invalid_request']

/**
 * Microsoft's codes, each in the answers that it is sent in as far as they are known. The code is the last hint: where it
 * seems to say another thing than `error` and `suberror` do, those win, because Microsoft renumbers freely and keeps the
 * words; a comment tells where.
 */
export const AADSTS: readonly AadstsRow[] = [
  [[50001, 500011], [['invalid_resource']], 'route_configuration'],
  [[650052, 650053, 650054, 650057, 65005, 650056], [['invalid_resource']], 'route_configuration'],
  // About one resource, but said as invalid_client: the error wins. Both are the operator's, and the session stays.
  [[650052, 650053, 650056], CLIENT, 'configuration'],
  [[650053, 70011, 28002, 28003, 700023], [['invalid_scope']], 'route_configuration'],
  [[28000, 700022, 901002, 9010010], [REQUEST], 'configuration'],

  [
    [65001],
    [['invalid_grant', 'consent_required'], GRANT, ['interaction_required', 'consent_required']],
    'consent',
  ],
  // Only an administrator can consent, but the suberror wins: the provider's own page is what tells the user to ask.
  [[90094, 90095], [['invalid_grant', 'consent_required'], ['consent_required']], 'consent'],
  [[90094, 90095, 65004], [GRANT], 'user_must_act'],
  // An error that the model does not know at this endpoint is treated as invalid_request, whatever its code.
  [[65004], [['access_denied']], 'user_must_act'],
  [[90008], [REQUEST], 'configuration'],

  [[50076, 50074, 50078, 50079, 50072, 50158], [...BASIC, INTERACTION, GRANT], 'step_up'],
  [[700020, 50199, 50140], [INTERACTION, GRANT], 'step_up'],
  [[50058], [['login_required'], INTERACTION], 'step_up'],

  // The account itself does not belong to the tenant: no resource of this session can be had any more, so the grant is
  // as good as dead, with or without bad_token, and the sign-in that follows is where another account is chosen.
  [[16000, 16001, 16003, 160021, 50020, 50034, 51004, 50014, 90072], [GRANT], 'dead_grant'],
  [[50034], [['invalid_grant', 'bad_token']], 'dead_grant'],
  [[16000, 160021], [INTERACTION], 'step_up'],

  // Not assigned to one application. Ending the session would send correct clients round in circles: the sign-in
  // succeeds each time, and the next refresh is refused again.
  [[50105, 501051], [GRANT], 'user_must_act'],
  // Locked, disabled or risky: the session is over, and the provider's sign-in page says why.
  [[50053, 50057, 53011], [GRANT], 'dead_grant'],
  // The error wins over the code of a locked account; nobody is signed out for a fault of configuration.
  [[50053], [['unauthorized_client']], 'configuration'],

  [
    [50055, 50144, 50125, 50135],
    [['user_password_expired', 'user_password_expired'], ['invalid_grant', 'user_password_expired'], GRANT],
    'step_up',
  ],
  // Wrong passwords are typed at the provider; no refresh is answered so, and nothing better than the default is known.
  [[50126, 50056, 50064], [GRANT], 'dead_grant'],

  // Conditional Access: one interactive try, because the provider's page explains; what it does not cure is not asked
  // for twice. Seen without any suberror too (50005).
  [
    [
      ...[53000, 53001, 53002, 53003, 53004, 53010, 530032, 530034, 530035, 530003],
      ...[50005, 50097, 50129, 50131, 50155, 50187],
    ],
    [['interaction_required', 'message_only'], ['invalid_grant', 'message_only'], GRANT],
    'step_up',
  ],
  [[50097, 50155, 53001], [['invalid_grant', 'device_authentication_failed']], 'user_must_act'],

  // Of the code, not of a refresh: there the sign-in is only begun again.
  [[54005, 501481, 50147, 501491, 700005], [GRANT], 'dead_grant'],

  [[70000, 70008, 700082, 700084, 50173], [GRANT, ['invalid_grant', 'bad_token']], 'dead_grant'],
  [[70043], [['invalid_grant', 'token_expired'], GRANT], 'dead_grant'],
  // v1 sends it as interaction_required: the error wins over the suberror, and a sign-in for this resource cures it.
  [[70043], [['interaction_required', 'token_expired']], 'step_up'],
  [[50132, 50133, 50089, 50085, 50139], [GRANT], 'dead_grant'],

  [
    [50196],
    [GRANT, ['invalid_grant', 'bad_token'], ['temporarily_unavailable'], ['server_error', undefined, 503]],
    'loop',
  ],

  [[7000215, 7000222, 7000218, 70002], CLIENT, 'configuration'],
  [[700027, 50012, 700030, 50013, 50048], CLIENT, 'configuration'],
  [[700024, 70021, 700211, 700212, 700213, 700025], [...CLIENT, REQUEST], 'configuration'],
  [[700016, 700011, 70001, 7000112, 7000229], [['unauthorized_client'], ...CLIENT], 'configuration'],
  [[50011, 70004, 900971], [REQUEST, ['invalid_client']], 'configuration'],
  [[700054, 70005, 70007], [['unsupported_response_type'], REQUEST], 'configuration'],
  [[50194, 9001023, 90124, 90130, 90019, 50059, 50128], [REQUEST], 'configuration'],
  [[90002], [REQUEST, ['invalid_tenant']], 'configuration'],
  [[90038, 900439, 900382, 900432], [REQUEST], 'configuration'],

  // A policy between tenants holds for every resource of this sign-in: without a suberror the grant is of no use.
  [[50002, 500021, 500022, 500212, 500213], [GRANT], 'dead_grant'],

  [[90014, 900144, 90004, 90023, 90100, 900561, 90015], [REQUEST], 'configuration'],
  [[9002313], [REQUEST, GRANT], 'dead_grant'],

  [
    [
      ...[90033, 90006, 90012, 90024, 90090, 90091, 50033, 50087, 50088, 50166],
      ...[40010, 80002, 80005, 80014, 90055],
    ],
    [
      ['temporarily_unavailable'],
      ['temporarily_unavailable', undefined, 503],
      ['temporarily_unavailable', undefined, 429],
      ['server_error'],
      ['invalid_grant', undefined, 503],
    ],
    'retry_later',
  ],
  // Said not to pass by themselves, but the error and the status say that they may; a later try costs little.
  [[90036, 90092, 50000, 50086, 40008], [['server_error'], ['server_error', undefined, 500]], 'retry_later'],
  // Of the sign-out endpoint; here they would be as odd as any malformed request.
  [[50068, 50070, 50061], [REQUEST], 'configuration'],
]
