import { BffError, type LoggedFacts, withLogged } from '../../errors.ts'
import { IdTokenError } from './id-token.ts'
import type { Finding } from './limiter.ts'
import { askedToWaitSeconds, type TokenAnswer } from './provider-fetch.ts'
import { type GrantReaction, reactionTo, wordForUser } from './reactions.ts'

/** What of a provider's refusal is safe and useful for an operator's log; the description may hold names and mails. */
export type ProviderRefusal = {
  readonly oauthError?: string
  readonly suberror?: string
  /** Microsoft's: `AADSTS50001` as `50001`, `AADB2C90118` and `MSIS9605` as they are. */
  readonly errorCodes?: string
  readonly correlationId?: string
  readonly traceId?: string
  readonly timestamp?: string
  /** HTTP status of the provider's answer; `status` in the log is that of ours. */
  readonly providerStatus?: number | undefined
}

/** A failed grant: our problem, and the answer that it came from, if there was one. */
export type FailedGrant = {
  readonly error: BffError
  readonly answer: TokenAnswer | undefined
  /** False when it is certain that not a byte of the token request was sent. */
  readonly wasSent: boolean
}

const MOST_CODES = 10

/**
 * Picks the loggable members of an OAuth error (RFC 6749 §4.1.2.1, §5.2, and Microsoft's additions), from a token answer
 * or a redirect. Codes and ids that stand in the description alone are read from there; the rest of it stays unread.
 */
export function refusalOf(
  answer: { readonly body: Record<string, unknown> | undefined; readonly status?: number } | undefined,
): ProviderRefusal {
  const body = answer?.body ?? {}
  // Codes are short; a token that some server put in the place of one is not.
  const word = (value: unknown) =>
    typeof value === 'string' && /^[\w.:-]{1,48}$/.test(value) ? value : undefined
  const codes = Array.isArray(body.error_codes)
    ? body.error_codes.filter((code) => typeof code === 'number').slice(0, MOST_CODES)
    : []
  const described = describedIn(body.error_description)
  return {
    oauthError: word(body.error),
    suberror: word(body.suberror),
    errorCodes: codes.join(',') || described.errorCodes,
    correlationId: word(body.correlation_id) ?? described.correlationId,
    traceId: word(body.trace_id) ?? described.traceId,
    timestamp: timestampIn(body.timestamp) ?? described.timestamp,
    providerStatus: answer?.status,
  }
}

/** What Microsoft writes into the text, which in a redirect is all there is. */
function describedIn(description: unknown): Omit<ProviderRefusal, 'oauthError' | 'suberror'> {
  if (typeof description !== 'string') return {}
  const text = description.slice(0, 4_000)
  const codes = text.match(/\b(?:AADSTS|AADB2C|MSIS)\d{3,9}\b/g) ?? []
  const names = new Set(codes.map((code) => code.replace('AADSTS', '')))
  return {
    errorCodes: [...names].slice(0, MOST_CODES).join(',') || undefined,
    correlationId: /\bCorrelation ID:\s*([\da-f-]{36})\b/i.exec(text)?.[1],
    traceId: /\bTrace ID:\s*([\da-f-]{36})\b/i.exec(text)?.[1],
    timestamp: timestampIn(/\bTimestamp:\s*([\d-]{10}[ T][\d:.]{8,16}Z?)/i.exec(text)?.[1]),
  }
}

function timestampIn(value: unknown): string | undefined {
  const isOne = typeof value === 'string' && /^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,7})?Z?$/.test(value)
  return isOne ? value : undefined
}

