import type { TokenAnswer } from './provider-fetch.ts'

/** What a token endpoint said when it did not give a token. `status` undefined: no answer came. */
export type GrantFault = Pick<TokenAnswer, 'body'> & { readonly status: number | undefined }

/**
 * What we do about it. `dead_grant`: end the session. `step_up`, `consent`: the user must sign in again for this
 * resource. `user_must_act`: signing in again will not help. `configuration`: the operator must act; sessions stay.
 * `route_configuration`: the same, for one resource. `retry_later`: a passing fault. `loop`: the provider asks us to stop.
 */
export type GrantReaction =
  | 'dead_grant'
  | 'step_up'
  | 'consent'
  | 'user_must_act'
  | 'configuration'
  | 'route_configuration'
  | 'retry_later'
  | 'loop'

// RFC 6749 §4.1.2.1, and what Google, Cognito and gateways say in the place of a status.
const RETRY_ERRORS = new Set([
  ...['temporarily_unavailable', 'server_error', 'internal_failure', 'internal_error'],
  ...['slow_down', 'rate_limit_exceeded', 'too_many_requests', 'request_limit_exceeded'],
])
// RFC 6749 §5.2; Google.
const CONFIGURATION_ERRORS = new Set([
  ...['invalid_client', 'unauthorized_client', 'unsupported_grant_type'],
  ...['deleted_client', 'disabled_client', 'invalid_client_metadata'],
])
const ROUTE_ERRORS = new Set(['invalid_resource', 'invalid_scope', 'invalid_target'])
const STEP_UP_ERRORS = new Set([
  ...['interaction_required', 'login_required', 'account_selection_required'],
  // OpenID Connect Unmet Authentication Requirements 1.0, RFC 9470.
  ...['unmet_authentication_requirements', 'insufficient_user_authentication'],
])
/**
 * One user's grant is refused, and a page of the provider's can say why or cure it: Auth0 (`mfa_required` with 403, and
 * `access_denied` and `unauthorized` for a user whom an action or a block keeps out), Okta's and Keycloak's policies
 * (`access_denied`), Keycloak's accounts.
 */
const USER_ERRORS = new Set([
  ...['mfa_required', 'mfa_enrollment_required', 'mfa_registration_required', 'association_required'],
  ...['access_denied', 'unauthorized', 'too_many_attempts', 'password_expired', 'password_leaked'],
  ...['user_disabled', 'user_temporarily_disabled', 'account_disabled', 'account_temporarily_disabled'],
  ...['resolve_required_actions', 'user_blocked', 'blocked_user', 'reauthentication_required'],
])
/** Google: an administrator's to give. */
const ADMINISTRATOR_ERRORS = new Set(['admin_policy_enforced', 'org_internal'])
/** RFC 6750 §3.1 and other words for a refresh token that is no good, where RFC 6749 §5.2 has `invalid_grant`: Spring, ForgeRock, PingFederate. */
const DEAD_TOKEN_ERRORS = new Set([
  ...['invalid_token', 'expired_token', 'token_expired', 'token_revoked', 'invalid_refresh_token'],
  ...['refresh_token_expired', 'expired_refresh_token', 'refresh_token_revoked', 'token_inactive'],
])
/** Dex has one word for whatever is wrong with a refresh; these whole sentences are all that tells a dead token. */
const DEX_DEAD_TOKEN =
  /^(?:refresh token expired|refresh token is invalid or has already been claimed by another client)\.?$/i
const STEP_UP_SUBERRORS = new Set([
  'basic_action',
  'additional_action',
  'message_only',
  'user_password_expired',
  'ui_not_allowed',
  'interrupted_user',
])
const USER_SUBERRORS = new Set(['protection_policy_required', 'device_authentication_failed'])

// Microsoft's numeric codes: a last hint, and only where `error` and `suberror` leave it open.
const LOOP_CODE = 50196
const GARBAGE_TOKEN_CODE = 9002313
const STEP_UP_CODES = new Set([
  ...[50072, 50074, 50076, 50078, 50079, 50158, 50199, 50140, 700020],
  // A password that has expired or must be changed.
  ...[50055, 50125, 50135, 50144],
  // Conditional Access of one resource: the provider's page explains, and what that does not cure is not tried twice.
  ...[50005, 50097, 50129, 50131, 50155, 50187, 53000, 53001, 53002, 53003, 53004, 53010],
  ...[530003, 530032, 530034, 530035],
])
const CONSENT_CODES = new Set([65001])
// Not assigned to the application, consent declined, or an administrator's to give: another sign-in changes nothing.
const USER_CODES = new Set([50105, 501051, 65004, 90094, 90095])

/**
 * Decides by `error`, then `suberror`, then `claims`, never by message text: Microsoft rewords its texts, and
 * `invalid_grant` does not always mean a dead refresh token (RFC 6749 §5.2; Entra sends it when only one resource
 * wants another sign-in).
 */
