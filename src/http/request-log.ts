import { randomUUID } from 'node:crypto'
import {
  type IncomingMessage,
  type OutgoingHttpHeader,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http'
import { createLogThrottle } from '../async/log-throttle.ts'
import { type BffError, describeError, type ErrorCode } from '../errors.ts'
import type { LogFields, Logger } from '../log.ts'

/** What is known about a request when its line is written. Kept on the request, under a symbol. */
export type RequestFacts = {
  readonly id: string
  readonly startedAt: number
  /** Ms until the head of the answer was made. */
  firstByteMs?: number
  readonly watch: RequestWatch
  route?: string
  resource?: string
  /** First characters of the session's hash: enough to follow a session in the log, and opens nothing. */
  session?: string
  code?: string
  /** Why it was refused: the reason, the name of the claim that decided, and what else an operator can go by. */
  refusal?: Pick<LogFields, 'reason' | 'claim' | 'offsetSeconds' | 'keyId'>
  /** Where the sign-in of this request leads back to, for its failure page. Not logged. */
  returnUrl?: string
  /** Its route looks up a session. */
  variesByCookie?: boolean
  /** And takes access tokens of clients. */
  variesByAuthorization?: boolean
}

/** One request that has ended, for the metrics. */
export type EndedRequest = {
  /** `none`: no route matched. */
  readonly route: string
  readonly method: string
  readonly status: number
  /** Of the problem it was refused with; `internal_error` after a defect of our own. */
  readonly code: string | undefined
  readonly seconds: number
}

/** Told of the beginning and the end of each request. */
export type ObserveRequests = {
  readonly requestBegan: () => void
  /** The head of its answer is made. */
  readonly firstByte: (known: Pick<RequestFacts, 'route' | 'code'>, method: string, seconds: number) => void
  readonly request: (ended: EndedRequest) => void
}

/** The clock of requests, and who is told of them. */
type RequestWatch = { readonly observe: ObserveRequests; readonly nowMs: () => number }

export type RequestLogDeps = RequestWatch & {
  readonly log: Logger
  readonly clientIp: (req: IncomingMessage) => string
  /** Why a refused request has no session. Never told to the browser. */
  readonly whyNoSession?: (req: IncomingMessage) => Promise<string | undefined>
}

/** Gives each request its facts. Writes one line and one observation when its answer has ended. */
export type RequestLog = {
  begin(req: IncomingMessage, res: ServerResponse): RequestFacts
  factsOf(req: IncomingMessage): RequestFacts
}

/** A member of the request costs less than a WeakMap. */
const FACTS = Symbol('facts')
type WithFacts = IncomingMessage & { [FACTS]?: RequestFacts }

/** Makes the request log. The path is logged without its query, which may hold a code or personal data. */
export function createRequestLog(deps: RequestLogDeps): RequestLog {
  const { log, observe, nowMs, clientIp } = deps

  function end(req: IncomingMessage, res: ServerResponse, known: RequestFacts): void {
    const durationMs = nowMs() - known.startedAt
    const status = res.writableFinished ? res.statusCode : 499
    const method = req.method ?? ''
    const route = known.route ?? 'none'
    observe.request({ route, method, status, code: known.code, seconds: durationMs / 1000 })
    const fields = {
      requestId: known.id,
      method,
      path: pathOf(req),
      route,
      resource: known.resource,
      status,
      code: known.code,
      ...known.refusal,
      durationMs: tenths(durationMs),
      firstByteMs: known.firstByteMs,
      session: known.session,
      clientIp: clientIp(req),
    }
    const hasNoSession = known.code === 'session_required' && known.refusal?.reason !== 'invalid_token'
    const reason = hasNoSession ? deps.whyNoSession?.(req) : undefined
    if (reason) reason.then((found) => log.info({ ...fields, reason: found }, 'request'))
    else log.info(fields, 'request')
  }

  return {
    begin(req, res) {
      const known: RequestFacts = { id: randomUUID(), startedAt: nowMs(), watch: deps }
      observe.requestBegan()
      ;(req as WithFacts)[FACTS] = known
      // 'close' comes exactly once: after the last byte, or when the client went away before it.
      res.once('close', () => end(req, res, known))
      return known
    },
    factsOf: (req) => (req as WithFacts)[FACTS] ?? { id: 'unknown', startedAt: nowMs(), watch: deps },
  }
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10
}

/** `writeHead` of the responses of the public listener: notes when the head of an answer is made. */
export const writeHead = function notedWriteHead(
  this: ServerResponse,
  status: number,
  reason?: string | OutgoingHttpHeaders | OutgoingHttpHeader[],
  fields?: OutgoingHttpHeaders | OutgoingHttpHeader[],
): ServerResponse {
  const known = (this.req as WithFacts)[FACTS]
  if (known) {
    const ms = known.watch.nowMs() - known.startedAt
    known.firstByteMs = tenths(ms)
    known.watch.observe.firstByte(known, this.req.method ?? '', ms / 1000)
  }
  const { writeHead: write } = ServerResponse.prototype
  return (write as (...args: unknown[]) => ServerResponse).call(this, status, reason, fields)
}

/** The path of a request as it came over the wire, for the log: without its query, and of bounded length. */
export function pathOf(req: IncomingMessage): string {
  // Express strips the mount path from `url`; `originalUrl` is what came over the wire.
  const url = (req as IncomingMessage & { originalUrl?: string }).originalUrl ?? req.url ?? ''
  const end = url.search(/[?#]/)
  return (end === -1 ? url : url.slice(0, end)).slice(0, 512)
}

/** What goes wrong at the provider goes wrong for all users in the same way. */
const SHARED: ReadonlySet<ErrorCode> = new Set(['provider_rejected', 'provider_unavailable'])

/**
 * Logs the cause of a problem, by request. A cause that all requests share is logged once, and then at most once a minute
 * with their number since: the line of each request has its id and code anyway.
 */
export function createCauseLog({ log, monotonicNow }: { log: Logger; monotonicNow: () => number }) {
  const throttle = createLogThrottle({ monotonicNow })

  return function logCause(error: BffError, requestId: string): void {
    if (!error.cause) return
    const { code } = error
    const err = describeError(error.cause)
    // Names and codes are few. A message may hold anything, and is no key.
    const count = SHARED.has(code) ? throttle.count(`${code} ${err.name} ${err.code} ${err.cause}`) : 1
    if (count !== undefined) log.warn({ requestId, code, count, err }, error.message)
  }
}

/** Called for each sign-in that failed: the step, and the error as a word of a closed list. */
export type ObserveSignInFailure = (step: string, error: string) => void

/** How a sign-in fails. What else its endpoints refuse, such as another method, is no sign-in. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  ...(['invalid_callback', 'access_denied', 'session_required'] as const),
  ...(['provider_rejected', 'provider_unavailable', 'store_unavailable'] as const),
])

/** What a metric's label may be: neither a provider nor a forged redirect must add others. */
const WORDS: ReadonlySet<unknown> = new Set([
  // RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core §3.1.2.6, RFC 8707 §2, RFC 9126 §2.3.
  ...['invalid_request', 'invalid_client', 'invalid_grant', 'unauthorized_client', 'unsupported_grant_type'],
  ...['invalid_scope', 'access_denied', 'unsupported_response_type', 'server_error'],
  ...['temporarily_unavailable', 'login_required', 'interaction_required', 'consent_required'],
  ...['account_selection_required', 'invalid_request_uri', 'invalid_request_object'],
  ...['request_not_supported', 'request_uri_not_supported', 'registration_not_supported'],
  ...['unmet_authentication_requirements', 'invalid_target', 'invalid_resource', 'invalid_redirect_uri'],
  // Our own.
  ...['tenant', 'other_user', 'acr', 'step_up_expired', 'grant_ended', 'session_expiry'],
  // Claims of an ID token.
  ...['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'nonce', 'azp', 'auth_time', 'at_hash', 'c_hash', 's_hash'],
])

/**
 * Logs each sign-in that failed under the request id that its page shows: the step, the reason, and what the provider
 * said. None is throttled, because support looks for the line of one user.
 */
export function createFailedSignInLog({ log, observe }: { log: Logger; observe: ObserveSignInFailure }) {
  return function logFailedSignIn(
    error: BffError,
    { requestId, route }: { requestId: string; route: string },
  ) {
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
