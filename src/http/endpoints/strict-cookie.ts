import type { Request } from 'express'

/** Whether this browser may have a session cookie that it did not send. */
export type MayLackCookie = (req: Request) => boolean

/**
 * A browser sends no SameSite=Strict cookie with a navigation that began on another site (RFC 6265bis §5.2), so its
 * session seems to be none. A page of ours that navigates by itself brings the cookie. Only browsers are told to.
 */
export function createMayLackCookie(
  sameSite: 'strict' | 'lax',
  hasSessionCookie: (req: Request) => boolean,
): MayLackCookie {
  return function mayLackCookie(req) {
    // Browsers before Fetch Metadata do not say where a navigation began.
    const isCrossSite = /^(?:cross-site)?$/.test(String(req.headers['sec-fetch-site'] ?? ''))
    const isForPages = req.headers.accept?.includes('text/html') === true
    return sameSite === 'strict' && isCrossSite && isForPages && !hasSessionCookie(req)
  }
}
