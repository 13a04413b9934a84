import { EventTokenError, type EventTokenRules, isObject, verifyEventToken } from './event-token.ts'
import { type AllowedSubjects, type SignalSubject, subjectOf } from './subjects.ts'

/** One event of a security event token. */
export type SecurityEvent = {
  /** URI of its type. */
  readonly type: string
  /** The subject; undefined when no session of Cloakroom's can be of it. */
  readonly subject: SignalSubject | undefined
  /** Epoch ms, by the transmitter's clock, but never later than our now. */
  readonly occurredAt: number
  readonly details: Readonly<Record<string, unknown>>
}

/** A security event token (RFC 8417) that passed every check. */
export type SecurityEventToken = {
  readonly jti: string
  readonly events: readonly SecurityEvent[]
  /** For so long it would pass again, in ms. */
  readonly goodForMs: number
}

export type SetRules = Pick<
  EventTokenRules,
  'clockToleranceMs' | 'longestAgeMs' | 'requireSigned' | 'now'
> & {
  readonly issuer: string
  readonly audience: string
  readonly subjects: AllowedSubjects
}

type Claims = Readonly<Record<string, unknown>>

/**
 * Verifies a security event token and reads its events. Throws an EventTokenError, or `provider_unavailable` while the
 * keys of the transmitter cannot be had.
 */
export async function verifySet(set: string, rules: SetRules): Promise<SecurityEventToken> {
  const { issuer, audience, now } = rules
  const { claims, events, jti, goodForMs } = await verifyEventToken(set, {
    ...rules,
    // RFC 8417 §2.3: so that no ID token, logout token or access token of the same keys passes for an event.
    types: ['secevent+jwt'],
    isIssuer: (iss) => iss === issuer,
    isAudience: (aud) => isOwnAudience(aud, audience),
  })
  const entries = Object.entries(events)
  if (entries.length === 0) throw badEvents('the token has no event')
  const at = now()
  return {
    ...{ jti, goodForMs },
    events: entries.map(([type, details]) => {
      if (!isObject(details)) throw badEvents('an event of the token is no JSON object')
      // Before SSF 1.0 the subject stood in the event.
      const subject = subjectOf(details.subject ?? details.sub_id ?? claims.sub_id, rules.subjects)
      return { type, details, subject, occurredAt: timeOf(details, claims, at) }
    }),
  }
}

/**
 * Keycloak writes CLIENT/STREAM, and makes a new name for each new stream: a client id is good for all of its streams. A
 * URL is compared as a whole, because URLs below it may be other receivers.
 */
function isOwnAudience(aud: string, audience: string): boolean {
  if (aud === audience) return true
  if (/[/:]/.test(audience)) return false
  return aud.startsWith(`${audience}/`) && /^[\w.~-]+$/.test(aud.slice(audience.length + 1))
}

/** A number of this many seconds would be in the year 5138: it is one of milliseconds, as early drafts of CAEP had it. */
const LATEST_SECONDS = 1e11

/** When the event occurred: CAEP 1.0 §2 `event_timestamp`, RFC 8417 §2.2 `toe`, else when the token was issued. Epoch ms. */
function timeOf({ event_timestamp: timestamp }: Claims, { toe, iat }: Claims, now: number): number {
  const stated = [timestamp, toe, iat].find(
    (time): time is number => typeof time === 'number' && Number.isFinite(time) && time > 0,
  )
  if (stated === undefined) return now
  return Math.min(now, stated > LATEST_SECONDS ? stated : stated * 1000)
}

function badEvents(message: string): EventTokenError {
  return new EventTokenError('invalid_request', message, { claim: 'events' })
}
