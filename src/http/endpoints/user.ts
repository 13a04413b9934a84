import type { RequestHandler } from 'express'
import { BffError } from '../../errors.ts'
import { type BffSession, isBackground, type Sessions } from '../../session/session.ts'
import type { RequireSameOrigin } from '../origins.ts'

export type UserDeps = {
  readonly basePath: string
  readonly sessions: Pick<Sessions, 'find' | 'peek'>
  readonly requireSameOrigin: RequireSameOrigin
  /** Epoch ms. */
  readonly now: () => number
}

/** Makes `B/user`: the claims of the signed-in user and facts of the session (contract section 4). */
export function createUser({ basePath, sessions, requireSameOrigin, now }: UserDeps): RequestHandler {
  return async function user(req, res) {
    requireSameOrigin(req, { auth: 'required', csrf: 'header' })
    const slides = req.query.slide !== 'false' && !isBackground(req)
    const session = await (slides ? sessions.find(req) : sessions.peek(req))
    if (session) {
      const secondsUntil = (endsAt: number) => Math.max(0, Math.floor((endsAt - now()) / 1000))
      res.json({
        ...presentableClaims(session.claims),
        'bff:session_expires_in': secondsUntil(session.expiresAt),
        'bff:session_idle_expires_in': secondsUntil(session.idleExpiresAt),
        'bff:session_absolute_expires_in': secondsUntil(session.absoluteExpiresAt),
        'bff:logout_url': `${basePath}/logout?sid=${session.logoutHandle}`,
      })
    } else if (req.query.anonymous === '204') res.status(204).end()
    else throw new BffError('session_required', 'nobody is signed in')
  }
}

/** Claims that serve the protocol and tell an application nothing. */
const PROTOCOL_CLAIMS = new Set(['nonce', 'at_hash', 'c_hash', 's_hash'])
/** Some providers put tokens into claims: their own upstream's, or those of distributed claims (OpenID Connect Core §5.6.2). */
const TOKEN_NAMES = /(?:^|[_.:-])(?:access|refresh|id|logout|assertion)_?token$|^jwt$/i
/** A compact JWS or JWE: its header is JSON, which begins with `{"`. */
const COMPACT_JWT = /^eyJ[\w-]*(?:\.[\w-]*){2,4}$/

/** The claims that may be shown: never a token, however deep a provider has put it. */
function presentableClaims(claims: BffSession['claims']): Record<string, unknown> {
  const shown = Object.entries(claims).filter(([name]) => !PROTOCOL_CLAIMS.has(name))
  return withoutTokens(Object.fromEntries(shown)) as Record<string, unknown>
}

function withoutTokens(value: unknown): unknown {
  if (Array.isArray(value)) return value.filter((one) => !isToken(one)).map(withoutTokens)
  if (typeof value !== 'object' || value === null) return value
  const kept = Object.entries(value).filter(([name, one]) => !TOKEN_NAMES.test(name) && !isToken(one))
  return Object.fromEntries(kept.map(([name, one]) => [name, withoutTokens(one)]))
}

function isToken(value: unknown): boolean {
  return typeof value === 'string' && COMPACT_JWT.test(value)
}
