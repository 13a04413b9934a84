import { BffError, type ErrorCode } from '../errors.ts'

/** Status and title of every problem (contract section 4). A new code does not compile without them. */
const PROBLEMS: Readonly<Record<ErrorCode, { status: number; title: string }>> = {
  path_rejected: { status: 400, title: 'The request path is not acceptable' },
  invalid_return_url: { status: 400, title: 'returnUrl must be a path on this origin' },
  invalid_callback: { status: 400, title: 'The sign-in response is not valid' },
  bad_request: { status: 400, title: 'The request is not acceptable' },
  session_required: { status: 401, title: 'Sign in first' },
  reauthentication_required: { status: 401, title: 'Sign in again' },
  csrf_required: { status: 403, title: 'The header X-CSRF: 1 is required' },
  origin_forbidden: { status: 403, title: 'Requests from this origin are not allowed' },
  access_denied: { status: 403, title: 'Access denied' },
  route_not_found: { status: 404, title: 'No route matches this path' },
  method_not_allowed: { status: 405, title: 'This method is not allowed here' },
  body_too_large: { status: 413, title: 'The request body is too large' },
  misdirected_request: { status: 421, title: 'This request is for another host' },
  rate_limited: { status: 429, title: 'Too many requests' },
  upstream_unreachable: { status: 502, title: 'The upstream cannot be reached' },
  provider_rejected: { status: 502, title: 'The identity provider rejected our request' },
  store_unavailable: { status: 503, title: 'The session store is not available' },
  provider_unavailable: { status: 503, title: 'The identity provider is not available' },
  upstream_timeout: { status: 504, title: 'The upstream did not answer in time' },
}

/** An answer, complete, to be written to a response or a raw socket. */
export type ProblemAnswer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** RFC 9457 JSON text. */
  readonly body: string
}

/** What a problem says of its request. */
export type ProblemContext = {
  readonly requestId?: string
  readonly loginUrl?: string
  /** In place of the code's own, where another is more specific, such as 431. */
  readonly status?: number
}

/** Makes the RFC 9457 problem for anything thrown. An error that is no BffError is our defect: its problem tells nothing of it. */
export function problemAnswer(error: unknown, context: ProblemContext = {}): ProblemAnswer {
  const { requestId, loginUrl } = context
  const ids = requestId === undefined ? {} : { request_id: requestId }
  if (!(error instanceof BffError)) {
    const body = { type: 'about:blank', title: 'Internal Server Error', status: 500, ...ids }
    return { status: 500, headers: ownHeaders({}), body: JSON.stringify(body) }
  }
  const { title } = PROBLEMS[error.code]
  const status = context.status ?? error.status ?? statusOf(error.code)
  const body = {
    type: `urn:problem:cloakroom:${error.code}`,
    title,
    status,
    code: error.code,
    detail: error.message,
    ...ids,
    ...(status === 401 && loginUrl !== undefined && error.offersLogin !== false
      ? { login_url: loginUrl }
      : {}),
    ...error.details,
  }
  const retryAfter = error.retryAfterSeconds ?? (status === 503 ? 2 : undefined)
  return {
    status,
    headers: ownHeaders({
      'cloakroom-error': error.code,
      ...(retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }),
      ...error.headers,
    }),
    body: JSON.stringify(body),
  }
}

/** Returns the status of a code. */
export function statusOf(code: ErrorCode): number {
  return PROBLEMS[code].status
}

function ownHeaders(more: Record<string, string>): Record<string, string> {
  return {
    'content-type': 'application/problem+json',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...more,
  }
}

/**
 * Makes the answer of an endpoint whose specification has the errors of RFC 6749 §5.2 (OpenID Connect Back-Channel Logout
 * 1.0 §2.8): 400 for everything that is wrong with the request, but for a method (405) and a rate limit (429); 5xx when it
 * may be sent again.
 */
export function oauthErrorAnswer(error: unknown, context: ProblemContext = {}): ProblemAnswer {
  const { status: problemStatus, headers } = problemAnswer(error, context)
  const keepsStatus = problemStatus >= 500 || problemStatus === 405 || problemStatus === 429
  const status = keepsStatus ? problemStatus : 400
  const oauthError =
    status === 500 ? 'server_error' : status > 405 ? 'temporarily_unavailable' : 'invalid_request'
  const description = error instanceof BffError ? error.message : 'Internal Server Error'
  return {
    status,
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify({
      error: oauthError,
      error_description: description,
      ...(context.requestId === undefined ? {} : { request_id: context.requestId }),
    }),
  }
}
