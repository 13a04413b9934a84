import { createHmac, timingSafeEqual } from 'node:crypto'
import { createLogThrottle } from '../async/log-throttle.ts'
import type { Logger } from '../log.ts'
import type { SessionId } from './bff-session.ts'

/**
 * Returns the raw value of the session cookie in a Cookie header. Undefined when there is none, or more than one: two
 * cookies of that name are a sign of fixation, and their order is not guaranteed (RFC 6265 §4.2.2). `repeated` is called then.
 */
export function readSessionCookie(
  header: string | undefined,
  name: string,
  repeated?: () => void,
): string | undefined {
  if (header === undefined) return undefined
  let found: string | undefined
  for (let at = header.indexOf(name); at !== -1; at = header.indexOf(name, at + name.length)) {
    const isWholeName = startsPair(header, at) && header[at + name.length] === '='
    if (!isWholeName) continue
    if (found !== undefined) {
      repeated?.()
      return undefined
    }
    const end = header.indexOf(';', at)
    found = header.slice(at + name.length + 1, end === -1 ? undefined : end).trim()
  }
  return found
}

function startsPair(header: string, at: number): boolean {
  let before = at - 1
  while (before >= 0 && header[before] === ' ') before -= 1
  return before < 0 || header[before] === ';'
}

/** Returns the session id that a cookie value claims, before its signature is verified: good for naming, not for trust. */
export function sessionIdOf(cookieValue: string): string {
  const [, id] = /^s(?:%3A|:)([^.]*)\./i.exec(cookieValue) ?? []
  return id ?? cookieValue
}

/**
 * Returns the session id of a cookie value that one of the secrets has signed; undefined for every other value. The
 * format is that of express-session: `s:ID.` and the HMAC-SHA-256 of the id, base64 without padding, percent-encoded.
 * An id that is written in another spelling is refused, so that one session has one name among the copies.
 */
export function verifiedSessionId(cookieValue: string, secrets: readonly string[]): SessionId | undefined {
  const id = sessionIdOf(cookieValue)
  const given = Buffer.from(decoded(cookieValue))
  const isSigned = secrets.some((secret) => {
    const signature = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
    const expected = Buffer.from(`s:${id}.${signature}`)
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
  return isSigned ? (id as SessionId) : undefined
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}

/**
 * Makes the warning about requests with several session cookies, a sign of fixation (ASVS 7.2.1). The first is logged at
 * once, then at most once a minute how many there were since, so that a client cannot fill the log with them.
 */
export function createRepeatedCookieWarning({
  log,
  monotonicNow,
}: {
  log: Logger
  monotonicNow: () => number
}): () => void {
  const throttle = createLogThrottle({ monotonicNow })
  return function repeatedCookie() {
    const count = throttle.count('repeated_cookie')
    if (count === undefined) return
    const fields = { reason: 'repeated_cookie', count }
    log.warn(fields, 'requests with several session cookies are treated as signed out')
  }
}
