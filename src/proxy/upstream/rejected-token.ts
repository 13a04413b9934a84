import type { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/bff-session.ts'
import type { AccessToken } from '../access-token.ts'
import { inTime } from '../access-token.ts'
import { bearerChallenge, type TokenChallenge } from '../headers/www-authenticate.ts'
import type { ParsedHeaders, UpstreamControl } from './dispatch.ts'
import type { Exchange } from './exchange.ts'
import type { OutboundRequest } from './upstream.ts'

/** What an upstream said of a token of ours with its 401. */
export type RejectedToken = {
  /** The one that was sent. */
  readonly token: AccessToken
  readonly challenge: TokenChallenge
  /** Whether the request could be sent again: it had no body, or all of it is at hand. */
  readonly isRepeatable: boolean
}

/** `resend`: once more with another token, if it is repeatable. `relay`: the client gets the upstream's 401. */
export type TokenVerdict =
  | { readonly kind: 'resend'; readonly token: AccessToken }
  | { readonly kind: 'relay' }

/** Asked once per request at most; rejects with a BffError that is answered in place of the upstream's 401. */
export type OnRejectedToken = (
  session: BffSession,
  resource: string,
  rejected: RejectedToken,
) => Promise<TokenVerdict>

/** What a 401 to this request has against our token; undefined when none was sent, or nobody is to be asked about it. */
export function tokenChallenge(
  { session, accessToken, onRejectedToken }: OutboundRequest,
  parsed: ParsedHeaders,
): TokenChallenge | undefined {
  const fields = parsed['www-authenticate']
  if (!session || !accessToken || !onRejectedToken || fields === undefined) return undefined
  return bearerChallenge(typeof fields === 'string' ? [fields] : fields)
}

/** Asks what becomes of a held response, and does it. */
export async function settleRejection(
  exchange: Exchange,
  held: HeldResponse,
  challenge: TokenChallenge,
): Promise<void> {
  const { session, accessToken, onRejectedToken, route } = exchange.outbound
  const rejected = { token: accessToken!, challenge, isRepeatable: exchange.canResend() }
  try {
    const verdict = await inTime(onRejectedToken!(session!, route.resource!, rejected), {
      timeoutMs: route.timeout.responseMs,
      client: exchange.res,
    })
    if (!verdict) held.discardFrom(exchange)
    // Asked again: the pool may have begun to close.
    else if (verdict.kind === 'relay' || !exchange.canResend()) held.relayTo(exchange)
    else if (held.discardFrom(exchange)) exchange.resend(verdict.token)
  } catch (error) {
    if (held.discardFrom(exchange)) exchange.refuse(error as BffError)
  }
}

/** Bytes of a held response that are taken from the connection; more waits there. */
const MOST_HELD = 65_536

/** A response of which nothing has been sent to the client yet. */
export class HeldResponse {
  readonly control: UpstreamControl
  readonly parsed: ParsedHeaders
  readonly reason: string | undefined
  /** It has arrived whole, and its connection may serve another request. */
  isWhole = false
  error: Error | undefined
  readonly #chunks: Buffer[] = []
  #bytes = 0

  constructor(control: UpstreamControl, parsed: ParsedHeaders, reason: string | undefined) {
    this.control = control
    this.parsed = parsed
    this.reason = reason
  }

  /** A refusal is short: read on, so that its connection is free by the time another request needs it. */
  add(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes >= MOST_HELD) this.control.pause()
  }

  /** What has not arrived is not worth waiting for: the connection ends instead. False when the client has left. */
  discardFrom(exchange: Exchange): boolean {
    const isWanted = exchange.release(this.control)
    if (!this.isWhole) this.control.abort(new Error('the response is not wanted'))
    return isWanted
  }

  /** Lets the client have it, as if it had never been held. */
  relayTo(exchange: Exchange): void {
    if (!exchange.release()) return
    const { control, parsed, reason, error } = this
    if (error) {
      exchange.onResponseError(control, error)
      return
    }
    exchange.onResponseStart(control, 401, parsed, reason)
    if (this.#bytes > 0) exchange.onResponseData(control, Buffer.concat(this.#chunks))
    if (this.isWhole) exchange.onResponseEnd(control)
    else if (!exchange.res.writableNeedDrain) control.resume()
  }
}
