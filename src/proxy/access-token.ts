import { BffError } from '../errors.ts'
import type { BffSession } from '../session/bff-session.ts'

/** An access token for one session and one resource. */
export type AccessToken = {
  /** What goes after `Bearer `. */
  readonly value: string
  /** Epoch ms. */
  readonly expiresAt: number
}

/**
 * The access token of a session for a resource, without a promise when it is in memory. Rejects with session_required,
 * reauthentication_required, provider_rejected, provider_unavailable or store_unavailable.
 */
export type AccessTokenSource = (session: BffSession, resource: string) => AccessToken | Promise<AccessToken>

/** The client of a request: its response, or the socket of an upgrade. */
export type WaitingClient = {
  readonly destroyed: boolean
  once(event: 'close', listener: () => void): unknown
  off(event: 'close', listener: () => void): unknown
}

/**
 * Waits for an answer of the tokens for as long as the client does; resolves with undefined when the client has left.
 * Rejects as `answer` does, and with `provider_unavailable` after `timeoutMs`. The work behind `answer` goes on in any
 * case: a refresh that was begun serves the session's next request.
 */
export function inTime<T>(
  answer: Promise<T>,
  { timeoutMs, client }: { readonly timeoutMs: number; readonly client: WaitingClient },
): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => end(reject, tooLate()), timeoutMs)
    const leave = () => end(resolve, undefined)
    client.once('close', leave)
    answer.then(
      (value) => end(resolve, value),
      (error) => end(reject, error),
    )
    if (client.destroyed) leave()

    function end<Outcome>(settle: (outcome: Outcome) => void, outcome: Outcome): void {
      clearTimeout(timer)
      client.off('close', leave)
      settle(outcome)
    }
  })
}

function tooLate(): BffError {
  return new BffError('provider_unavailable', 'no access token within the response timeout of this route', {
    retryAfterSeconds: 2,
  })
}
