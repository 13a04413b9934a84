import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RequestHandler } from 'express'
import helmet from 'helmet'

/** Headers of Cloakroom's own answers (ASVS 3.4): nothing is cached, framed, or loaded from elsewhere. */
export type SecurityHeaders = {
  readonly middleware: RequestHandler
  /** The same outside a list of middleware. */
  set(req: IncomingMessage, res: ServerResponse): void
  /** The same as a list, for answers that are written to a raw socket. */
  readonly fields: Readonly<Record<string, string>>
}

/** The only file that imports helmet. */
export function createSecurityHeaders(publicUrl: string): SecurityHeaders {
  const protect = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        baseUri: ["'none'"],
        formAction: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    strictTransportSecurity: publicUrl.startsWith('https:'),
    referrerPolicy: { policy: 'no-referrer' },
  })

  function set(req: IncomingMessage, res: ServerResponse): void {
    res.setHeader('cache-control', 'no-store')
    protect(req, res, (error) => {
      if (error) throw error
    })
  }
  return {
    middleware: function securityHeaders(req, res, next) {
      set(req, res)
      next()
    },
    set,
    fields: listOf(set),
  }
}

/** No header depends on the request, so setting them once tells the list. */
function listOf(set: SecurityHeaders['set']): Record<string, string> {
  const headers = new Headers()
  const recorder = {
    setHeader: (name: string, value: string) => headers.set(name, value),
    removeHeader: (name: string) => headers.delete(name),
  }
  set({} as IncomingMessage, recorder as unknown as ServerResponse)
  return Object.fromEntries(headers)
}

/** A browser's cache knows no users: without this, it shows one user's answers to the next (Clear Site Data §3.1). */
export function clearBrowserCache(res: ServerResponse): void {
  res.setHeader('clear-site-data', '"cache"')
}
