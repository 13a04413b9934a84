import { type Clock, systemClock } from '../../async/clock.ts'
import { BffError, type LoggedFacts } from '../../errors.ts'
import type { ReplayRecords } from '../../store/port.ts'
import { type JwtClaims, unverifiedJwt, unverifiedKeyId } from '../token-endpoint/jwt.ts'

/** What is wrong with an event token, in the words of RFC 8935 §2.4. */
export type EventTokenFault = 'invalid_request' | 'invalid_key' | 'invalid_issuer' | 'invalid_audience'

/** An event token that fails a check. Its message names the rule, and what of a time claim is wrong, but no claim value. */
export class EventTokenError extends Error {
  readonly fault: EventTokenFault
  /** For the log: the claim, how far it is from our clock, and the key that the token says it is signed with. */
  readonly facts: LoggedFacts

  constructor(fault: EventTokenFault, message: string, facts: LoggedFacts = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'EventTokenError'
    this.fault = fault
    this.facts = facts
  }
}

/** What a kind of event token must be: a logout token, or a security event token (RFC 8417). */
export type EventTokenRules = {
  /** The values of `typ` that it may have, in lower case and without `application/`; undefined for none (RFC 8725 §3.11). */
  readonly types: readonly (string | undefined)[]
  readonly isIssuer: (iss: string) => boolean
  readonly isAudience: (aud: string) => boolean
  /** Throws a plain Error for a signature that is not the issuer's, BffError when that cannot be told now. */
  readonly requireSigned: (jws: string) => Promise<void>
  /** Longest time since `iat`, in ms: what is older is stale, even if it came late by no fault of its own. */
  readonly longestAgeMs: number
  /** How far the issuer's clock may be from ours, on either side, in ms. */
  readonly clockToleranceMs: number
  /** Epoch ms. */
  readonly now: () => number
}

/** An event token that passed every check. */
export type EventToken = {
  readonly claims: JwtClaims
  readonly iss: string
  readonly jti: string
  /** Epoch seconds. */
  readonly iat: number
  readonly events: Readonly<Record<string, unknown>>
  /** For so long it would pass again, in ms: its `jti` must be remembered until then. */
  readonly goodForMs: number
}

/**
 * Verifies an event token: its form, type, issuer, audience, times, `jti` and `events`, and last, because it costs most,
 * its signature. Rejects with an EventTokenError, or with what `requireSigned` throws when the keys cannot be read.
 */
export async function verifyEventToken(jws: string, rules: EventTokenRules): Promise<EventToken> {
  const token = judged(jws, rules)
  try {
    await rules.requireSigned(jws)
  } catch (error) {
    if (error instanceof BffError) throw error
    const why = error instanceof Error ? error.message : 'the signature does not verify'
    throw new EventTokenError('invalid_key', why, { keyId: unverifiedKeyId(jws) }, error)
  }
  return token
}

function judged(jws: string, rules: EventTokenRules): EventToken {
  const jwt = /^[\w-]+\.[\w-]+\.[\w-]+$/.test(jws) ? unverifiedJwt(jws) : undefined
  if (!jwt) throw bad('the token is no signed JWT')
  const { header, claims } = jwt
  requireType(header.typ, rules)
  const { iss, jti, events } = claims
  if (typeof iss !== 'string' || !rules.isIssuer(iss)) {
    throw new EventTokenError('invalid_issuer', 'the token is of another issuer', { claim: 'iss' })
  }
  requireAudience(claims.aud, rules)
  const { iat, goodUntil } = requireTimes(claims, rules)
  if (typeof jti !== 'string' || jti === '') throw bad('the token has no jti', 'jti')
  if (!isObject(events)) throw bad('the token has no events', 'events')
  return { claims, iss, jti, iat, events, goodForMs: goodUntil - rules.now() }
}

