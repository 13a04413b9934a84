import type { Logger } from '../log.ts'

const EVERY_MS = 60_000

/**
 * Tells the log of requests that bring several session cookies, a sign of fixation (ASVS 7.2.1): of the first at once,
 * then at most once a minute how many there were since, so that nobody can fill the log with them.
 */
export function createRepeatedCookieWarning({
  log,
  monotonicNow,
}: {
  log: Logger
  monotonicNow: () => number
}): () => void {
  let quietUntil = Number.NEGATIVE_INFINITY
  let count = 0
  return function repeatedCookie() {
    count += 1
    if (monotonicNow() < quietUntil) return
    log.warn(
      { reason: 'repeated_cookie', count },
      'requests with several session cookies are treated as signed out',
    )
    quietUntil = monotonicNow() + EVERY_MS
    count = 0
  }
}
