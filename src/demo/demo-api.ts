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
  /** The business part of the answer. */
  readonly content: (claims: JWTPayload) => Record<string, unknown>
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

  return async function demoApi(req, res) {
    req.resume()
    try {
      const claims = await verify(req)
      sendJson(res, 200, { ...options.content(claims), received: received(req, claims) })
    } catch (error) {
      refuse(res, error)
    }
  }
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

function received(req: IncomingMessage, claims: JWTPayload) {
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

function sendJson(res: ServerResponse, status: number, body: object, contentType = 'application/json'): void {
  res.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' })
  res.end(JSON.stringify(body, null, 2))
}