/** RFC 8725 §3.11: a token of another kind, which the issuer signs with the same key, must not be taken for this one. */
function requireType(typ: unknown, { types }: EventTokenRules): void {
  const type = typeof typ === 'string' ? typ.toLowerCase().replace(/^application\//, '') : typ
  if (!types.includes(type as string | undefined)) throw bad('the token is of another type (typ)')
}

/** RFC 7519 §4.1.3. */
function requireAudience(aud: unknown, { isAudience }: EventTokenRules): void {
  const audiences = Array.isArray(aud) ? aud : [aud]
  if (audiences.some((one) => typeof one === 'string' && isAudience(one))) return
  throw new EventTokenError('invalid_audience', 'the token is for another audience', { claim: 'aud' })
}

/** RFC 7519 §4.1.4 to §4.1.6. Returns `iat` in epoch seconds, and when the token stops being good in epoch ms. */
function requireTimes(claims: JwtClaims, { now, clockToleranceMs, longestAgeMs }: EventTokenRules) {
  const at = now()
  const iat = secondsOf(claims, 'iat')
  if (iat === undefined) throw bad('the token has no iat', 'iat')
  const times = { iat, exp: secondsOf(claims, 'exp'), nbf: secondsOf(claims, 'nbf') }
  const stale = iat * 1000 + longestAgeMs + clockToleranceMs
  const expired = times.exp === undefined ? stale : times.exp * 1000 + clockToleranceMs
  if (iat * 1000 > at + clockToleranceMs) throw badTime('iat', iat, at)
  if (at >= stale) throw badTime('iat', iat, at)
  if (at >= expired) throw badTime('exp', times.exp!, at)
  if ((times.nbf ?? 0) * 1000 > at + clockToleranceMs) throw badTime('nbf', times.nbf!, at)
  return { iat, goodUntil: Math.min(stale, expired) }
}

function secondsOf(claims: JwtClaims, name: string): number | undefined {
  const value = claims[name]
  if (value === undefined || (typeof value === 'number' && Number.isFinite(value))) return value
  throw bad(`the token has an ${name} that is no number`, name)
}

function badTime(claim: string, seconds: number, now: number): EventTokenError {
  const offsetSeconds = Math.round(seconds - now / 1000)
  const away = `${Math.abs(offsetSeconds)} s ${offsetSeconds < 0 ? 'in the past' : 'in the future'}`
  return new EventTokenError('invalid_request', `the token has an ${claim} ${away}`, { claim, offsetSeconds })
}

function bad(message: string, claim?: string): EventTokenError {
  return new EventTokenError('invalid_request', message, claim === undefined ? {} : { claim })
}

/** Whether a JSON value is an object, and no list. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** While a message is acted on, its repetitions wait for at most this long; then the one that acts on it has died. */
const CLAIMED_MS = 10_000
/** How long a repetition waits for how that ends before its sender is asked to send it again, and how often it looks. */
const PENDING_MS = 2_000
const LOOK_EVERY_MS = 100

/** A message that is good once: `id` tells it from others of its `kind`, and it would be taken again for so many ms. */
export type SingleUseMessage = { readonly kind: string; readonly id: string; readonly goodForMs: number }

/** `actOnce` over the records of one store. */
export type ActOnce = (message: SingleUseMessage, act: () => Promise<void>) => Promise<boolean>

/**
 * Acts on a message once over all replicas: true when this call did, false when it was done before. A message that could
 * not be acted on may come again, because its sender was told of the failure; one that was acted on is refused for as long
 * as it is good. While another call acts on it, this one waits for how that ends: a repetition must not be taken for done
 * when the first one fails. Rejects with `store_unavailable` when that takes too long.
 */
export async function actOnce(
  { replays, pause = systemClock.pause }: { replays: ReplayRecords; pause?: Clock['pause'] },
  message: SingleUseMessage,
  act: () => Promise<void>,
): Promise<boolean> {
  const { kind, id, goodForMs } = message
  if (!(await isFirstUse(replays, message, pause))) return false
  try {
    await act()
  } catch (error) {
    await replays.forget(kind, id).catch(() => undefined)
    throw error
  }
  // What was done stays done; done again, it would change nothing.
  await replays.keep(kind, id, Math.max(1, Math.ceil(goodForMs))).catch(() => undefined)
  return true
}

async function isFirstUse(
  replays: ReplayRecords,
  { kind, id }: SingleUseMessage,
  pause: Clock['pause'],
): Promise<boolean> {
  for (let waitedMs = 0; ; waitedMs += LOOK_EVERY_MS) {
    const use = await replays.firstUse(kind, id, CLAIMED_MS)
    if (use !== 'pending') return use === 'first'
    if (waitedMs >= PENDING_MS) {
      const cause = new Error(
        'another request with the same jti has not ended, or the store did not take its end',
      )
      throw new BffError('store_unavailable', 'it is not known whether the message was acted on', { cause })
    }
    await pause(LOOK_EVERY_MS)
  }
}
