import { BffError } from '../errors.ts'
import type { GrantedTokens } from '../oidc/grant-types.ts'
import type { BffSession } from '../session/bff-session.ts'
import type { Sessions } from '../session/session.ts'
import type { FinishSignIn } from './callback.ts'

export type FinishSignInDeps = {
  /** `B/callback` as the provider knows it; never built from request headers (RFC 9700 §2.1). */
  readonly redirectUri: string
  /** Entra `tid` allow-list; empty = not checked. */
  readonly allowedTenants: readonly string[]
  readonly sessions: Sessions
  readonly codeGrant: (
    callback: URL,
    attempt: { state: string; nonce: string; codeVerifier: string },
  ) => Promise<GrantedTokens>
  /** Keeps the tokens of a new session, unopened here. */
  readonly keepTokens: (session: BffSession, granted: GrantedTokens) => Promise<void>
  /** Ends the session that this sign-in replaces. */
  readonly endReplaced: (hash: BffSession['hash']) => Promise<void>
  /** Takes back a session whose tokens could not be kept. */
  readonly discard: (session: BffSession) => Promise<void>
  readonly observe: (outcome: 'started' | 'replaced') => void
}

/** Completes a sign-in: code, ID token, tenant, new session id, tokens, and the end of the session before. */
export function createFinishSignIn(deps: FinishSignInDeps): FinishSignIn {
  return async function finishSignIn(req, res, { attempt, query }) {
    const granted = await deps.codeGrant(new URL(deps.redirectUri + query), attempt)
    const { claims, idToken } = granted
    if (!claims || !idToken) throw new BffError('invalid_callback', 'the provider sent no ID token')
    requireTenant(claims.tid, deps.allowedTenants)
    const session = await deps.sessions.signIn(req, res, { claims, idToken })
    try {
      await deps.keepTokens(session, granted)
    } catch (error) {
      await deps.discard(session).catch(() => undefined)
      throw error
    }
    deps.observe('started')
    if (attempt.replaces && attempt.replaces !== session.hash) {
      // The new session stands whether or not the old one could be reached: it ends by itself at its timeout.
      await deps.endReplaced(attempt.replaces).then(
        () => deps.observe('replaced'),
        () => undefined,
      )
    }
  }
}

function requireTenant(tenant: unknown, allowed: readonly string[]): void {
  if (allowed.length === 0 || (typeof tenant === 'string' && allowed.includes(tenant))) return
  throw new BffError('access_denied', 'this tenant may not sign in here', { details: { reason: 'tenant' } })
}
