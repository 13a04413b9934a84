import { type BffError, describeError, type ErrorCode } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createReminders } from '../oidc/reminders.ts'

/** What goes wrong at the provider goes wrong for everybody in the same way. */
const SHARED: ReadonlySet<ErrorCode> = new Set(['provider_rejected', 'provider_unavailable'])

/**
 * Tells the log what is behind a problem, by request. A cause that all requests share is told once, and then at most once
 * a minute with their number since: the line of each request has its id and code anyway.
 */
export function createCauseLog({ log, monotonicNow }: { log: Logger; monotonicNow: () => number }) {
  const isDue = createReminders(monotonicNow)

  return function tellCause(error: BffError, requestId: string): void {
    if (!error.cause) return
    const { code } = error
    const err = describeError(error.cause)
    // Names and codes are few; a message may be made of anything.
    const count = SHARED.has(code) ? isDue.count(`${code} ${err.name} ${err.code} ${err.cause}`) : 1
    if (count !== undefined) log.warn({ requestId, code, count, err }, error.message)
  }
}

/** Told of each sign-in that failed: where, and why as a word of a closed list. */
export type ObserveSignInFailure = (step: string, error: string) => void

/** How a sign-in fails; what else its endpoints refuse, such as another method, is no sign-in. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  ...(['invalid_callback', 'access_denied', 'session_required'] as const),
  ...(['provider_rejected', 'provider_unavailable', 'store_unavailable'] as const),
])

/** What a metric's label may be; a provider, or whoever writes his own redirect, must not make up others. */
const WORDS: ReadonlySet<unknown> = new Set([
  // RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core §3.1.2.6, RFC 8707 §2, RFC 9126 §2.3.
  ...['invalid_request', 'invalid_client', 'invalid_grant', 'unauthorized_client', 'unsupported_grant_type'],
  ...['invalid_scope', 'access_denied', 'unsupported_response_type', 'server_error'],
  ...['temporarily_unavailable', 'login_required', 'interaction_required', 'consent_required'],
  ...['account_selection_required', 'invalid_request_uri', 'invalid_request_object'],
  ...['request_not_supported', 'request_uri_not_supported', 'registration_not_supported'],
  ...['unmet_authentication_requirements', 'invalid_target', 'invalid_resource', 'invalid_redirect_uri'],
  // Our own.
  ...['tenant', 'other_user', 'acr', 'step_up_expired'],
  // Claims of an ID token.
  ...['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'nonce', 'azp', 'auth_time', 'at_hash', 'c_hash'],
])

/**
 * Tells the log of each sign-in that failed, by the request id that its page shows: where, why, and what the provider
 * said of it. One line each, because whoever helps one user looks for that one.
 */
export function createSignInLog({ log, observe }: { log: Logger; observe: ObserveSignInFailure }) {
  return function tellSignIn(error: BffError, { requestId, route }: { requestId: string; route: string }) {
    const { code, details, logged, cause } = error
    if (!FAILURES.has(code) && details?.reason !== 'step_up_expired') return
    const step = String(logged?.step ?? route.replace('bff/', ''))
    const word = logged?.oauthError ?? logged?.claim ?? details?.reason
    observe(step, WORDS.has(word) ? String(word) : word === undefined ? code : 'other')
    const reason = details?.reason === undefined ? undefined : String(details.reason)
    const err = cause === undefined ? undefined : describeError(cause)
    log.warn({ requestId, code, reason, ...logged, step, err }, `a sign-in failed: ${error.message}`)
  }
}
