import { BffError } from '../errors.ts'
import { type GrantReaction, reactionTo } from './grant-errors.ts'
import type { FailedGrant } from './grant-types.ts'
import type { Finding } from './provider-gate.ts'
import type { TokenAnswer } from './token-answer.ts'

/** What of a provider's refusal is safe and useful for an operator's log; the description may hold names and mails. */
export type ProviderRefusal = {
  readonly oauthError?: string
  readonly suberror?: string
  readonly errorCodes?: string
  readonly correlationId?: string
}

/** Picks the loggable members of an OAuth error body (RFC 6749 §5.2, and Entra's additions). */
export function refusalOf(answer: Pick<TokenAnswer, 'body'> | undefined): ProviderRefusal {
  const body = answer?.body ?? {}
  // Codes are short; a token that some server put in the place of one is not.
  const word = (value: unknown) =>
    typeof value === 'string' && /^[\w.:-]{1,48}$/.test(value) ? value : undefined
  const codes = Array.isArray(body.error_codes)
    ? body.error_codes.filter((code) => typeof code === 'number').join(',')
    : undefined
  return {
    oauthError: word(body.error),
    suberror: word(body.suberror),
    errorCodes: codes || undefined,
    correlationId: word(body.correlation_id),
  }
}

/** The problem a caller sees for one reaction; `dead_grant` has none of its own, because it ends the session. */
export function problemOf(reaction: GrantReaction, answer: TokenAnswer | undefined): BffError {
  const details = { reason: refusalOf(answer).oauthError ?? reaction }
  switch (reaction) {
    case 'dead_grant':
      return new BffError('session_required', 'the authorization server ended the grant', { details })
    case 'step_up':
    case 'consent':
      return new BffError(
        'reauthentication_required',
        'the authorization server wants the user to sign in again',
        {
          details: { reason: reaction === 'consent' ? 'consent_required' : 'interaction_required' },
        },
      )
    case 'user_must_act':
      return new BffError('access_denied', 'the authorization server refuses this user', { details })
    case 'configuration':
    case 'route_configuration':
      return new BffError('provider_rejected', 'the authorization server rejected the request', { details })
    case 'retry_later':
    case 'loop':
      return unavailable(undefined, answer?.retryAfterSeconds ?? (reaction === 'loop' ? 300 : undefined))
  }
}

/** `provider_unavailable`: no usable answer came in time. */
export function unavailable(cause: unknown, retryAfterSeconds?: number): BffError {
  return new BffError('provider_unavailable', 'the authorization server does not answer', {
    cause,
    // A date that has passed by our clock, or a 0, must not become a request per caller.
    retryAfterSeconds: Math.max(1, retryAfterSeconds ?? 2),
  })
}

/** True for errors that say nothing about the request: timeouts, refused or reset connections, failed name look-ups. */
export function isNetworkError(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const { code } = error as Error & { code?: unknown }
  if (code === 'OAUTH_TIMEOUT' || code === 'OAUTH_ABORT') return true
  // `fetch` reports every network failure as a TypeError without a code of its own; the cause has it.
  return error instanceof TypeError && code === undefined
}

/** Turns a failed call to the provider into our problem: by its answer if there was one, else by the kind of failure. */
export function failedCall(error: unknown, answer: TokenAnswer | undefined): BffError {
  if (error instanceof BffError) return error
  if (answer && answer.status !== 200) return problemOf(reactionTo(answer), answer)
  // A page in place of a token answer, whatever its status, is some gateway's or error screen's: it says nothing of us.
  if (answer && answer.body === undefined) return unavailable(error)
  if (isNetworkError(error) || isServerFault(error, answer)) return unavailable(error)
  return new BffError('provider_rejected', 'the authorization server gave an unusable answer', {
    cause: error,
  })
}

/**
 * What a failed token request says about the provider itself. A refusal of one user or request is a sign of life, and so
 * is a token answer that fails a later check; only 429 among the 4xx says that the provider has enough of all of us.
 * A page with status 200 may be one user's: providers show blocked users one, and one user must not close the way for all.
 */
export function findingOf(error: unknown, answer: TokenAnswer | undefined): Finding {
  if (!answer) return { kind: isNetworkError(error) ? 'fault' : 'nothing' }
  const { status, body, retryAfterSeconds } = answer
  if (status === 200 && body === undefined) return { kind: 'page' }
  const isRefusal = status === 200 || (status >= 400 && status < 500 && status !== 429)
  if (isRefusal || (status !== 200 && reactionTo(answer) === 'loop')) return { kind: 'refused' }
  return { kind: 'fault', retryAfterSeconds }
}

/** Another answer than the token endpoint's, such as discovery, keys or PAR: a 5xx, a 429 or an HTML page is a passing fault. */
function isServerFault(error: unknown, answer: TokenAnswer | undefined): boolean {
  const { code, status, cause } = error as { code?: unknown; status?: unknown; cause?: { status?: unknown } }
  // With a token answer at hand it is its ID token that does not parse.
  if (code === 'OAUTH_PARSE_ERROR') return answer === undefined
  if (code === 'OAUTH_RESPONSE_IS_NOT_JSON' || status === 429) return true
  return code === 'OAUTH_RESPONSE_IS_NOT_CONFORM' && Number(cause?.status ?? 0) >= 500
}

/**
 * Whether the provider may have acted on a request that failed so, as far as a refresh token is concerned: an answer may
 * have been lost after it was sent, and some providers rotate before they look at the resource.
 */
export function mayHaveSpent({ answer, wasSent }: Pick<FailedGrant, 'answer' | 'wasSent'>): boolean {
  if (!answer) return wasSent
  // A success that cannot be read has rotated the token, and what it says is lost. A page is no such success: a token
  // endpoint answers in JSON (RFC 6749 §5.1), an error screen or a gateway in maintenance does not.
  if (answer.status === 200) return answer.body === undefined && !answer.isHtml
  // A gateway that lost or outwaited the server behind it knows nothing of what that one did.
  if (answer.status === 502 || answer.status === 504) return answer.body?.error === undefined
  return REFUSED_RESOURCE.has(answer.body?.error) && !isMicrosoft(answer)
}

/** RFC 8707 §2.2, and what providers with a `resource` of their own say. Some have rotated before they say so. */
const REFUSED_RESOURCE = new Set<unknown>(['invalid_target', 'invalid_resource'])

/** Entra ID numbers its refusals; it leaves a refresh token as good as it was, whatever it refuses. */
function isMicrosoft({ body }: TokenAnswer): boolean {
  return Array.isArray(body?.error_codes)
}

/** Turns a failed sign-in into our problem: a bad authorization response or ID token is the browser's to repeat. */
export function failedSignIn(error: unknown, answer: TokenAnswer | undefined): BffError {
  if (!(error instanceof Error)) return failedCall(error, answer)
  const { code, error: oauthError } = error as Error & { code?: unknown; error?: unknown }
  if (code === 'OAUTH_AUTHORIZATION_RESPONSE_ERROR') {
    const reason = refusalOf({
      body: { error: oauthError },
    }).oauthError
    return new BffError(
      reason === 'access_denied' ? 'access_denied' : 'invalid_callback',
      'the authorization server refused the sign-in',
      { details: { reason: reason ?? 'error' } },
    )
  }
  const problem = failedCall(error, answer)
  const isBadResponse = problem.code === 'provider_rejected' && (!answer || answer.status === 200)
  return isBadResponse || problem.code === 'session_required'
    ? new BffError('invalid_callback', 'the sign-in could not be completed', { cause: error })
    : problem
}
