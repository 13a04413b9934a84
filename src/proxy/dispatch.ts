import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { BffError } from '../errors.ts'
import type { Exchange } from './exchange.ts'
import type { LiveConnections } from './live-connections.ts'
import type { OutboundRequest } from './upstream.ts'
import type { Gate } from './upstream-gate.ts'

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
  readonly gate: Gate
  /** Sends the request and reports to the exchange's `on…` methods. */
  start(exchange: Exchange, body: Readable | Buffer | null): void
  /** Refuses an exchange that no connection starts in time, where they can make it wait. Returns what ends that. */
  readonly limitWait: ((exchange: Exchange) => () => void) | undefined
  /** False once it takes no more requests. */
  isOpen(): boolean
  /** True while a new connection is being handed to the request that starts. */
  isConnecting(): boolean
  /** True while it is dealt with that a connection failed; a body that ends then has not ended by itself. */
  isBreaking(): boolean
  /** The pool's error in our words. */
  failure(error: Error): BffError
  readonly live: LiveConnections
  /** Whether the connection ended without a byte of response. */
  isConnectionLost(error: Error): boolean
  /** Whether the upstream is to blame that there was no answer; losing a connection that was used is nobody's fault. */
  isNoAnswer(error: Error, connection: 'none' | 'new' | 'used'): boolean
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
