import type { IncomingMessage } from 'node:http'
import type { RequestHandler } from 'express'
import { type BffError, sharedRefusal } from '../errors.ts'
import type { SecurityHeaders } from './security-headers.ts'

/** What the CSRF defence needs to know of a route. */
export type GuardedRoute = {
  readonly auth: 'required' | 'optional' | 'anonymous'
  /** `origin`: for a request whose credential no browser adds by itself; only a foreign origin is refused. */
  readonly csrf: 'header' | 'fetch-metadata' | 'origin'
}

/** Throws csrf_required or origin_forbidden. It reads headers only, so it runs before the session is looked up. */
export type RequireSameOrigin = (req: IncomingMessage, route: GuardedRoute) => void

/**
 * Makes the CSRF defence (OAuth 2.0 for Browser-Based Applications §6.1.3.3): a static header that only same-origin
 * scripts can send, Origin, and Fetch Metadata. SameSite is not enough: a sibling subdomain's requests carry Strict cookies.
 */
export function createSameOriginGuard(origins: {
  publicUrl: string
  allowedOrigins: readonly string[]
}): RequireSameOrigin {
  const trusted = new Set([origins.publicUrl, ...origins.allowedOrigins])

  return function requireSameOrigin(req, route) {
    // An anonymous route uses neither session nor token.
    if (route.auth === 'anonymous') return
    if (route.csrf === 'fetch-metadata' && isTopLevelNavigation(req)) return
    const { origin } = req.headers
    const site = req.headers['sec-fetch-site']
    if (origin !== undefined && !trusted.has(origin)) throw forbidden('Origin is not allowed')
    const isTrustedOrigin = origin !== undefined
    if (site !== undefined && site !== 'same-origin' && !(isTrustedOrigin && site !== 'none')) {
      throw forbidden('Sec-Fetch-Site is not same-origin')
    }
    if (req.headers['x-csrf'] === '1' || route.csrf === 'origin') return
    const saysSameOrigin = isTrustedOrigin || site === 'same-origin'
    if (route.csrf === 'fetch-metadata' && saysSameOrigin) return
    if (site === 'same-origin' && isEventStream(req)) return
    throw sharedRefusal('csrf_required', 'send the header "X-CSRF: 1" with every request')
  }
}

/**
 * Whether a person opens a page or a download: the browser can be sent to sign in, and no script reads the answer. A
 * service worker that fetches the page for the browser says `empty`; no script can ask for the mode `navigate`.
 */
export function isTopLevelNavigation(req: IncomingMessage): boolean {
  const { method, headers } = req
  const dest = headers['sec-fetch-dest']
  return (
    method === 'GET' &&
    headers['sec-fetch-mode'] === 'navigate' &&
    (dest === 'document' || dest === 'empty') &&
    !isSpeculative(req)
  )
}

/** Whether a browser prefetches or prerenders a page that may never be opened (Prefetch §3.3, and older fields). */
export function isSpeculative({ headers }: IncomingMessage): boolean {
  return SPECULATION_FIELDS.some((name) => /prefetch|prerender|preview/i.test(String(headers[name] ?? '')))
}

const SPECULATION_FIELDS = ['sec-purpose', 'purpose', 'x-purpose', 'x-moz']

/**
 * Throws origin_forbidden unless this may be a navigation: an `<img>`, a script or a prefetched link must neither begin a
 * sign-in nor a sign-out. Clients that send no Fetch Metadata pass.
 */
export function requireNavigation(req: IncomingMessage): void {
  const mode = req.headers['sec-fetch-mode']
  if (mode !== undefined && mode !== 'navigate') throw forbidden('this URL is for navigations only')
  if (isSpeculative(req)) throw forbidden('this URL must not be fetched ahead of a navigation')
}

function isEventStream({ method, headers }: IncomingMessage): boolean {
  // An EventSource cannot set headers.
  return method === 'GET' && headers.accept?.startsWith('text/event-stream') === true
}

function forbidden(why: string): BffError {
  return sharedRefusal('origin_forbidden', why)
}

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
      if (isPreflight) throw forbidden('Origin is not allowed')
      next()
      return
    }
    res.setHeader('access-control-allow-origin', origin)
    res.setHeader('access-control-allow-credentials', 'true')
    if (!isPreflight) {
      res.setHeader('access-control-expose-headers', 'Cloakroom-Error, Retry-After, X-Request-Id')
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
