import type { RequestHandler } from 'express'
import { BffError } from '../errors.ts'

const PREFLIGHT_LIFE_SECONDS = 600

/**
 * CORS for the configured other origins only, answered by us and never by an upstream (Fetch §3.2): an exact echo of
 * the origin with credentials, and no session needed for a preflight. Where other origins are allowed, `Vary: Origin` is
 * on every answer: a cache must not give one that was made for no origin, and so permits none, to a script of theirs.
 */
export function createCors(
  allowedOrigins: readonly string[],
  ownHeaders: Readonly<Record<string, string>> = {},
): RequestHandler {
  const allowed = new Set(allowedOrigins)
  const entries = Object.entries(ownHeaders)
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
    for (const [name, value] of entries) res.setHeader(name, value)
    res.setHeader('access-control-allow-methods', requested)
    res.setHeader('access-control-allow-headers', req.headers['access-control-request-headers'] ?? 'x-csrf')
    res.setHeader('access-control-max-age', String(PREFLIGHT_LIFE_SECONDS))
    res.setHeader('cache-control', 'no-store')
    res.status(204).end()
  }
}
