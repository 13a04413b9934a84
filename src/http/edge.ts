import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Router,
} from 'express'
import { BffError, describeError } from '../errors.ts'
import type { LogFields, Logger } from '../log.ts'
import { popupIn } from '../oidc/sign-in/return-url.ts'
import type { LoginUrlFor } from './endpoints/login.ts'
import { donePage, failedSignInPage, type Page, sendPage } from './endpoints/pages.ts'
import { oauthErrorAnswer, type ProblemAnswer, problemAnswer } from './problem.ts'
import {
  createCauseLog,
  createFailedSignInLog,
  type ObserveSignInFailure,
  type RequestFacts,
  type RequestLog,
  runFor,
  writeHead,
} from './request-log.ts'
import type { SecurityHeaders } from './security-headers.ts'
import { hasBody } from './server/request-guard.ts'

export type EdgeDeps = {
  readonly publicUrl: string
  readonly basePath: string
  readonly requestLog: RequestLog
  readonly bffRoutes: Router
  readonly loginUrlFor: LoginUrlFor
  readonly cors: RequestHandler
  /** Forwards a request to its upstream; false when no route matches. `over` is told of what is not thrown. */
  readonly forward: (
    req: IncomingMessage,
    res: ServerResponse,
    over: (error?: BffError) => void,
  ) => boolean | Promise<boolean>
  readonly securityHeaders: SecurityHeaders
  readonly log: Logger
  readonly observeSignInFailure?: ObserveSignInFailure
  /** Milliseconds. */
  readonly monotonicNow: () => number
}

/** The routes of a sign-in, by their names in the request log. */
const SIGN_IN_ROUTES: ReadonlySet<string | undefined> = new Set([
  ...['bff/login', 'bff/callback', 'bff/callback/finish', 'bff/landing'],
])
/** Their specifications have errors of their own. */
const OAUTH_ERROR_ROUTES: ReadonlySet<string | undefined> = new Set(['bff/backchannel-logout'])
const OWN_ENDPOINTS = new Set([
  ...['/ssf/events', '/global-token-revocation'],
  ...[
    '/login',
    '/callback',
    '/callback/finish',
    '/landing',
    '/user',
    '/sessions',
    '/logout',
    '/end-session',
    '/logged-out',
    '/backchannel-logout',
    '/frontchannel-logout',
    '/done',
    '/client.js',
  ],
])

/** The Express app of the public listener as an ordered list; the order is the security policy. */
export function createEdge(deps: EdgeDeps): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.enable('case sensitive routing')
  app.set('query parser', 'simple')
  // RFC 9700 §4.13: the public scheme is configured, so no header can switch off a Secure cookie.
  const protocol = new URL(deps.publicUrl).protocol.slice(0, -1)
  Object.defineProperty(app.request, 'protocol', { get: () => protocol, configurable: true })

  // Express's own is that of Node.
  Object.assign(app.response, { writeHead })

  app.use(beginRequest(deps))
  app.use(deps.cors)
  app.use(
    literally(deps.basePath),
    beginOwnRoute(deps),
    deps.securityHeaders.middleware,
    deps.bffRoutes,
    notFound,
  )
  app.use(forwardOrPass(deps))
  app.use(notFound)
  app.use(answerProblem(deps))
  app.use(lastResort(deps))
  return app
}

/** Escapes the characters that have a meaning in a path pattern of Express. */
function literally(path: string): string {
  return path.replaceAll(/[^\w/.~%-]/g, '\\$&')
}

function beginRequest({ requestLog }: EdgeDeps): RequestHandler {
  return function beginRequestLog(req, res, next) {
    requestLog.begin(req, res)
    next()
  }
}

/** One label for each of our endpoints, and one for all other paths: clients must not add labels. */
function beginOwnRoute({ requestLog }: EdgeDeps): RequestHandler {
  return function beginRoute(req, _res, next) {
    const path = req.path.startsWith('/sessions/') ? '/sessions' : req.path
    requestLog.factsOf(req).route = OWN_ENDPOINTS.has(path) ? `bff${path}` : 'bff'
    runFor(req, next)
  }
}

function forwardOrPass({ forward }: EdgeDeps): RequestHandler {
  return function forwardToUpstream(req, res, next) {
    const found = forward(req, res, (error) => void (error && next(error)))
    if (found instanceof Promise) found.then((isFound) => void (isFound || next()), next)
    else if (!found) next()
  }
}

const notFound: RequestHandler = function routeNotFound() {
  throw new BffError('route_not_found', 'no route of the configuration matches this path')
}

/** Answers everything that was thrown, and logs our own defects. */
function answerProblem(deps: EdgeDeps): ErrorRequestHandler {
  const logProblem = createProblemLog(deps)
  return function answerWithProblem(error, req, res, _next) {
    const facts = deps.requestLog.factsOf(req)
    if (error instanceof BffError) noteRefusal(facts, error)
    else facts.code = 'internal_error'
    logProblem(error, { isAnswered: res.headersSent, facts })
    if (res.headersSent) {
      // Half an answer must not look complete.
      res.destroy()
      return
    }
    const answerTo = OAUTH_ERROR_ROUTES.has(facts.route) ? oauthErrorAnswer : problemAnswer
    const answer = answerTo(error, { requestId: facts.id, loginUrl: deps.loginUrlFor() })
    const { status, body } = answer
    const fields = refusalFields(res, answer, { facts, own: deps.securityHeaders.besideProblems })
    // The rest of a request body is not read, so the connection cannot serve another request.
    const isUnread = !req.complete && hasBody(req)
    if (isUnread && answer.headers.connection === undefined) fields.push('connection', 'close')
    const reason = STATUS_CODES[status] ?? ''
    if (wantsPage(req, deps.basePath)) {
      for (let at = 0; at < fields.length; at += 2) res.setHeader(fields[at]!, fields[at + 1]!)
      // An answer that failed in the middle of its head has left another reason phrase.
      Object.assign(res, { statusCode: status, statusMessage: reason })
      sendPage(res, failurePage(error, req, { deps, title: titleIn(body) }))
      return
    }
    fields.push('Content-Length', String(Buffer.byteLength(body)))
    res.writeHead(status, reason, fields).end(body)
  }
}

