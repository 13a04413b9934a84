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
  /** The same as a flat list of names and values, without those that every problem has by itself. */
  readonly besideProblems: readonly string[]
}

const OF_PROBLEMS = new Set(['cache-control', 'x-content-type-options'])

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

  const fields: readonly (readonly [name: string, value: string])[] = [
    ['cache-control', 'no-store'],
    ...fieldsSetBy(protect),
  ]

  function set(_req: IncomingMessage, res: ServerResponse): void {
    for (const [name, value] of fields) res.setHeader(name, value)
  }
  return {
    middleware: function securityHeaders(req, res, next) {
      set(req, res)
      next()
    },
    set,
    fields: Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value])),
    besideProblems: fields.filter(([name]) => !OF_PROBLEMS.has(name.toLowerCase())).flat(),
  }
}

/** No header depends on the request, so setting them once tells the list. */
function fieldsSetBy(protect: ReturnType<typeof helmet>): [name: string, value: string][] {
  const fields = new Map<string, string>()
  const recorder = {
    setHeader: (name: string, value: string) => fields.set(name, value),
    removeHeader: (name: string) => fields.delete(name),
  }
  protect({} as IncomingMessage, recorder as unknown as ServerResponse, (error) => {
    if (error) throw error
  })
  return [...fields]
}

/** A browser's cache knows no users: without this, it shows one user's answers to the next (Clear Site Data §3.1). */
export function clearBrowserCache(res: ServerResponse): void {
  res.setHeader('clear-site-data', '"cache"')
}
