import type { Request, RequestHandler } from 'express'
import type { Secret } from '../../../config/secrets/secret.ts'
import { BffError } from '../../../errors.ts'
import type { Logger } from '../../../log.ts'
import { EventTokenError } from '../../../oidc/events/event-token.ts'
import type { SignalActions } from '../../../oidc/events/signals-receiver.ts'
import { type AllowedSubjects, type SignalSubject, subjectOf } from '../../../oidc/events/subjects.ts'
import type { FailureLimit } from '../../rate-limit.ts'
import type { RequestFacts } from '../../request-log.ts'
import { readSmallBody } from '../../small-body.ts'
import { isExpectedAuthorization } from './authorization.ts'

export type GlobalTokenRevocationDeps = {
  /** The issuer of the users that requests name. */
  readonly issuer: string
  readonly subjects: AllowedSubjects
  /** A value of the `Authorization` field that will do beside a token of the provider; absent: none. */
  readonly authorization: Secret | undefined
  /** Rejects with an EventTokenError unless the provider made this JWT for this endpoint. */
  readonly verifyCaller: (jws: string) => Promise<void>
  readonly endSessions: SignalActions['endSessions']
  /** Counts what is refused of clients that do not bring the `authorization`. */
  readonly refusedPushes: FailureLimit
  readonly factsOf: (req: Request) => RequestFacts
  /** What the whole body may take, in ms. */
  readonly bodyWithinMs: number
  readonly log: Logger
}

const MAX_BYTES = 16_384

/**
 * Makes the endpoint of draft-parecki-oauth-global-token-revocation: 204 once every session of the subject has ended. The
 * answer for an unknown user is 204 too, so that it does not tell who is known.
 */
export function createGlobalTokenRevocation(deps: GlobalTokenRevocationDeps): RequestHandler {
  return async function globalTokenRevocation(req, res) {
    await requireCaller(req)
    const rules = { types: ['application/json'], maxBytes: MAX_BYTES, withinMs: deps.bodyWithinMs }
    const subject = subjectIn(await readSmallBody(req, res, rules), deps)
    const startedBefore = Number.POSITIVE_INFINITY
    const count = await deps.endSessions(subject, { reason: 'global_revocation', startedBefore })
    deps.log.info(
      { request_id: deps.factsOf(req).id, outcome: 'ended', count },
      'all sessions of a user were revoked',
    )
    res.status(204).end()
  }

  /** The caller proves itself with the secret of the pushes, or with a JWT of the provider (RFC 7523 §2.2, RFC 6750 §2.1). */
  async function requireCaller(req: Request): Promise<void> {
    const { authorization, refusedPushes } = deps
    if (authorization && isExpectedAuthorization(req, authorization)) return
    refusedPushes.check(req)
    const [, token] = /^Bearer +([\w.-]+)$/i.exec(req.headers.authorization ?? '') ?? []
    try {
      if (token === undefined)
        throw new EventTokenError('invalid_request', 'no token authenticates the caller')
      await deps.verifyCaller(token)
    } catch (error) {
      if (!(error instanceof EventTokenError)) throw error
      await refusedPushes.failed(req)
      throw notAuthenticated(error)
    }
  }
}

function notAuthenticated(cause: EventTokenError): BffError {
  return new BffError('session_required', cause.message, {
    ...{ cause, details: { reason: 'invalid_token' }, offersLogin: false },
    headers: { 'www-authenticate': 'Bearer error="invalid_token"' },
  })
}

function subjectIn(body: string, { issuer, subjects }: GlobalTokenRevocationDeps): SignalSubject {
  const request = parsed(body)
  // `subject` until draft 03.
  const named = request?.sub_id ?? request?.subject
  const { format, id } = (named ?? {}) as { format?: unknown; id?: unknown }
  // §3.2: an opaque identifier is the user's, as the authorization server knows it.
  if (format === 'opaque' && typeof id === 'string' && id !== '') return { user: { iss: issuer, sub: id } }
  const subject = subjectOf(named, subjects)
  if (!subject?.user && subject?.email === undefined) {
    throw new BffError(
      'bad_request',
      'sub_id must name a user: iss_sub, opaque, or email where that is allowed',
      { logged: { claim: 'sub_id' } },
    )
  }
  const { idpSid: _one, ...user } = subject
  return user
}

function parsed(body: string): { sub_id?: unknown; subject?: unknown } | undefined {
  try {
    return JSON.parse(body) ?? undefined
  } catch {
    return undefined
  }
}
