import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Router,
} from 'express'
import { BffError, describeError, SharedRefusal, sharedRefusal } from '../errors.ts'
import type { LogFields, Logger } from '../log.ts'
import { popupIn } from '../oidc/sign-in/return-url.ts'
import type { LoginUrlFor } from './endpoints/login.ts'
import { donePage, failedSignInPage, type Page, sendPage } from './endpoints/pages.ts'
import { oauthErrorAnswer, problemAnswer } from './problem.ts'
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
  const answer = answerOrEnd(deps)
  app.use(forwardOrAnswer(deps, answer))
  app.use(answer)
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

/** Answers a refusal itself, because Express would walk through its list once more to find the error handler. */
function forwardOrAnswer({ forward }: EdgeDeps, answer: ErrorRequestHandler): RequestHandler {
  return function forwardToUpstream(req, res, next) {
    const refuse = (error: unknown) => answer(error, req, res, next)
    const over = (error?: BffError) => void (error && refuse(error))
    const pass = (isFound: boolean) => void (isFound || refuse(routeNotFound()))
    try {
      const found = forward(req, res, over)
      if (found instanceof Promise) found.then(pass, refuse)
      else pass(found)
    } catch (error) {
      refuse(error)
    }
  }
}

function routeNotFound(): BffError {
  return sharedRefusal('route_not_found', 'no route of the configuration matches this path')
}

const notFound: RequestHandler = function refuseUnknown() {
  throw routeNotFound()
}

/** Answers an error; if that fails, the last resort ends the response. */
function answerOrEnd(deps: EdgeDeps): ErrorRequestHandler {
  const answer = answerProblem(deps)
  const end = lastResort(deps)
  return function answerError(error, req, res, next) {
    try {
      answer(error, req, res, next)
    } catch (fault) {
      end(fault, req, res, next)
    }
  }
}

/** Answers everything that was thrown, and logs our own defects. */
function answerProblem(deps: EdgeDeps): ErrorRequestHandler {
  const logProblem = createProblemLog(deps)
  const answerTo = createAnswers(deps)
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
    const { status, reason, fields: common, vary, body: parts } = answerTo(error, facts)
    const fields = [...common]
    const varies = varyOf(vary, { res, facts })
    if (varies !== undefined) fields.push('vary', varies)
    // The rest of a request body is not read, so the connection cannot serve another request.
    const isUnread = !req.complete && hasBody(req)
    if (isUnread && !fields.includes('connection')) fields.push('connection', 'close')
    const body = parts.join(facts.id)
    if (wantsPage(req, deps.basePath)) {
      for (let at = 0; at < fields.length; at += 2) res.setHeader(fields[at]!, fields[at + 1]!)
      // An answer that failed in the middle of its head has left another reason phrase.
      Object.assign(res, { statusCode: status, statusMessage: reason })
      sendPage(res, failurePage(error, req, { deps, title: titleIn(body) }))
      return
    }
    const length = Buffer.byteLength(body)
    fields.push('Content-Length', String(length))
    // ASCII is written as Latin-1, which costs less than to make UTF-8 of it.
    res.writeHead(status, reason, fields).end(body, length === body.length ? 'latin1' : 'utf8')
  }
}

/** The answer to an error, without what depends on the request. */
type ErrorAnswer = {
  readonly status: number
  readonly reason: string
  /**
   * A flat list of names and values: to set them one by one costs twice as much. The refusal of a route is our own answer
   * too, and has the security headers.
   */
  readonly fields: readonly string[]
  readonly vary: string | undefined
  /** JSON text; where there are two parts, the request id goes between them. */
  readonly body: readonly string[]
}

/** Stands for the request id in an answer that is made once; and the same as JSON writes it. */
const ANY_ID = '\0'
const ANY_ID_TEXT = '\\u0000'

/** Makes the answers to errors. The answer to a `SharedRefusal` is made once. */
function createAnswers({ loginUrlFor, securityHeaders }: EdgeDeps) {
  const shared = new WeakMap<SharedRefusal, ErrorAnswer>()

  function make(problemOf: typeof problemAnswer, error: unknown, requestId: string): ErrorAnswer {
    const { status, headers, body } = problemOf(error, { requestId, loginUrl: loginUrlFor() })
    const { vary, ...others } = headers
    const fields = [...securityHeaders.besideProblems, ...Object.entries(others).flat()]
    const parts = requestId === ANY_ID ? body.split(ANY_ID_TEXT) : [body]
    return { status, reason: STATUS_CODES[status] ?? '', fields, vary, body: parts }
  }

  return function answerTo(error: unknown, { id, route }: RequestFacts): ErrorAnswer {
    if (OAUTH_ERROR_ROUTES.has(route)) return make(oauthErrorAnswer, error, id)
    if (!(error instanceof SharedRefusal)) return make(problemAnswer, error, id)
    const answer = shared.get(error) ?? make(problemAnswer, error, ANY_ID)
    shared.set(error, answer)
    return answer
  }
}

/** The `Vary` of an answer: what CORS has set, what its route looks at, and its own. */
function varyOf(
  own: string | undefined,
  { res, facts }: { res: ServerResponse; facts: RequestFacts },
): string | undefined {
  const set = res.getHeader('vary')
  const ofRoute = facts.variesByAuthorization ? 'Cookie, Authorization' : 'Cookie'
  const looked = facts.variesByCookie ? ofRoute : undefined
  if (set === undefined && own === undefined) return looked
  const all = [set ?? [], looked ?? [], own ?? []].flat()
  return all.join(', ')
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
