import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Router,
} from 'express'
import { BffError, describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createCauseLog, createSignInLog, type ObserveSignInFailure } from './cause-log.ts'
import type { LoginUrlFor } from './endpoints/login-url.ts'
import { failedSignInPage, sendPage } from './endpoints/pages.ts'
import { problemAnswer } from './problem.ts'
import type { RequestLog } from './request-log.ts'

export type EdgeDeps = {
  readonly publicUrl: string
  readonly basePath: string
  readonly requestLog: RequestLog
  readonly bffRoutes: Router
  readonly loginUrlFor: LoginUrlFor
  readonly cors: RequestHandler
  /** Forwards a request to its upstream; false when no route matches. */
  readonly forward: (req: IncomingMessage, res: ServerResponse) => Promise<boolean>
  /** Set on every answer of our own. */
  readonly ownHeaders: Readonly<Record<string, string>>
  readonly log: Logger
  readonly observeSignInFailure?: ObserveSignInFailure
  /** Epoch ms. */
  readonly monotonicNow: () => number
}

/** Where a sign-in begins and ends, by the names of the request log. */
const SIGN_IN_ROUTES: ReadonlySet<string | undefined> = new Set([
  ...['bff/login', 'bff/callback', 'bff/landing'],
])
const OWN_ENDPOINTS = new Set([
  ...['/login', '/callback', '/landing', '/user', '/logout', '/end-session', '/logged-out'],
])

/** The public listener as an ordered list; the order is the security policy. */
export function createEdge(deps: EdgeDeps): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.enable('case sensitive routing')
  app.set('query parser', 'simple')
  // RFC 9700 §4.13: the public scheme is configured, so no header can switch off a Secure cookie.
  const protocol = new URL(deps.publicUrl).protocol.slice(0, -1)
  Object.defineProperty(app.request, 'protocol', { get: () => protocol, configurable: true })

  const protect = setHeaders(deps.ownHeaders)
  app.use(beginRequest(deps))
  app.use(deps.cors)
  app.use(literally(deps.basePath), nameOwnRoute(deps), protect, deps.bffRoutes, notFound)
  app.use(forwardOrPass(deps))
  app.use(notFound)
  app.use(answerProblem(deps, protect))
  app.use(lastResort(deps))
  return app
}

/** Express takes a path for a pattern, in which some characters of a plain one mean something. */
function literally(path: string): string {
  return path.replaceAll(/[^\w/.~%-]/g, '\\$&')
}

function beginRequest({ requestLog }: EdgeDeps): RequestHandler {
  return function beginRequestLog(req, res, next) {
    requestLog.begin(req, res)
    next()
  }
}

/** One label for each of our endpoints, and one for all that are none: a label must not grow with what clients make up. */
function nameOwnRoute({ requestLog }: EdgeDeps): RequestHandler {
  return function nameRoute(req, _res, next) {
    requestLog.factsOf(req).route = OWN_ENDPOINTS.has(req.path) ? `bff${req.path}` : 'bff'
    next()
  }
}

function setHeaders(fields: Readonly<Record<string, string>>): RequestHandler {
  const entries = Object.entries(fields)
  return function setOwnHeaders(_req, res, next) {
    for (const [name, value] of entries) res.setHeader(name, value)
    next()
  }
}

function forwardOrPass({ forward }: EdgeDeps): RequestHandler {
  return function forwardToUpstream(req, res, next) {
    forward(req, res).then((found) => {
      if (!found) next()
    }, next)
  }
}

const notFound: RequestHandler = function routeNotFound() {
  throw new BffError('route_not_found', 'no route of the configuration matches this path')
}

/** The last step for everything thrown: one log line if it is our defect, one answer in any case. */
function answerProblem(deps: EdgeDeps, protect: RequestHandler): ErrorRequestHandler {
  const tellCause = createCauseLog(deps)
  const tellSignIn = createSignInLog({
    log: deps.log,
    observe: deps.observeSignInFailure ?? (() => undefined),
  })
  return function answerWithProblem(error, req, res, _next) {
    const facts = deps.requestLog.factsOf(req)
    if (error instanceof BffError) facts.code = error.code
    else deps.log.error({ requestId: facts.id, err: describeError(error) }, 'unexpected error')
    if (error instanceof BffError && !res.headersSent) {
      const { id: requestId, route = '' } = facts
      if (SIGN_IN_ROUTES.has(route)) tellSignIn(error, { requestId, route })
      else tellCause(error, requestId)
    }
    if (res.headersSent) {
      // Half an answer must not look like a whole one.
      res.destroy()
      return
    }
    // A route's refusal is our own answer too.
    protect(req, res, () => undefined)
    const answer = problemAnswer(error, { requestId: facts.id, loginUrl: deps.loginUrlFor() })
    // What is left of a request body is not read: the connection cannot serve another request.
    if (!req.complete && hasBody(req)) res.setHeader('connection', 'close')
    res.status(answer.status)
    // An answer that failed in the middle of its head has left a reason of its own.
    res.statusMessage = STATUS_CODES[answer.status] ?? ''
    if (facts.variesByCookie) res.appendHeader('vary', 'Cookie')
    for (const [name, value] of Object.entries(answer.headers)) {
      // Beside what CORS has said already.
      if (name === 'vary') res.appendHeader(name, value)
      else res.setHeader(name, value)
    }
    if (wantsPage(req, deps.basePath)) {
      const title = (JSON.parse(answer.body) as { title: string }).title
      const code = error instanceof BffError ? error.code : 'internal_error'
      sendPage(res, failedSignInPage({ title, code, requestId: facts.id, ...retryOf(error, req, deps) }))
      return
    }
    res.end(answer.body)
  }
}

/** For a fault in the answer itself: Express would show its stack to the browser, and all that it carries on the console. */
function lastResort({ log }: EdgeDeps): ErrorRequestHandler {
  return function endWithoutWords(error, _req, res, _next) {
    log.error({ err: describeError(error) }, 'the answer to an error failed')
    if (res.headersSent) res.destroy()
    else res.status(500).end()
  }
}

/** RFC 9112 §6: either header says that a body follows; without one Node calls a request complete a moment late. */
function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** What a person can do about a failed sign-in without losing the way back to where it began. */
function retryOf(
  error: unknown,
  req: Request,
  { basePath, loginUrlFor, requestLog }: EdgeDeps,
): { retryUrl: string; retryLabel?: string } {
  const { returnUrl } = requestLog.factsOf(req)
  const code = error instanceof BffError ? error.code : undefined
  if (code === 'bad_request' && returnUrl !== undefined) {
    // A step-up is asked for anew by what needed it.
    return { retryUrl: returnUrl, retryLabel: 'Back to the application' }
  }
  const isLogin = req.originalUrl.startsWith(`${basePath}/login?`)
  if (isLogin && code !== 'invalid_return_url') return { retryUrl: req.originalUrl }
  if (returnUrl !== undefined) return { retryUrl: loginUrlFor(returnUrl) }
  // Nothing was used up: the response of the provider can be brought once more, by the URL that the page has.
  const isUntouched = code === 'store_unavailable' || code === 'rate_limited'
  return { retryUrl: isUntouched && !isLogin ? '' : loginUrlFor() }
}

/** A person is looking only where a navigation ends at one of our own endpoints. */
function wantsPage({ originalUrl, headers }: Request, basePath: string): boolean {
  const path = originalUrl.split('?', 1)[0]
  const isNavigation = ['/login', '/callback', '/landing'].some((end) => path === basePath + end)
  return isNavigation && headers.accept?.includes('text/html') === true
}
