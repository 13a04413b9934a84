import { BffError } from '../errors.ts'

/** Whoever waits: a response, or the socket of an upgrade. */
export type WaitingClient = {
  readonly destroyed: boolean
  once(event: 'close', listener: () => void): unknown
  off(event: 'close', listener: () => void): unknown
}

/**
 * Waits for what the tokens room is asked for as long as its client does; resolves with undefined when that has left.
 * Rejects as `answer` does, and with `provider_unavailable` after `timeoutMs`. What is asked for goes on in any case: a
 * refresh that was begun serves the session's next request.
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
