/** What a token endpoint said when it did not give a token. */
export type GrantFault = {
  /** Undefined: no answer came, or none that could be read. */
  readonly status: number | undefined
  /** The JSON body, or undefined when it was none. */
  readonly body: Readonly<Record<string, unknown>> | undefined
}

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

const RETRY_ERRORS = new Set(['temporarily_unavailable', 'server_error'])
const CONFIGURATION_ERRORS = new Set(['invalid_client', 'unauthorized_client', 'unsupported_grant_type'])
const ROUTE_ERRORS = new Set(['invalid_resource', 'invalid_scope', 'invalid_target'])
const STEP_UP_ERRORS = new Set(['interaction_required', 'login_required'])
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
  if (error === 'invalid_request' && codes.includes(GARBAGE_TOKEN_CODE)) return 'dead_grant'
  return 'configuration'
}

/** Entra ID: the assertion of an on-behalf-of request is a token for somebody else than this client. */
const FOREIGN_ASSERTION_CODE = 500131

/**
 * The same for a token exchange. What is refused there is an access token: the refresh token is not even in the
 * request, so no answer means that the session is dead. A new sign-in brings a new token to exchange.
 */
export function reactionToExchange(fault: GrantFault): Exclude<GrantReaction, 'dead_grant'> {
  const reaction = reactionTo(fault)
  if (reaction !== 'dead_grant') return reaction
  const isForeign = numbers(fault.body?.error_codes).includes(FOREIGN_ASSERTION_CODE)
  return text(fault.body?.error) === 'invalid_grant' && !isForeign ? 'step_up' : 'route_configuration'
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

/** Seconds of a Retry-After header (RFC 9110 §10.2.3: seconds or an HTTP date), at most an hour. */
export function retryAfterSeconds(header: string | null, now: number): number | undefined {
  if (!header) return undefined
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - now) / 1000
  return Number.isFinite(seconds) ? Math.min(3600, Math.max(0, Math.ceil(seconds))) : undefined
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

function numbers(value: unknown): readonly number[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'number') : []
}