export function reactionTo({ status, body }: GrantFault): GrantReaction {
  const error = text(body?.error)
  const suberror = text(body?.suberror)
  const codes = numbers(body?.error_codes)
  if (codes.includes(LOOP_CODE)) return 'loop'
  if (status === undefined || status >= 500 || status === 429) return 'retry_later'
  if (error === undefined || RETRY_ERRORS.has(error)) return 'retry_later'
  if (CONFIGURATION_ERRORS.has(error)) return 'configuration'
  if (ROUTE_ERRORS.has(error)) return 'route_configuration'
  if (typeof body?.claims === 'string' && body.claims !== '') return 'step_up'
  if (suberror === 'consent_required' || error === 'consent_required') return 'consent'
  if ((suberror && STEP_UP_SUBERRORS.has(suberror)) || STEP_UP_ERRORS.has(error)) return 'step_up'
  if (error === 'invalid_grant') return reactionToInvalidGrant(suberror, codes)
  if (USER_ERRORS.has(error)) return codes.some((code) => USER_CODES.has(code)) ? 'user_must_act' : 'step_up'
  if (ADMINISTRATOR_ERRORS.has(error)) return 'user_must_act'
  if (DEAD_TOKEN_ERRORS.has(error)) return 'dead_grant'
  if (error === 'invalid_request' && isDeadToken(body, codes)) return 'dead_grant'
  return 'configuration'
}

function isDeadToken(body: GrantFault['body'], codes: readonly number[]): boolean {
  return (
    codes.includes(GARBAGE_TOKEN_CODE) || DEX_DEAD_TOKEN.test(text(body?.error_description)?.trim() ?? '')
  )
}

/**
 * Whether a refusal whose words leave it open may be one session's matter: an error that `reactionTo` takes for a fault
 * of the configuration, and a 400 (RFC 6749 §5.2) with no word at all: without a body, as Glewlwyd has it for every
 * refresh that it refuses, or in JSON of a shape of its own.
 */
export function isUnexplained(fault: GrantFault & { readonly isHtml?: boolean }): boolean {
  const error = text(fault.body?.error)
  if (fault.status === 400 && error === undefined) return fault.isHtml !== true
  if (error === undefined || reactionTo(fault) !== 'configuration') return false
  return !CONFIGURATION_ERRORS.has(error) && error !== 'invalid_grant'
}

/** The provider's word for what it wants of the user, where it is none of OpenID Connect's for the same. */
export function wordForUser(fault: Pick<GrantFault, 'body'>): string | undefined {
  const error = text(fault.body?.error)
  return error !== undefined && USER_ERRORS.has(error) ? error : undefined
}

/** Entra ID: the assertion of an on-behalf-of request is a token for another client. */
const FOREIGN_ASSERTION_CODE = 500131

/**
 * The same for a token exchange. What is refused there is an access token: the refresh token is not even in the
 * request, so no answer means that the session is dead. A new sign-in brings a new token to exchange.
 */
export function reactionToExchange(fault: GrantFault): Exclude<GrantReaction, 'dead_grant'> {
  const reaction = reactionTo(fault)
  const error = text(fault.body?.error) ?? ''
  // What may be exchanged for what is a policy for clients.
  if (error === 'access_denied' && reaction === 'step_up' && !fault.body?.claims) return 'route_configuration'
  if (reaction !== 'dead_grant') return reaction
  const isForeign = numbers(fault.body?.error_codes).includes(FOREIGN_ASSERTION_CODE)
  const isSubject = error === 'invalid_grant' || DEAD_TOKEN_ERRORS.has(error)
  return isSubject && !isForeign ? 'step_up' : 'route_configuration'
}

const USERS_REACTIONS: ReadonlySet<GrantReaction> = new Set([
  'dead_grant',
  'step_up',
  'consent',
  'user_must_act',
])

/**
 * The same for a grant of the client itself (RFC 6749 §4.4). No session hangs on it and no user can cure it: whatever
 * would be theirs is the operator's, as when the client has no role at this resource (AADSTS501051 as invalid_grant).
 */
export function reactionToClient(fault: GrantFault): GrantReaction {
  const reaction = reactionTo(fault)
  return USERS_REACTIONS.has(reaction) ? 'route_configuration' : reaction
}

function reactionToInvalidGrant(suberror: string | undefined, codes: readonly number[]): GrantReaction {
  if (suberror === 'client_mismatch') return 'configuration'
  if (suberror && USER_SUBERRORS.has(suberror)) return 'user_must_act'
  if (suberror) return 'dead_grant'
  if (codes.some((code) => CONSENT_CODES.has(code))) return 'consent'
  if (codes.some((code) => STEP_UP_CODES.has(code))) return 'step_up'
  if (codes.some((code) => USER_CODES.has(code))) return 'user_must_act'
  return 'dead_grant'
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

function numbers(value: unknown): readonly number[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'number') : []
}