/** The problem a caller sees for one reaction; `dead_grant` has none of its own, because it ends the session. */
export function problemOf(reaction: GrantReaction, answer: TokenAnswer | undefined): BffError {
  const details = { reason: refusalOf(answer).oauthError ?? reaction }
  switch (reaction) {
    case 'dead_grant':
      return new BffError('session_required', 'the authorization server ended the grant', { details })
    case 'step_up':
      return signInAgain(answer && wordForUser(answer))
    case 'consent':
      return signInAgain('consent_required')
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

/** `reauthentication_required`: the user may cure it at the provider. */
export function signInAgain(reason = 'interaction_required'): BffError {
  return new BffError(
    'reauthentication_required',
    'the authorization server wants the user to sign in again',
    { details: { reason } },
  )
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
export function failedCall(error: unknown, answer: TokenAnswer | undefined, now = 0): BffError {
  if (error instanceof BffError) return error
  if (answer && answer.status !== 200) return problemOf(reactionTo(answer), answer)
  // Status 200 and no JSON object: a gateway or an error screen answered. It says nothing of our configuration.
  if (answer && answer.body === undefined) return unavailable(error)
  if (isNetworkError(error) || isServerFault(error, answer))
    return unavailable(error, askedSeconds(error, now))
  return new BffError('provider_rejected', 'the authorization server gave an unusable answer', {
    cause: error,
  })
}

/** A failed token request as its caller sees it. */
export function failedGrant(error: unknown, answer: TokenAnswer | undefined, wasSent: boolean): FailedGrant {
  return { error: failedCall(error, answer), answer, wasSent }
}

/**
 * What a failed token request says about the provider itself. A refusal of one user or request is a sign of life, and so
 * is a token answer that fails a later check; only 429 among the 4xx says that the provider has enough of all of us.
 * Status 200 without a JSON object (`page`) may be meant for one user: providers show blocked users a page, and one user
 * must not open the circuit for all.
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
  const answered = Number(cause?.status ?? 0)
  return code === 'OAUTH_RESPONSE_IS_NOT_CONFORM' && (answered >= 500 || answered === 429 || answered === 408)
}

/**
 * Whether the provider may have acted on a request that failed so, as far as a refresh token is concerned: an answer may
 * have been lost after it was sent, and some providers rotate before they look at the resource.
 */
export function mayHaveUsedRefreshToken({
  answer,
  wasSent,
}: Pick<FailedGrant, 'answer' | 'wasSent'>): boolean {
  if (!answer) return wasSent
  // Status 200 without a readable JSON object: the token may have been rotated, and the new one is lost. Unless it is an
  // HTML page: a token endpoint answers in JSON (RFC 6749 §5.1), an error screen or a gateway in maintenance does not.
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

/** Where a sign-in failed, for log and metrics. `authorization`: in the response that the browser brought. */
export type SignInStep = 'discovery' | 'par' | 'authorization' | 'code' | 'keys' | 'id_token' | 'userinfo'

/** What the log says of a failed sign-in, on top of its problem. */
export function signInFacts(error: unknown, step: SignInStep, answer?: TokenAnswer): LoggedFacts {
  const isIdToken = error instanceof IdTokenError
  return { step: isIdToken ? 'id_token' : step, ...refusalOf(answer), ...(isIdToken ? error.facts : {}) }
}

/** Turns a failed code grant into our problem: a bad authorization response or ID token is the browser's to repeat. */
export function failedSignIn(error: unknown, answer: TokenAnswer | undefined): BffError {
  const refused = authorizationError(error)
  if (refused) return refused
  const problem = isUnexplained401(answer) ? unknownClient(error) : forSignIn(failedCall(error, answer))
  const isBadResponse = problem.code === 'provider_rejected' && (!answer || answer.status === 200)
  const isOurs = error instanceof BffError || !(isBadResponse || problem.code === 'session_required')
  const seen = isOurs
    ? problem
    : new BffError('invalid_callback', 'the sign-in could not be completed', { cause: error })
  const step = isBadResponse && !answer ? 'authorization' : 'code'
  return withLogged(seen, { ...signInFacts(error, step, answer), ...seen.logged })
}

/** During a sign-in, asking for another sign-in would be a loop: the provider refuses this user. */
function forSignIn(problem: BffError): BffError {
  const { code, message, details } = problem
  return code === 'reauthentication_required' ? new BffError('access_denied', message, { details }) : problem
}

/**
 * Whether the client was not accepted. RFC 6749 §5.2 has status 401 for nothing else; Keycloak says `unauthorized_client`
 * with it, of a wrong secret.
 */
export function isRefusedClient(answer: Pick<TokenAnswer, 'status' | 'body'> | undefined): boolean {
  if (answer === undefined || answer.status === 200) return false
  return answer.body?.error === 'invalid_client' || answer.status === 401
}

/** RFC 6749 §5.2 has this status for one thing only, and some providers leave out the body that says so. */
function isUnexplained401(answer: TokenAnswer | undefined): boolean {
  return answer?.status === 401 && answer.body?.error === undefined
}

function unknownClient(cause: unknown): BffError {
  return new BffError('provider_rejected', 'the authorization server does not accept us as the client', {
    ...{ cause, details: { reason: 'invalid_client' }, logged: { oauthError: 'invalid_client' } },
  })
}

const PASSING_AUTHORIZATION_ERRORS = new Set(['server_error', 'temporarily_unavailable'])
/** The user must do something, and did not: OpenID Connect Core §3.1.2.6. */
const INTERACTION_ERRORS = new Set([
  ...['login_required', 'interaction_required', 'consent_required', 'account_selection_required'],
])

/**
 * The problem for an error in the authorization response (RFC 6749 §4.1.2.1); undefined for any other failure. A
 * user can write one into the response of their own sign-in, so it is reported and has no other effect.
 */
function authorizationError(error: unknown): BffError | undefined {
  const { code, cause, ...told } = (error ?? {}) as Record<string, unknown>
  if (code !== 'OAUTH_AUTHORIZATION_RESPONSE_ERROR') return undefined
  const parameters = cause instanceof URLSearchParams ? Object.fromEntries(cause) : told
  // §4.1.2: a response has a code or an error. One with both is no provider's.
  if ('code' in parameters) return undefined
  const refusal = refusalOf({ body: parameters })
  const reason = refusal.oauthError ?? 'error'
  const options = { details: { reason }, logged: { step: 'authorization', ...refusal } }
  if (PASSING_AUTHORIZATION_ERRORS.has(reason)) {
    return new BffError('provider_unavailable', 'the authorization server cannot sign in just now', {
      ...options,
      retryAfterSeconds: 5,
    })
  }
  const message = 'the authorization server refused the sign-in'
  if (reason === 'access_denied') return new BffError('access_denied', message, options)
  if (INTERACTION_ERRORS.has(reason)) return new BffError('invalid_callback', message, options)
  return new BffError('provider_rejected', message, options)
}

/** Turns a refused or failed pushed authorization request (RFC 9126 §2.3) into our problem. */
export function failedPush(error: unknown, answer: TokenAnswer | undefined): BffError {
  const problem = pushProblem(error, answer)
  return withLogged(problem, { ...signInFacts(error, 'par', answer), ...problem.logged })
}

function pushProblem(error: unknown, answer: TokenAnswer | undefined): BffError {
  if (error instanceof BffError || !answer) return failedCall(error, answer)
  const { status, body, retryAfterSeconds } = answer
  const isPassing = status >= 500 || status === 429 || status === 408
  if (isPassing || PASSING_AUTHORIZATION_ERRORS.has(String(body?.error))) {
    return unavailable(error, retryAfterSeconds)
  }
  if (isUnexplained401(answer)) return unknownClient(error)
  const reason = refusalOf(answer).oauthError
  return new BffError(
    'provider_rejected',
    'the authorization server refused the pushed authorization request',
    {
      ...(reason === undefined ? { cause: error } : { details: { reason } }),
    },
  )
}

/**
 * Turns a failed UserInfo request into our problem. Claims that are of another user, or that the provider did not sign, are
 * not to be trusted (OpenID Connect Core §5.3.2, §5.3.4); a token that is refused there is a matter of the configuration.
 */
export function failedUserInfo(error: unknown, now: number): BffError {
  const isOtherUser = (error as { code?: unknown }).code === 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED'
  const isUntrue = isOtherUser || isUnsound(error)
  const problem = isUntrue
    ? new BffError('invalid_callback', 'the UserInfo answer is not to be trusted', { cause: error })
    : failedCall(error, undefined, now)
  return withLogged(problem, {
    ...problem.logged,
    step: 'userinfo',
    ...(isOtherUser ? { claim: 'sub' } : {}),
  })
}

/** A claim or a time of a signed answer is not right, or its signature is no key's of the provider. */
function isUnsound(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof BffError) return false
  const { code } = error as { code?: unknown }
  return String(code).startsWith('OAUTH_JWT_') || (code === undefined && !isNetworkError(error))
}

/**
 * Turns a failed discovery into our problem: what a later attempt may cure is unavailable, the rest is configuration. Its
 * cause says what was asked and what came, because the library's words alone lead no operator to the fault.
 */
export function failedDiscovery(error: unknown, now: number, issuer?: string): BffError {
  const failed = withLogged(failedCall(error, undefined, now), { step: 'discovery' })
  const found = issuer === undefined ? undefined : discoveryFault(error, issuer)
  if (found !== undefined) failed.cause = Object.assign(new Error(found), codeOf(error))
  return failed
}

/** What of a failed discovery openid-client and `fetch` leave to the causes of their errors. */
function discoveryFault(error: unknown, issuer: string): string | undefined {
  const { code, cause } = (error ?? {}) as { code?: unknown; cause?: unknown }
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  if (code === 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED') {
    const { body } = (cause ?? {}) as { body?: { issuer?: unknown } }
    return `${url} is of the issuer ${JSON.stringify(body?.issuer)}, and provider.issuer is ${JSON.stringify(issuer)}: both must be the same to the last sign`
  }
  if (cause instanceof Response) {
    const type = cause.headers.get('content-type')?.split(';', 1)[0] ?? 'no type'
    return cause.status === 200
      ? `${url} was answered with ${type} in place of JSON`
      : `${url} was answered with status ${cause.status}`
  }
  if (code === 'OAUTH_PARSE_ERROR') return `${url} was answered with something that is no JSON`
  if (code === 'OAUTH_TIMEOUT') return `${url} was not answered in time (provider.timeout)`
  if (!isNetworkError(error)) return undefined
  const lowest = lowestCause(error as Error)
  return lowest === error ? undefined : `${url}: ${lowest.message}`
}

/** The system's own error at the bottom, such as a name that is not known. */
function lowestCause(error: Error): Error {
  let lowest = error
  for (let depth = 0; depth < 5; depth += 1) {
    const below = lowest instanceof AggregateError ? lowest.errors[0] : lowest.cause
    if (!(below instanceof Error)) break
    lowest = below
  }
  return lowest
}

function codeOf(error: unknown): { code?: string } {
  if ((error as { code?: unknown }).code === 'OAUTH_TIMEOUT') return { code: 'ETIMEDOUT' }
  const code = error instanceof Error ? (lowestCause(error) as { code?: unknown }).code : undefined
  return typeof code === 'string' && !code.startsWith('OAUTH_') ? { code } : {}
}

/** The provider's Retry-After in an answer that openid-client took for none. */
function askedSeconds(error: unknown, now: number): number | undefined {
  const { cause } = (error ?? {}) as { cause?: unknown }
  return cause instanceof Response ? askedToWaitSeconds(cause.headers, now) : undefined
}
