import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from '../log.ts'

/** What is known about a request when its line is written. Kept on the request, under a symbol of our own. */
export type RequestFacts = {
  readonly id: string
  readonly startedAt: number
  route?: string
  resource?: string
  /** First characters of the session's hash: the same session can be followed, and nothing opened. */
  session?: string
  code?: string
  /** Where the sign-in of this request leads back to, for the page of its failure; not logged. */
  returnUrl?: string
  /** Its route looks for a session. */
  variesByCookie?: boolean
}

/** Told at the end of each request: route id, status, seconds. */
export type ObserveRequest = (route: string, method: string, status: number, seconds: number) => void

export type RequestLogDeps = {
  readonly log: Logger
  readonly observe: ObserveRequest
  readonly nowMs: () => number
  readonly clientIp: (req: IncomingMessage) => string
  /** Why a request that was refused for it has no session; never told to the browser. */
  readonly whyNoSession?: (req: IncomingMessage) => Promise<string | undefined>
}

/** Gives each request its facts, and writes one line and one observation when its answer has ended. */
export type RequestLog = {
  begin(req: IncomingMessage, res: ServerResponse): RequestFacts
  factsOf(req: IncomingMessage): RequestFacts
}

/** A member that nobody else can name; it costs less than a WeakMap. */
const FACTS = Symbol('facts')
type WithFacts = IncomingMessage & { [FACTS]?: RequestFacts }

/** Makes the request log; path is logged without its query, which may hold a code or personal data. */
export function createRequestLog(deps: RequestLogDeps): RequestLog {
  const { log, observe, nowMs, clientIp } = deps

  function end(req: IncomingMessage, res: ServerResponse, known: RequestFacts): void {
    const durationMs = nowMs() - known.startedAt
    const status = res.writableFinished ? res.statusCode : 499
    const method = req.method ?? ''
    const route = known.route ?? 'none'
    observe(route, method, status, durationMs / 1000)
    const fields = {
      requestId: known.id,
      method,
      path: pathOf(req),
      route,
      resource: known.resource,
      status,
      code: known.code,
      durationMs: Math.round(durationMs * 10) / 10,
      session: known.session,
      clientIp: clientIp(req),
    }
    const reason = known.code === 'session_required' ? deps.whyNoSession?.(req) : undefined
    if (reason) reason.then((found) => log.info({ ...fields, reason: found }, 'request'))
    else log.info(fields, 'request')
  }

  return {
    begin(req, res) {
      const known: RequestFacts = { id: randomUUID(), startedAt: nowMs() }
      ;(req as WithFacts)[FACTS] = known
      // 'close' comes once in every case: after the last byte, and when the client went away before it.
      res.once('close', () => end(req, res, known))
      return known
    },
    factsOf: (req) => (req as WithFacts)[FACTS] ?? { id: 'unknown', startedAt: nowMs() },
  }
}

function pathOf(req: IncomingMessage): string {
  // Express strips the mount path from `url`; what came over the wire is in `originalUrl`.
  const url = (req as IncomingMessage & { originalUrl?: string }).originalUrl ?? req.url ?? ''
  const end = url.search(/[?#]/)
  return (end === -1 ? url : url.slice(0, end)).slice(0, 512)
}