/**
 * The fields of a refusal as a flat list: to set them one by one costs twice as much. The refusal of a route is our own
 * answer too, and has the security headers.
 */
function refusalFields(
  res: ServerResponse,
  { headers }: ProblemAnswer,
  { facts, own }: { readonly facts: RequestFacts; readonly own: readonly string[] },
): string[] {
  const fields = [...own]
  // CORS may have set a `Vary`.
  const vary = [res.getHeader('vary') ?? []].flat()
  if (facts.variesByCookie) vary.push(facts.variesByAuthorization ? 'Cookie, Authorization' : 'Cookie')
  for (const name in headers) {
    if (name === 'vary') vary.push(headers[name]!)
    else fields.push(name, headers[name]!)
  }
  if (vary.length > 0) fields.push('vary', vary.join(', '))
  return fields
}

function titleIn(problem: string): string {
  return (JSON.parse(problem) as { title: string }).title
}

/** A popup tells the tab that opened it, and closes; else a person reads what happened and can try again. */
function failurePage(error: unknown, req: Request, { deps, title }: { deps: EdgeDeps; title: string }): Page {
  const { id: requestId, returnUrl } = deps.requestLog.factsOf(req)
  const code = error instanceof BffError ? error.code : 'internal_error'
  // What is refused before the login has read it, as by a rate limit, has it in its query.
  const done = popupIn(returnUrl ?? String(req.query.returnUrl), deps.basePath)
  if (done === undefined) return failedSignInPage({ title, code, requestId, ...retryOf(error, req, deps) })
  const reason = error instanceof BffError ? error.details?.reason : undefined
  return donePage(deps.basePath, {
    ...{ done, code, 'request-id': requestId },
    ...(reason === undefined ? {} : { reason: String(reason) }),
  })
}

function noteRefusal(facts: RequestFacts, { code, details, logged }: BffError): void {
  facts.code = code
  const { claim, offsetSeconds, keyId, subject } = (logged ?? {}) as LogFields
  const reason = details?.reason === undefined ? undefined : String(details.reason)
  if (reason ?? claim) facts.refusal = { reason, claim, offsetSeconds, keyId }
  if (subject) facts.subject = subject
}

/** Logs our own defects, failed sign-ins, and what caused the other problems. */
function createProblemLog({ log, monotonicNow, observeSignInFailure }: EdgeDeps) {
  const logCause = createCauseLog({ log, monotonicNow })
  const logFailedSignIn = createFailedSignInLog({
    log,
    observe: observeSignInFailure ?? (() => undefined),
  })
  return function logProblem(
    error: unknown,
    { isAnswered, facts }: { isAnswered: boolean; facts: RequestFacts },
  ): void {
    const { id: requestId, route = '' } = facts
    if (!(error instanceof BffError))
      log.error({ request_id: requestId, err: describeError(error) }, 'unexpected error')
    else if (isAnswered) return
    else if (SIGN_IN_ROUTES.has(route)) logFailedSignIn(error, { requestId, route })
    else logCause(error, requestId)
  }
}

/** For a fault in the error handler itself: Express would show its stack to the browser, and everything on it on the console. */
function lastResort({ log }: EdgeDeps): ErrorRequestHandler {
  return function endWithoutBody(error, _req, res, _next) {
    log.error({ err: describeError(error) }, 'the answer to an error failed')
    if (res.headersSent) res.destroy()
    else res.status(500).end()
  }
}

/** Where the link of the failure page leads: the retry keeps the place where the sign-in began. */
function retryOf(
  error: unknown,
  req: Request,
  { basePath, loginUrlFor, requestLog }: EdgeDeps,
): { retryUrl: string; retryLabel?: string } {
  const { returnUrl } = requestLog.factsOf(req)
  const code = error instanceof BffError ? error.code : undefined
  if (code === 'bad_request' && returnUrl !== undefined) {
    // The application asks for a new step-up.
    return { retryUrl: returnUrl, retryLabel: 'Back to the application' }
  }
  const isLogin = req.originalUrl.startsWith(`${basePath}/login?`)
  if (isLogin && code !== 'invalid_return_url') return { retryUrl: req.originalUrl }
  if (returnUrl !== undefined) return { retryUrl: loginUrlFor(returnUrl) }
  // Nothing was used up: reloading this page presents the provider's response once more.
  const isUntouched = code === 'store_unavailable' || code === 'rate_limited'
  const isRepeatable = isUntouched && !isLogin && req.method === 'GET'
  return { retryUrl: isRepeatable ? '' : loginUrlFor() }
}

/** Only a navigation to one of these endpoints shows a page to a person. */
function wantsPage({ originalUrl, headers }: Request, basePath: string): boolean {
  if (headers.accept?.includes('text/html') !== true) return false
  const path = originalUrl.split('?', 1)[0]
  return ['/login', '/callback', '/callback/finish', '/landing'].some((end) => path === basePath + end)
}
