import { type Closing, within } from '../async/deadline.ts'
import { BffError, sharedRefusal } from '../errors.ts'
import type { BffSession } from '../session/session.ts'
import type { AccessToken } from '../tokens/record/sealing.ts'

/**
 * The access token of a session for a resource, without a promise when it is in memory. Rejects with session_required,
 * reauthentication_required, provider_rejected, provider_unavailable or store_unavailable.
 */
export type AccessTokenSource = (session: BffSession, resource: string) => AccessToken | Promise<AccessToken>

/** Makes what is thrown in place of a refusal of the tokens. */
export type TokenRefused = (error: unknown, session: BffSession) => Promise<unknown>

/** Resolves as `answer` does; a refusal becomes what `refused` makes of it. */
export async function mapRefusal<T>(
  answer: T | Promise<T>,
  session: BffSession,
  refused: TokenRefused | undefined,
): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw refused ? await refused(error, session) : error
  }
}

/**
 * Waits for an answer of the tokens for as long as the client does; resolves with undefined when the client has left.
 * Rejects as `answer` does, and with `provider_unavailable` after `timeoutMs`. The work behind `answer` goes on in any
 * case: a refresh that was begun serves the session's next request.
 */
export function inTime<T>(
  answer: Promise<T>,
  { timeoutMs, client }: { readonly timeoutMs: number; readonly client: Closing },
): Promise<T | undefined> {
  return within(answer, timeoutMs, { late: tooLate, closing: client })
}

/**
 * Throws bad_request for a query with an `access_token`, which a route does not take that sends a token itself: the upstream
 * might believe the one in the query (RFC 6750 §2.3, RFC 9700 §4.3.2).
 */
export function requireNoTokenQuery(url: string): void {
  const query = url.indexOf('?')
  if (query === -1) return
  const text = url.slice(query + 1)
  // Most queries hold neither the name nor anything that could be decoded to it.
  if (!/access.*token|%/i.test(text)) return
  const names = [...new URLSearchParams(text).keys()]
  if (!names.some((name) => name.toLowerCase() === 'access_token')) return
  throw sharedRefusal('bad_request', 'this route takes no token in the query: Cloakroom sends its own')
}

function tooLate(): never {
  throw new BffError('provider_unavailable', 'no access token within the response timeout of this route', {
    retryAfterSeconds: 2,
  })
}
