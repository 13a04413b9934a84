import type { Metrics } from '../admin/metrics.ts'
import { describeError } from '../errors.ts'
import type { LogFields, Logger } from '../log.ts'
import type { SessionHash, UserClaims } from '../store/port.ts'
import { createPseudonyms } from '../tokens/record/sealing.ts'

export type AuditDeps = {
  readonly log: Pick<Logger, 'audit'>
  readonly metrics: Pick<Metrics, 'session' | 'signIn'>
  /** The session keys. */
  readonly keys: readonly Buffer[]
  /** Id of the request that is being served, if one is. */
  readonly requestId: () => string | undefined
}

/** Tells the audit stream and the metrics what became of sessions and sign-ins. */
export type Audit = ReturnType<typeof createAudit>

/** Makes what is told of sessions: the stream names a session by a part of its hash, and a user by a pseudonym. */
export function createAudit({ log, metrics, keys, requestId }: AuditDeps) {
  const subjectOf = createSubjectPseudonyms(keys)
  return {
    subjectOf,
    sessionEnded(hash: SessionHash, reason: string): void {
      metrics.session('ended', reason)
      log.audit?.('session_ended', { request_id: requestId(), ...endOf(hash, reason) })
    },
    /** The provider was asked to revoke the refresh token of a session that ended (RFC 7009). */
    tokenRevoked(hash: SessionHash): void {
      log.audit?.('token_revocation', { request_id: requestId(), session: sessionName(hash) })
    },
    /** `isStepUp`: of a user who was signed in, and was asked to authenticate once more. */
    signedIn(
      { hash, claims }: { readonly hash: SessionHash; readonly claims: UserClaims },
      { isStepUp, clientIp }: { readonly isStepUp: boolean; readonly clientIp: string },
    ): void {
      metrics.session('started', 'login')
      metrics.signIn('succeeded')
      const told = {
        request_id: requestId(),
        session: sessionName(hash),
        subject: subjectOf(claims),
        clientIp,
      }
      log.audit?.(isStepUp ? 'step_up' : 'sign_in', told)
    },
  }
}

/** How the log calls a session: enough to follow it there, and opens nothing. */
export function sessionName(hash: SessionHash): string {
  return hash.slice(0, 12)
}

/**
 * Makes the `subject` of users in the audit stream. A log is read by more people than the directory: without the session
 * key the user cannot be told from it. It changes when another key becomes the first.
 */
export function createSubjectPseudonyms(
  keys: readonly Buffer[],
): (user: { readonly iss?: unknown; readonly sub: string }) => string {
  const pseudonymOf = createPseudonyms(keys)
  return ({ iss, sub }) => pseudonymOf(JSON.stringify(['audit', iss, sub]))
}

/** What the line of a session's end says: which, why, and whose doing it was. */
export function endOf(hash: SessionHash, reason: string): Pick<LogFields, 'session' | 'reason' | 'by'> {
  return { session: sessionName(hash), reason, by: endedBy(reason) }
}

const BY: ReadonlyMap<string, string> = new Map([
  ...['logout', 'by_user', 'replaced'].map((reason) => [reason, 'user'] as const),
  ...['discarded', 'subject_changed'].map((reason) => [reason, 'cloakroom'] as const),
  ['max_per_user', 'limit'],
  ['absolute_timeout', 'timeout'],
  ['operator', 'operator'],
])

/** What is left is the provider's: a logout, an event, a grant that it ended. */
function endedBy(reason: string): string {
  return BY.get(reason) ?? 'provider'
}

/** What the line of a reload says. `hash` names the configuration that runs after it, as `cloakroom_config_info` does. */
export function reloadOf(
  reason: string | undefined,
  { hash, error }: { readonly hash: string; readonly error?: unknown },
): LogFields {
  const why = reason === undefined ? {} : { reason }
  if (error === undefined) return { outcome: 'applied', ...why, hash }
  const { problems } = error as { problems?: readonly unknown[] }
  return {
    outcome: 'refused',
    ...why,
    hash,
    ...(problems ? { count: problems.length } : { err: describeError(error) }),
  }
}
