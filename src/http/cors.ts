import type { RequestHandler } from 'express'
import { BffError } from '../errors.ts'
import type { SecurityHeaders } from './security-headers.ts'

const PREFLIGHT_LIFE_SECONDS = 600

/**
 * CORS for the configured other origins only (Fetch §3.2). The answer comes from here, never from an upstream: an exact
 * echo of the origin, with credentials. A preflight needs no session. Where other origins are allowed, every answer has
 * `Vary: Origin`, because a cache must not give an answer that permits no origin to a script of an allowed one.
 */
export function createCors(
  allowedOrigins: readonly string[],
  { set: setSecurityHeaders }: Pick<SecurityHeaders, 'set'>,
): RequestHandler {
  const allowed = new Set(allowedOrigins)
  return function cors(req, res, next) {
    const { origin } = req.headers
    const requested = req.headers['access-control-request-method']
    const isPreflight = req.method === 'OPTIONS' && origin !== undefined && requested !== undefined
    if (allowed.size > 0) res.appendHeader('vary', 'Origin')
    if (origin === undefined || !allowed.has(origin)) {
      if (isPreflight) throw new BffError('origin_forbidden', 'Origin is not allowed')
      next()
      return
    }
    res.setHeader('access-control-allow-origin', origin)
    res.setHeader('access-control-allow-credentials', 'true')
    if (!isPreflight) {
      res.setHeader('access-control-expose-headers', 'Cloakroom-Error')
      next()
      return
    }
    setSecurityHeaders(req, res)
    res.setHeader('access-control-allow-methods', requested)
    res.setHeader('access-control-allow-headers', req.headers['access-control-request-headers'] ?? 'x-csrf')
    res.setHeader('access-control-max-age', String(PREFLIGHT_LIFE_SECONDS))
    res.status(204).end()
  }
}
