import { createHash } from 'node:crypto'

/** Every problem code Cloakroom answers with; the closed list of the public contract, section 4. */
export type ErrorCode =
  | 'path_rejected'
  | 'invalid_return_url'
  | 'invalid_callback'
  | 'bad_request'
  | 'session_required'
  | 'reauthentication_required'
  | 'csrf_required'
  | 'origin_forbidden'
  | 'access_denied'
  | 'route_not_found'
  | 'method_not_allowed'
  | 'body_too_large'
  | 'misdirected_request'
  | 'rate_limited'
  | 'upstream_unreachable'
  | 'provider_rejected'
  | 'store_unavailable'
  | 'provider_unavailable'
  | 'upstream_timeout'

/** What the next sign-in must bring for one resource: Entra's claims request, or RFC 9470 `acr_values` and `max_age`. */
export type StepUp = {
  readonly resource: string
  /** JSON text (OpenID Connect Core §5.5). */
  readonly claims?: string
  readonly acrValues?: string
  /** Seconds. */
  readonly maxAge?: number
  /** The sign-in asks for consent once more: the one before was not granted what this resource needs. */
  readonly consent?: true
  /** What the previous sign-in did not ask for, or was not granted. Another lack is another step-up. */
  readonly lacks?: string
  /** A route asks for it, and judges at each request what came of it: any sign-in of the same user is taken. */
  readonly ofRoute?: true
  /** The sign-in of this session brought it; only time has passed since. So asking once more is no loop. */
  readonly hasAged?: true
}

/** Names one step-up, for the record of those that were tried: 22 characters that tell nothing of it. */
export function stepUpFingerprint({ resource, claims, acrValues, maxAge, consent, lacks }: StepUp): string {
  const more = consent === undefined && lacks === undefined ? [] : [consent, lacks]
  const text = JSON.stringify([resource, claims, acrValues, maxAge, ...more])
  return createHash('sha256').update(`step-up ${text}`).digest('base64url').slice(0, 22)
}

/** What a BffError may carry beside its code: never a token, cookie or key. */
export type BffErrorOptions = {
  cause?: unknown
  /** Seconds a client should wait before it tries again (RFC 9110 §10.2.3). */
  retryAfterSeconds?: number | undefined
  /** Members added to the problem+json body, such as `reason`. Seen by the browser. */
  details?: Readonly<Record<string, string | number>> | undefined
  /** Kept on our side; the browser gets an opaque handle for it. */
  stepUp?: StepUp | undefined
  /** Headers added to the answer, such as `Allow`. */
  headers?: Readonly<Record<string, string>> | undefined
  /** Says it better than the code's own, such as 408. */
  status?: number | undefined
  /** False: no sign-in in a browser cures it, so that a 401 has no `login_url`. */
  offersLogin?: boolean | undefined
  /** More fields for the log line, beside code and message. Never shown to the browser. */
  logged?: LoggedFacts | undefined
}

/** Facts for the log. */
export type LoggedFacts = Readonly<Record<string, string | number | undefined>>

/** A request that Cloakroom itself refuses; `http/problem.ts` turns it into an RFC 9457 answer. */
export class BffError extends Error {
  readonly code: ErrorCode
  readonly retryAfterSeconds: number | undefined
  readonly details: Readonly<Record<string, string | number>> | undefined
  readonly headers: Readonly<Record<string, string>> | undefined
  readonly stepUp: StepUp | undefined
  readonly status: number | undefined
  readonly offersLogin: boolean | undefined
  readonly logged: LoggedFacts | undefined

  constructor(code: ErrorCode, message: string, options: BffErrorOptions = {}) {
    // A refusal is an answer and no defect: nothing reads its stack, which would cost more than the answer.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    Error.stackTraceLimit = stackTraceLimit
    this.name = 'BffError'
    this.code = code
    this.retryAfterSeconds = options.retryAfterSeconds
    this.details = options.details
    this.headers = options.headers
    this.stepUp = options.stepUp
    this.status = options.status
    this.offersLogin = options.offersLogin
    this.logged = options.logged
  }
}

/** A refusal that is the same for all requests, and tells nothing of any. It and its answer are made once; its stack is of the first time. */
export class SharedRefusal extends BffError {}

const shared = new Map<string, SharedRefusal>()

/** The one refusal with this code and message. The messages are a closed list: they tell nothing of a request. */
export function sharedRefusal(code: ErrorCode, message: string): SharedRefusal {
  const key = `${code} ${message}`
  const known = shared.get(key) ?? new SharedRefusal(code, message)
  shared.set(key, known)
  return known
}

/** The same error with more facts for the log. */
export function withLogged(error: BffError, logged: LoggedFacts): BffError {
  const copy = new BffError(error.code, error.message, { ...error, logged: { ...error.logged, ...logged } })
  if (error.cause !== undefined) copy.cause = error.cause
  return copy
}

/** What of an unknown error may be logged. */
export type ErrorSummary = {
  readonly name: string
  readonly message: string
  readonly code?: string
  /** Code or name of the cause. */
  readonly cause?: string
}

/** Reduces an error to what may be logged: its name, code, one-line message and the cause's code; never its properties. */
export function describeError(error: unknown): ErrorSummary {
  if (!(error instanceof Error)) return { name: 'unknown', message: typeof error }
  const code = codeOf(error)
  const cause = error.cause instanceof Error ? (codeOf(error.cause) ?? error.cause.name) : undefined
  const reason = code?.startsWith(OAUTH) ? reasonBelow(error) : undefined
  const message = reason === undefined ? error.message : `${error.message}: ${reason}`
  return {
    name: error.name,
    message: message
      .replace(NODE_ADVICE, '')
      .replace(/[\r\n]+/g, ' ')
      .slice(0, 300),
    ...(code ? { code } : {}),
    ...(cause ? { cause } : {}),
  }
}

/** Node.js adds it to what it says of certificates; here a certificate authority is named in the configuration. */
const NODE_ADVICE = /; if the root CA is installed locally, try running Node\.js with --use-system-ca/

/** How the codes of openid-client begin. */
const OAUTH = 'OAUTH_'
const DEPTH = 5

/**
 * The rule that openid-client found broken, in the library's own words and without a value, or the status of an answer
 * that it did not read. Its messages leave this to their causes. Undefined when the causes say no more.
 */
export function reasonBelow(error: unknown): string | undefined {
  let reason: string | undefined
  for (let at = error, depth = 0; at instanceof Error && depth < DEPTH; depth += 1) {
    const { cause } = at
    if (cause instanceof Response) return `status ${cause.status}`
    if (cause instanceof Error && codeOf(cause)?.startsWith(OAUTH)) reason = cause.message
    at = cause
  }
  return reason
}

function codeOf(error: Error): string | undefined {
  const { code } = error as Error & { code?: unknown }
  return typeof code === 'string' ? code : undefined
}
