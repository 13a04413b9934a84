import type { Readable } from 'node:stream'
import { BffError } from '../../errors.ts'

/** A request as connections send it. undici takes it as it is. */
export type UpstreamRequest = {
  readonly method: string
  /** Path and query, in origin-form. */
  readonly path: string
  /** Flat list of names and values. */
  readonly headers: string[]
  readonly body: Readable | Buffer | null
  /** Ms until the head of the response. */
  readonly headersTimeout: number
  /** Ms between two pieces of its body. */
  readonly bodyTimeout: number
}

/** Header fields of a response by lower-case name; an array where a field came more than once. */
export type ParsedHeaders = Readonly<Record<string, string | string[] | undefined>>

/** What a connection lets the receiver of a response steer. */
export type ResponseController = {
  /** Names and values of the response as they arrived, each byte a character (Latin-1, RFC 9110 §5.5). */
  readonly rawHeaders?: unknown
  abort(reason: Error): void
  pause(): void
  resume(): void
}

/**
 * The receiver of a response, in undici's words. `onResponseEnd` or `onResponseError` is called last, and once for each
 * dispatch.
 */
export type ResponseHandler = {
  /** A connection is about to send the request. What this throws ends the request before a byte of it is sent. */
  onRequestStart(controller: ResponseController): void
  /** The first byte of a response has come. */
  onResponseStarted(): void
  /** The head of a response, interim (1xx) ones included. */
  onResponseStart(
    controller: ResponseController,
    status: number,
    parsed: ParsedHeaders,
    reason?: string,
  ): void
  onResponseData(controller: ResponseController, chunk: Buffer): void
  onResponseEnd(controller: ResponseController): void
  /** `controller` is absent when the request never got a connection. */
  onResponseError(controller: ResponseController | null | undefined, error: Error): void
}

/** The connections to one upstream, over HTTP/1.1 or HTTP/2. */
export type Dispatcher = {
  /** Sends a request. A second try goes on a connection of its own, because pooled ones may all be dead without a word. */
  dispatch(request: UpstreamRequest, handler: ResponseHandler, isSecondTry: boolean): void
  /** A request may wait for a connection without a limit of time, so its exchange sets one. */
  readonly isQueueUntimed: boolean
  /** False once it takes no more requests. */
  isOpen(): boolean
  /** True within `onRequestStart` on a connection that is new. */
  isConnecting(): boolean
  /** True while a connection breaks: a body that ends then is not whole. */
  isBreaking(): boolean
  /** Resolves when every request in flight has ended; takes no new ones. */
  close(): Promise<void>
  /** Ends every request in flight. */
  destroy(): Promise<void>
}

/** What went wrong over HTTP/2, by `code`. */
export class Http2Error extends Error {
  readonly code:
    | 'HEADERS_TIMEOUT'
    | 'BODY_TIMEOUT'
    | 'CONNECTION_LOST'
    | 'STREAM_RESET'
    | 'GIVEN_UP'
    | 'CLOSED'
  constructor(code: Http2Error['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Codes of undici, of `Http2Error`, and of the system. */
const HEADERS_TIMEOUTS = new Set<unknown>(['UND_ERR_HEADERS_TIMEOUT', 'HEADERS_TIMEOUT'])
const BODY_TIMEOUTS = new Set<unknown>(['UND_ERR_BODY_TIMEOUT', 'BODY_TIMEOUT'])
const CONNECTION_LOSSES = new Set<unknown>(['UND_ERR_SOCKET', 'CONNECTION_LOST', 'ECONNRESET', 'EPIPE'])

/** Found before a connection is looked for: the request or the dispatcher is at fault, not the upstream. */
const NOT_THE_UPSTREAM = new Set<unknown>([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_ABORTED',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
  'CLOSED',
  'GIVEN_UP',
])

/** The refusal for an error of a connection: `upstream_timeout` or `upstream_unreachable`, by the error's code alone. */
export function refusalOf(error: Error): BffError {
  if (error instanceof BffError) return error
  if (isHeadersTimeout(error) || BODY_TIMEOUTS.has(codeOf(error)))
    return new BffError('upstream_timeout', 'the upstream did not answer in time', { cause: error })
  return new BffError('upstream_unreachable', 'the upstream gave no usable answer', { cause: error })
}

/** Whether the connection ended without a byte of the response. */
export function isConnectionLost(error: Error): boolean {
  return CONNECTION_LOSSES.has(codeOf(error))
}

/**
 * Why the upstream gave no answer, for its circuit breaker; undefined when the upstream is not to blame. To lose a used
 * connection is no fault: it may have idled for too long.
 */
export function noAnswerOf(error: Error, connection: 'none' | 'new' | 'used'): 'silence' | 'cut' | undefined {
  if (error instanceof BffError) return undefined
  if (connection === 'none') return NOT_THE_UPSTREAM.has(codeOf(error)) ? undefined : 'silence'
  if (isHeadersTimeout(error)) return 'silence'
  return connection === 'new' && isConnectionLost(error) ? 'cut' : undefined
}

/** Why an upstream gave no whole answer, as a label. `circuit_open` and `no_connection`: it was not asked. */
export type UpstreamFailure =
  | 'dns'
  | 'connect'
  | 'tls'
  | 'timeout'
  | 'reset'
  | 'protocol'
  | 'circuit_open'
  | 'no_connection'

/** `protocol`: an answer that cannot be passed on. Undefined when the upstream is not to blame. */
export function failureOf(error: Error): UpstreamFailure | undefined {
  const cause = error instanceof AggregateError ? error.errors[0] : error
  const code = String(codeOf(cause as Error))
  if (error instanceof BffError) return causeOf(error)
  if (NOT_THE_UPSTREAM.has(code)) return undefined
  if (code === 'ENOTFOUND' || code.startsWith('EAI_')) return 'dns'
  if (isHeadersTimeout(error) || BODY_TIMEOUTS.has(code)) return 'timeout'
  if (CONNECTION_LOSSES.has(code) || code === 'STREAM_RESET') return 'reset'
  if (CONNECT_ERRORS.has(code)) return 'connect'
  return TLS_ERROR.test(code) ? 'tls' : 'protocol'
}

/** Only a WebSocket's error has become a refusal when it is asked about. */
function causeOf({ code, cause }: BffError): UpstreamFailure | undefined {
  if (code === 'upstream_timeout') return 'timeout'
  return code === 'upstream_unreachable' && cause instanceof Error ? failureOf(cause) : undefined
}

const CONNECT_ERRORS = new Set<unknown>([
  ...['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL', 'ETIMEDOUT', 'UND_ERR_CONNECT_TIMEOUT'],
])
/** Codes of OpenSSL's verification and of Node's TLS. */
const TLS_ERROR =
  /^(?:ERR_TLS|ERR_SSL|EPROTO$|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|HOSTNAME_MISMATCH|INVALID_CA|CRL_|PATH_LENGTH|INVALID_PURPOSE|ERR_OSSL)/

function isHeadersTimeout(error: Error): boolean {
  return HEADERS_TIMEOUTS.has(codeOf(error))
}

function codeOf(error: Error): unknown {
  return (error as Error & { code?: unknown }).code
}

/** The refusal of a request that no connection took in time. */
export function noConnectionInTime(): BffError {
  return new BffError('upstream_timeout', 'no connection to the upstream fell free in time')
}
