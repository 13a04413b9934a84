import type { BffSession } from '../../session/session.ts'
import type { AccessToken } from '../../tokens/record/sealing.ts'
import type { Rejection, RejectionReaction, TokenChallenge } from '../../tokens/rejected-token.ts'
import { bearerChallenge } from '../headers/www-authenticate.ts'
import type { ParsedHeaders, ResponseController, ResponseHandler } from './dispatcher.ts'

/** Asked once per request at most; rejects with a BffError that is answered in place of the upstream's 401. */
export type OnRejectedToken = (
  session: BffSession,
  resource: string,
  rejection: Rejection,
) => Promise<RejectionReaction>

/** The session and token of a request, and whom its exchange asks when the upstream refuses the token. */
export type SentToken = {
  /** The signed-in session that the request belongs to. */
  readonly session: BffSession | undefined
  /** Ours among the headers, for the route's resource. */
  readonly accessToken?: AccessToken | undefined
  /** Without it every response is passed on. */
  readonly onRejectedToken?: OnRejectedToken | undefined
}

/** What a 401 says against our token; undefined when no token was sent, or no one reacts to its refusal. */
export function tokenChallenge(
  { session, accessToken, onRejectedToken }: SentToken,
  parsed: ParsedHeaders,
): TokenChallenge | undefined {
  const fields = parsed['www-authenticate']
  if (!session || !accessToken || !onRejectedToken || fields === undefined) return undefined
  return bearerChallenge(typeof fields === 'string' ? [fields] : fields)
}

/** Bytes of a buffered response that are taken from the connection; the rest waits there. */
const MAX_BUFFERED = 65_536

/** A 401 of which nothing has been sent to the client yet. */
export class BufferedResponse {
  readonly controller: ResponseController
  readonly #parsed: ParsedHeaders
  readonly #reason: string | undefined
  /** It has arrived whole, and its connection may serve another request. */
  isWhole = false
  error: Error | undefined
  readonly #chunks: Buffer[] = []
  #bytes = 0

  constructor(controller: ResponseController, parsed: ParsedHeaders, reason: string | undefined) {
    this.controller = controller
    this.#parsed = parsed
    this.#reason = reason
  }

  /** Reads on, because a refusal is short: its connection is free by the time another request needs it. */
  add(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes >= MAX_BUFFERED) this.controller.pause()
  }

  /** Drops it. What has not arrived is not worth waiting for: the connection ends instead. */
  discard(): void {
    if (!this.isWhole) this.controller.abort(new Error('the response is not wanted'))
  }

  /** Reports it as if it had never been buffered. `isReading`: the client takes more. */
  replayTo(handler: ResponseHandler, isReading: () => boolean): void {
    const { controller, error } = this
    if (error) {
      handler.onResponseError(controller, error)
      return
    }
    handler.onResponseStart(controller, 401, this.#parsed, this.#reason)
    if (this.#bytes > 0) handler.onResponseData(controller, Buffer.concat(this.#chunks))
    if (this.isWhole) handler.onResponseEnd(controller)
    else if (isReading()) controller.resume()
  }
}
