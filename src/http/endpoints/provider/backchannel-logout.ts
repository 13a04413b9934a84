import type { Request, RequestHandler } from 'express'
import { BffError, type LoggedFacts } from '../../../errors.ts'
import type { Logger } from '../../../log.ts'
import { type ActOnce, EventTokenError } from '../../../oidc/events/event-token.ts'
import type { ProviderLogout } from '../../../oidc/events/logout-token.ts'
import type { EndSessions } from '../../../session/session-index.ts'
import type { FailureLimit } from '../../rate-limit.ts'
import { readSmallBody } from '../../small-body.ts'

export type BackchannelLogoutDeps = {
  readonly verifyLogoutToken: (jws: string) => Promise<ProviderLogout>
  readonly actOnce: ActOnce
  readonly endSessions: EndSessions
  /** Counts what is refused here, by client; what is good is never counted, because one provider signs out everybody. */
  readonly refusedLogouts: FailureLimit
  /** What the whole body may take, in ms. */
  readonly bodyTimeMs: number
  readonly requestIdOf: (req: Request) => string
  readonly log: Logger
}

/** A logout token is under 2 KB; other parameters may come with it (§2.5). */
const MAX_BYTES = 65_536
const FORM = 'application/x-www-form-urlencoded'

/**
 * Makes `POST B/backchannel-logout` (OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8), with which the provider ends
 * sessions without the browser. Its token is the only proof: it needs neither cookie nor CSRF header. 200 when the
 * sessions have ended on all replicas, or there were none; `bad_request` for a token that is not good; `store_unavailable`
 * or `provider_unavailable` when it cannot be told now or not be done, and the same token may be sent again.
 */
export function createBackchannelLogout(deps: BackchannelLogoutDeps): RequestHandler {
  return async function backchannelLogout(req, res) {
    deps.refusedLogouts.check(req)
    try {
      const rules = { types: [FORM], maxBytes: MAX_BYTES, withinMs: deps.bodyTimeMs }
      const logout = await deps.verifyLogoutToken(logoutTokenIn(await readSmallBody(req, res, rules)))
      await endOnce(deps, logout, deps.requestIdOf(req))
    } catch (error) {
      throw await refusal(deps, req, error)
    }
    res.status(200).end()
  }
}

function logoutTokenIn(body: string): string {
  const tokens = new URLSearchParams(body).getAll('logout_token')
  const [token] = tokens
  if (token && tokens.length === 1) return token
  throw new EventTokenError('invalid_request', 'send one logout_token')
}

/** §2.6: a `jti` is good once, over all replicas. */
async function endOnce(
  { actOnce, endSessions, log }: BackchannelLogoutDeps,
  { iss, sub, sid, jti, goodForMs }: ProviderLogout,
  requestId: string,
): Promise<void> {
  const id = JSON.stringify([iss, jti])
  let count = 0
  const isFirst = await actOnce({ kind: 'logout', id, goodForMs }, async () => {
    const of = sub === undefined ? { iss, sid: sid ?? '' } : { iss, sub, sid }
    count = await endSessions(of, 'backchannel_logout')
  })
  if (!isFirst)
    throw new EventTokenError('invalid_request', 'the logout token was used before', { claim: 'jti' })
  log.info({ request_id: requestId, reason: 'backchannel_logout', count }, 'the provider ended sessions')
}

/** What is wrong with the request, counted, logged, and in the words of a problem. What is wrong on our side stays as it is. */
async function refusal(
  { refusedLogouts, requestIdOf, log }: BackchannelLogoutDeps,
  req: Request,
  error: unknown,
): Promise<unknown> {
  const isToken = error instanceof EventTokenError
  const isRequest = error instanceof BffError && ['bad_request', 'body_too_large'].includes(error.code)
  if (!isToken && !isRequest) return error
  await refusedLogouts.failed(req)
  const facts: LoggedFacts = isToken ? { reason: error.fault, ...error.facts } : {}
  const fields = { request_id: requestIdOf(req), code: 'bad_request', ...facts }
  log.warn(fields, `a logout token was refused: ${error.message}`)
  return isToken ? new BffError('bad_request', error.message) : error
}
