import type { BffSession } from '../../session/bff-session.ts'

/** Members of an ID token that serve the protocol and tell an application nothing. */
const PROTOCOL_CLAIMS = new Set(['nonce', 'at_hash', 'c_hash', 's_hash'])
/** Providers put tokens into claims: of their own users elsewhere, of distributed claims (OpenID Connect Core §5.6.2). */
const TOKEN_NAMES = /(?:^|[_.:-])(?:access|refresh|id|logout|assertion)_?token$|^jwt$/i
/** A compact JWS or JWE: its head is JSON, which begins with `{"`. */
const COMPACT_JWT = /^eyJ[\w-]*(?:\.[\w-]*){2,4}$/

/** What `B/user` says of a session (contract section 4). @param now epoch ms. */
export function userAnswer(session: BffSession, basePath: string, now: number): Record<string, unknown> {
  return {
    ...presentableClaims(session.claims),
    'bff:session_expires_in': Math.max(0, Math.floor((session.expiresAt - now) / 1000)),
    'bff:logout_url': `${basePath}/logout?sid=${session.logoutHandle}`,
  }
}

/** The claims that may be shown: never a token, wherever a provider has put one. */
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
