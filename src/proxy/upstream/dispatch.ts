import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { BodyPace } from '../../async/body-pace.ts'
import type { BffError } from '../../errors.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import type { EventStreams } from '../session-end/event-streams.ts'
import type { SessionStreams } from '../session-end/session-streams.ts'
import type { Admission, NoAnswer } from './admission.ts'
import type { Exchange } from './exchange.ts'
import type { OutboundRequest } from './upstream.ts'

/** Header fields of a response by lower-case name; an array where a field came more than once. */
export type ParsedHeaders = Readonly<Record<string, string | string[] | undefined>>

/** The upstream's side of an exchange: what its connection lets us steer. */
export type UpstreamControl = {
  /** Names and values of the response as they arrived. */
  readonly rawHeaders?: unknown
  abort(reason: Error): void
  pause(): void
  resume(): void
}

/** What an exchange asks of the connection pool. */
export type Dispatch = {
  /** Every exchange goes through it first, and leaves it last. */
  readonly admission: Admission
  /** Sends the request and reports to the exchange's `on…` methods; a second try on a connection that is new. */
  start(exchange: Exchange, body: Readable | Buffer | null, isSecondTry: boolean): void
  /** Refuses an exchange that no connection starts in time, where they can make it wait. Returns what ends that. */
  readonly limitWait?: ((exchange: Exchange) => () => void) | undefined
  /** False once it takes no more requests. */
  isOpen(): boolean
  /** True while a new connection is being handed to the request that starts. */
  isConnecting(): boolean
  /** True while it is dealt with that a connection failed; a body that ends then has not ended by itself. */
  isBreaking(): boolean
  /** The pool's error in our words. */
  failure(error: Error): BffError
  readonly streams: SessionStreams
  /** Of all sessions, and of none. */
  readonly eventStreams: EventStreams
  /** Told of each piece of a body, either way, and its bytes. */
  readonly bodyPassed: (bytes: number) => void
  readonly bodyPace: BodyPace
  readonly responseHeaders: ResponseHeaders
  /** Whether the connection ended without a byte of response. */
  isConnectionLost(error: Error): boolean
  /** What the upstream is to blame for when there was no answer; losing a connection that was used is nobody's fault. */
  noAnswer(error: Error, connection: 'none' | 'new' | 'used'): NoAnswer | undefined
}

/** What makes an exchange; `resolve` and `reject` end it. */
export type ExchangeParts = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly outbound: OutboundRequest
  readonly pool: Dispatch
  readonly resolve: () => void
  readonly reject: (error: BffError) => void
}
