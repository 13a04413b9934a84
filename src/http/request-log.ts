import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import {
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeader,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http'
import type { Socket } from 'node:net'
import { createLogThrottle } from '../async/log-throttle.ts'
import type { Span, Trace } from '../async/trace.ts'
import { type BffError, describeError, type ErrorCode } from '../errors.ts'
import type { LogFields, Logger } from '../log.ts'

/** What is known about a request when its line is written. Kept on the request, under a symbol. */
export type RequestFacts = {
  /** That of a trusted proxy, or our own. It is in the log, in problems, in `X-Request-Id` of every answer and towards upstreams. */
  readonly id: string
  readonly startedAt: number
  /** The trace context of a trusted proxy (W3C Trace Context §3.2), and what comes with it: names and values. */
  context?: readonly string[] | undefined
  /** Absent where nothing is traced. */
  readonly span?: Span | undefined
  /** Of this request, for the log. */
  traceparent?: string | undefined
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
  /** The pseudonym of a user whose access was denied, for the audit stream alone. */
  subject?: string
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
  /**
   * Of the problem it was refused with; `internal_error` after a defect of our own. Undefined: the answer is the upstream's,
   * or no refusal.
   */
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
  readonly trace?: Pick<Trace, 'request'> | undefined
  /** Whether the peer is a trusted proxy, whose request id and trace context are taken over. */
  readonly isTrustedPeer: (req: IncomingMessage) => boolean
  readonly log: Logger
  readonly clientIp: (req: IncomingMessage) => string
  /** Why a refused request has no session. Never told to the browser. */
  readonly whyNoSession?: (req: IncomingMessage) => string | undefined | Promise<string | undefined>
}

/** Gives each request its facts. Writes one line and one observation when its answer has ended. */
export type RequestLog = {
  begin(req: IncomingMessage, res: ServerResponse): RequestFacts
  /** The same for an upgrade, which has no response; at the second time the same facts. `upgraded` writes its line. */
  beginUpgrade(req: IncomingMessage): RequestFacts
  /** The answer to an upgrade that was let through to its upstream: 101, or the upstream's refusal. */
  upgraded(req: IncomingMessage, status: number): void
  /** Writes the line of a message that was refused before it was a request, or of a refused upgrade. */
  refused(socket: Pick<Socket, 'remoteAddress'>, refusal: RefusedMessage): void
  factsOf(req: IncomingMessage): RequestFacts
}

/** A refusal without a response object. */
export type RefusedMessage = Pick<LogFields, 'request_id' | 'method' | 'path' | 'traceparent'> & {
  readonly status: number
  readonly code: ErrorCode
  readonly detail: string
}

/** A member of the request costs less than a WeakMap. */
const FACTS = Symbol('facts')
type WithFacts = IncomingMessage & { [FACTS]?: RequestFacts }

const SERVED = new AsyncLocalStorage<RequestFacts>()

/**
 * Runs work of a request as such: the ends of sessions that come of it are told with its id, and its parts are in its
 * trace. For all that may have to wait, and what an event of a pooled connection begins: that has the context in which
 * the connection was opened, which is often another request's. A request whose session and token are in memory waits for
 * nothing, and enters no context.
 */
export function runFor<T>(req: IncomingMessage, work: () => T): T {
  const facts = (req as WithFacts)[FACTS]
  // What a part of a trace has begun stays in that part.
  if (!facts || SERVED.getStore() === facts) return work()
  return SERVED.run(facts, () => (facts.span ? facts.span.run(work) : work()))
}

/** Id of the request that this is done for; undefined where it is done for none. */
export function servedRequestId(): string | undefined {
  return SERVED.getStore()?.id
}

/** Makes the request log. The path is logged without its query, which may hold a code or personal data. */
export function createRequestLog(deps: RequestLogDeps): RequestLog {
  const { log, observe, nowMs, clientIp, isTrustedPeer } = deps

  function newFacts(req: IncomingMessage): RequestFacts {
    const { headers } = req
    const mayBeKept =
      headers['x-request-id'] !== undefined || KEPT.some((name) => headers[name] !== undefined)
    const known: Pick<RequestFacts, 'id' | 'context' | 'traceparent'> =
      mayBeKept && isTrustedPeer(req) ? factsFrom(headers) : { id: randomUUID() }
    const facts = factsWith(known.id, nowMs(), deps)
    facts.context = known.context
    facts.traceparent = known.traceparent
    if (deps.trace) Object.assign(facts, spanFor(deps.trace, known))
    ;(req as WithFacts)[FACTS] = facts
    return facts
  }

  /** The upstream's parent is our own span. */
  function spanFor(
    trace: Pick<Trace, 'request'>,
    { traceparent, context = [] }: Pick<RequestFacts, 'traceparent' | 'context'>,
  ) {
    const span = trace.request(traceparent)
    const more = traceparent === undefined ? context : context.slice(2)
    return { span, traceparent: span.traceparent, context: ['traceparent', span.traceparent, ...more] }
  }

  const beginUpgrade = (req: IncomingMessage) => (req as WithFacts)[FACTS] ?? newFacts(req)

  function end(req: IncomingMessage, res: ServerResponse, known: RequestFacts): void {
    const durationMs = nowMs() - known.startedAt
    const status = res.writableFinished ? res.statusCode : 499
    const method = req.method ?? ''
    const route = known.route ?? 'none'
    observe.request({ route, method, status, code: known.code, seconds: durationMs / 1000 })
    if (known.span) endSpan(known, req, status)
    // What the problem tells as its reason stands in the log as such.
    const isUntold = known.code === 'session_required' && known.refusal?.reason === undefined
    const untold = isUntold ? deps.whyNoSession?.(req) : undefined
    const fields = {
      request_id: known.id,
      traceparent: known.traceparent,
      method,
      path: pathOf(req),
      route,
      resource: known.resource,
      status,
      code: known.code,
      ...known.refusal,
      reason: typeof untold === 'string' ? untold : known.refusal?.reason,
      durationMs: tenths(durationMs),
      firstByteMs: known.firstByteMs,
      session: known.session,
      clientIp: clientIp(req),
    }
    if (known.code === 'access_denied') {
      const { request_id, session, clientIp: from } = fields
      const who = { session, subject: known.subject, clientIp: from }
      log.audit?.('access_denied', { request_id, route, ...who, ...known.refusal })
    }
    if (untold instanceof Promise) untold.then((reason) => log.info({ ...fields, reason }, 'request'))
    else log.info(fields, 'request')
  }

  function writeLine(this: ServerResponse): void {
    end(this.req, this, factsOf(this.req))
  }

  const factsOf = (req: IncomingMessage): RequestFacts =>
    (req as WithFacts)[FACTS] ?? factsWith('unknown', nowMs(), deps)

  return {
    factsOf,
    begin(req, res) {
      const known = newFacts(req)
      observe.requestBegan()
      // 'close' comes exactly once: after the last byte, or when the client went away before it.
      res.on('close', writeLine)
      return known
    },
    beginUpgrade,
    upgraded(req, status) {
      const known = beginUpgrade(req)
      const { id, traceparent, route, resource, session } = known
      endSpan(known, req, status)
      log.info(
        {
          ...{
            request_id: id,
            traceparent,
            method: req.method ?? '',
            path: pathOf(req),
            route,
            resource,
            status,
          },
          ...{ durationMs: tenths(nowMs() - known.startedAt), session, clientIp: clientIp(req) },
        },
        'request',
      )
    },
    refused({ remoteAddress: clientIp }, { detail, ...fields }) {
      log.info({ ...fields, clientIp }, `a message was refused: ${detail}`)
    },
  }
}

/** With all members from the beginning, because V8 makes another object for each that is added later. */
function factsWith(id: string, startedAt: number, watch: RequestWatch): RequestFacts {
  return {
    id,
    startedAt,
    watch,
    context: undefined,
    span: undefined,
    traceparent: undefined,
    firstByteMs: undefined,
    route: undefined,
    resource: undefined,
    session: undefined,
    code: undefined,
    refusal: undefined,
    subject: undefined,
    returnUrl: undefined,
    variesByCookie: undefined,
    variesByAuthorization: undefined,
  }
}

/** The names are those of OpenTelemetry's conventions for HTTP, where it has any. The path has no query. */
export function endSpan(known: RequestFacts, req: IncomingMessage, status: number): void {
  const { span, id, route = 'none', code, resource, session, firstByteMs } = known
  const method = req.method ?? ''
  span?.note({
    ...{ 'http.request.method': method, 'http.route': route, 'http.response.status_code': status },
    ...{ 'url.path': pathOf(req), 'cloakroom.request_id': id, 'cloakroom.resource': resource },
    ...{ 'cloakroom.session': session, 'cloakroom.first_byte_ms': firstByteMs, 'error.type': code },
  })
  span?.end(`${method} ${route}`)
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10
}

/** What other proxies make as ids: UUIDs, hexadecimal, ULIDs, `Root=1-…`. In pages and logs it needs no escaping. */
const REQUEST_ID = /^[\w.:+/=@-]{1,128}$/
/** W3C Trace Context §3.2.2: neither id is all zeros. Only of a later version than 00 more may follow, which is not read. */
const TRACEPARENT = /^(?!ff|00.{54})[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}(?:-.*)?$/
/** Without these there is no context to keep: W3C Trace Context, and B3 in one field or several. */
const KEPT = ['traceparent', 'b3', 'x-b3-traceid']
/** Fields of a trace context beside `traceparent`. */
const CONTEXT_FIELDS = [
  ...['tracestate', 'baggage', 'b3', 'x-b3-traceid', 'x-b3-spanid', 'x-b3-parentspanid', 'x-b3-sampled'],
  'x-b3-flags',
]
const MAX_CONTEXT = 8_192

/** The id and the trace context that a trusted proxy sends. A field that came twice has a comma, and is none. */
function factsFrom(headers: IncomingHttpHeaders): Pick<RequestFacts, 'id' | 'context' | 'traceparent'> {
  const sent = String(headers['x-request-id'] ?? '')
  const id = REQUEST_ID.test(sent) ? sent : randomUUID()
  const said = String(headers.traceparent ?? '')
  const traceparent = said.length <= 512 && TRACEPARENT.test(said) ? said : undefined
  const more = CONTEXT_FIELDS.flatMap((name) => {
    const value = headers[name]
    return typeof value === 'string' && value.length <= MAX_CONTEXT ? [name, value] : []
  })
  return { id, traceparent, context: traceparent ? ['traceparent', traceparent, ...more] : more }
}

/**
 * `writeHead` of the responses of the public listener: every answer has its request id, and the time to its head is
 * noted.
 */
export const writeHead = function notedWriteHead(
  this: ServerResponse,
  status: number,
  reason?: string | OutgoingHttpHeaders | OutgoingHttpHeader[],
  fields?: OutgoingHttpHeaders | OutgoingHttpHeader[],
): ServerResponse {
  const known = (this.req as WithFacts)[FACTS]
  if (known) {
    // A list of fields goes to the client as it is; beside fields that are set, Node would take it apart.
    if (Array.isArray(fields)) fields.push('x-request-id', known.id)
    else this.setHeader('x-request-id', known.id)
  }
  const { writeHead: write } = ServerResponse.prototype
  ;(write as (...args: unknown[]) => ServerResponse).call(this, status, reason, fields)
  if (known) {
    const ms = known.watch.nowMs() - known.startedAt
    known.firstByteMs = tenths(ms)
    known.watch.observe.firstByte(known, this.req.method ?? '', ms / 1000)
  }
  return this
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
    const { code, logged } = error
    const err = describeError(error.cause)
    // Names and codes are few. A message may hold anything, and is no key.
    const count = SHARED.has(code) ? throttle.count(`${code} ${err.name} ${err.code} ${err.cause}`) : 1
    if (count !== undefined) log.warn({ request_id: requestId, ...logged, code, count, err }, error.message)
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
    const told = { request_id: requestId, code, reason, ...logged, step }
    log.audit?.('sign_in_failed', told)
    log.warn({ ...told, err }, `a sign-in failed: ${error.message}`)
  }
}
