import type { IncomingMessage } from 'node:http'
import type { AccessRules, BearerConfig, RouteConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import { type BffSession, sessionOfBearer } from '../session/session.ts'
import type { BearerToken } from '../tokens/bearer-exchange.ts'
import type { AccessToken } from '../tokens/record/sealing.ts'
import type { AccessCheck } from './access-rules.ts'

/** Who calls with an access token of her own, and the token that the upstream gets. */
export type BearerCaller = { readonly session: BffSession; readonly token: AccessToken }

/**
 * Who calls with an access token of her own; undefined for a request that brings none. Throws or rejects with bad_request,
 * origin_forbidden, session_required (`invalid_token`), access_denied, reauthentication_required, rate_limited, and what
 * an exchange of the token rejects with.
 */
export type FindBearerCaller = (req: IncomingMessage, route: RouteConfig) => Promise<BearerCaller> | undefined

export type BearerDeps = {
  /** Whether the request has a session cookie, of whatever worth. */
  readonly hasSessionCookie: (req: IncomingMessage) => boolean
  /** Throws origin_forbidden. */
  readonly requireOrigin: (req: IncomingMessage) => void
  readonly verify: (token: string, rules: BearerConfig, client: string) => Promise<BearerToken>
  /** Another token for the resource, in exchange. */
  readonly exchange: (bearer: BearerToken, resource: string) => Promise<AccessToken>
  readonly accessRefusal: AccessCheck
  /** Names the client of a request, for limits. */
  readonly clientOf: (req: IncomingMessage) => string
  readonly invalidToken: (logged: { readonly claim: string }) => BffError
  /** Epoch ms. */
  readonly now: () => number
}

/**
 * Makes the way in for clients that are no browser: a command line, a native application, another service (contract section
 * 4b). No browser adds such a token by itself, so no CSRF header is asked for; a foreign origin is refused all the same.
 */
export function createFindBearerCaller(deps: BearerDeps): FindBearerCaller {
  async function admitted(req: IncomingMessage, route: RouteConfig, value: string): Promise<BearerCaller> {
    const bearer = await deps.verify(value, route.bearer!, deps.clientOf(req))
    const session = sessionOfBearer(bearer, deps.now())
    const own = { value, expiresAt: bearer.expiresAt, renewAt: bearer.expiresAt }
    if (route.require) requireAccess({ ...route, require: route.require }, session, own)
    return { session, token: route.bearer!.isExchanged ? await deps.exchange(bearer, route.resource!) : own }
  }

  function requireAccess(
    route: RouteConfig & { readonly require: AccessRules },
    session: BffSession,
    token: AccessToken,
  ): void {
    const refusal = deps.accessRefusal(route, session, token)
    if (refusal) throw asChallenge(refusal, route.require)
  }

  return function findBearerCaller(req, route) {
    const presented = presentedToken(req)
    if (presented === undefined) return undefined
    deps.requireOrigin(req)
    // Whatever either is worth: a page that sends an empty token of its own is no client whose token is bad.
    if (deps.hasSessionCookie(req)) {
      throw new BffError('bad_request', 'a request has a session cookie or an access token, not both')
    }
    return admitted(req, route, requireForm(presented, deps.invalidToken))
  }
}

type Presented = { readonly scheme: string; readonly value: string }

/** The credentials of a request; undefined without any: other schemes are none here, and are dropped as ever. */
function presentedToken({ headers, rawHeaders }: IncomingMessage): Presented | undefined {
  const { authorization } = headers
  if (authorization === undefined) return undefined
  // Node gives the first of several.
  const count = rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === 'authorization').length
  if (count > 1) throw new BffError('bad_request', 'Authorization is there more than once')
  const [scheme = '', ...rest] = authorization.split(' ')
  if (!/^(?:bearer|dpop)$/i.test(scheme)) return undefined
  return { scheme: scheme.toLowerCase(), value: rest.join(' ').trim() }
}

/** RFC 6750 §2.1. */
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/

function requireForm({ scheme, value }: Presented, invalidToken: BearerDeps['invalidToken']): string {
  if (!TOKEN.test(value)) throw invalidToken({ claim: 'form' })
  // RFC 9449 §7.1: such a token is bound to a key, and its proof is for this origin, which the upstream is not.
  if (scheme === 'dpop') throw invalidToken({ claim: 'cnf' })
  return value
}

/** A refusal of access rules for a client that has no browser to sign in with (RFC 6750 §3.1, RFC 9470 §3). */
function asChallenge(refusal: BffError, { acr, maxAgeMs, scopes }: AccessRules): BffError {
  const { code, message, details, logged } = refusal
  const parameters: Record<string, string> = { error: String(details?.reason) }
  if (code === 'reauthentication_required') {
    if (acr) parameters.acr_values = acr.join(' ')
    if (maxAgeMs !== undefined) parameters.max_age = String(Math.max(1, Math.floor(maxAgeMs / 1000)))
  } else if (details?.reason === 'insufficient_scope') parameters.scope = scopes!.join(' ')
  else return refusal
  const challenge = Object.entries(parameters).map(
    ([name, value]) => `${name}="${value.replace(/["\\]/g, '')}"`,
  )
  const headers = { 'www-authenticate': `Bearer ${challenge.join(', ')}` }
  return new BffError(code, message, { details, logged, headers, offersLogin: false })
}
