import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from 'jose'

/** One API of the demo: whose tokens it trusts, for which audience, and what it answers. */
export type DemoApiOptions = {
  /** Expected `iss`. */
  readonly issuer: string
  /** Where the issuer publishes its keys. */
  readonly jwksUrl: string
  /** Expected `aud`; a token for another API is refused. */
  readonly audience: string
  /** A scope the token must have. */
  readonly requiredScope?: string
  /** The business part of the answer to a GET of any path that is no operation. */
  readonly content: (claims: JWTPayload) => Record<string, unknown>
  /** What else it does: the first that matches. */
  readonly operations?: readonly DemoOperation[]
}

/** One operation of an API, called when the token is in order. */
export type DemoOperation = {
  readonly method: string
  /** Path, without the query. */
  readonly path: RegExp
  readonly run: (call: DemoCall) => void | Promise<void>
}

/** A request whose token is in order. */
export type DemoCall = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly sub: string
  /** What the API received, for the answer: claims of the token and names of headers, never the token. */
  readonly received: ReturnType<typeof receivedOf>
}

/**
 * A protected resource as RFC 6750 and RFC 9068 describe it: it checks signature, issuer, audience and expiry of the
 * bearer JWT, and answers with its content and what it received. It never repeats the token, nor any header's value.
 */
export function createDemoApi(options: DemoApiOptions): RequestListener {
  const keys = createRemoteJWKSet(new URL(options.jwksUrl))

  async function verify(req: IncomingMessage): Promise<JWTPayload> {
    const token = /^Bearer ([\w.~+/=-]+)$/i.exec(req.headers.authorization ?? '')?.[1]
    if (!token) throw new Refused(401, undefined, 'a bearer access token is required')
    const { payload } = await jwtVerify(token, keys, {
      issuer: options.issuer,
      audience: options.audience,
      typ: 'at+jwt',
      algorithms: ['RS256'],
    })
    const { requiredScope } = options
    if (
      requiredScope &&
      !String(payload.scope ?? '')
        .split(' ')
        .includes(requiredScope)
    ) {
      throw new Refused(403, 'insufficient_scope', `the scope ${requiredScope} is required`)
    }
    return payload
  }

  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const claims = await verify(req)
    const received = receivedOf(req, claims)
    const path = req.url?.split('?', 1)[0] ?? '/'
    const operation = options.operations?.find((one) => one.method === req.method && one.path.test(path))
    if (operation) return operation.run({ req, res, sub: String(claims.sub), received })
    if (req.method !== 'GET' && req.method !== 'HEAD')
      return refuseCall(res, 405, 'there is nothing to do here')
    sendJson(res, 200, { ...options.content(claims), received })
  }

  return async function demoApi(req, res) {
    try {
      await answer(req, res)
    } catch (error) {
      if (res.headersSent) res.destroy()
      else refuse(res, error)
    } finally {
      req.resume()
    }
  }
}

/** Refuses what the API itself does not take, as opposed to the token (RFC 9457). */
export function refuseCall(res: ServerResponse, status: number, detail: string): void {
  sendJson(res, status, { type: 'about:blank', status, detail }, 'application/problem+json')
}

class Refused extends Error {
  readonly status: number
  /** RFC 6750 §3.1; absent when the request had no credentials at all. */
  readonly oauthError: string | undefined

  constructor(status: number, oauthError: string | undefined, message: string) {
    super(message)
    this.status = status
    this.oauthError = oauthError
  }
}

function receivedOf(req: IncomingMessage, claims: JWTPayload) {
  const { aud, sub, scope, iat, exp, iss } = claims
  return {
    method: req.method,
    path: req.url,
    claims: { iss, aud, sub, scope, iat, exp },
    headerNames: Object.keys(req.headers).sort(),
  }
}

function refuse(res: ServerResponse, error: unknown): void {
  const refused = refusalFor(error)
  const parameters = refused.oauthError
    ? ` error="${refused.oauthError}", error_description="${refused.message}"`
    : ''
  res.setHeader('www-authenticate', `Bearer${parameters}`)
  const title = refused.status === 401 ? 'Unauthorized' : refused.status === 403 ? 'Forbidden' : 'Unavailable'
  const problem = { type: 'about:blank', title, status: refused.status, detail: refused.message }
  sendJson(res, refused.status, problem, 'application/problem+json')
}

function refusalFor(error: unknown): Refused {
  if (error instanceof Refused) return error
  if (error instanceof errors.JWTExpired) return new Refused(401, 'invalid_token', 'the access token expired')
  if (error instanceof errors.JWTClaimValidationFailed) {
    return new Refused(401, 'invalid_token', `the access token has an unexpected ${error.claim}`)
  }
  if (error instanceof errors.JWKSTimeout || !(error instanceof errors.JOSEError)) {
    return new Refused(503, undefined, "the issuer's keys cannot be read")
  }
  return new Refused(401, 'invalid_token', 'the access token is not valid')
}

/** Answers with JSON that no cache keeps. */
export function sendJson(
  res: ServerResponse,
  status: number,
  body: object,
  contentType = 'application/json',
): void {
  res.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' })
  res.end(JSON.stringify(body, null, 2))
}
