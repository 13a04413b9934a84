import { BffError, type StepUp } from '../errors.ts'
import type { GrantedTokens } from '../oidc/grant-types.ts'
import type { BeginSignIn, LoginAttempt } from '../oidc/login.ts'
import { scopeList } from '../oidc/scopes.ts'
import { type AskedStepUp, stepUpFingerprint } from '../oidc/step-up.ts'
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
    stepUp: StepUp | undefined,
  ) => Promise<GrantedTokens>
  /** Begins it again, with consent, if that may bring the refresh token that is missing. */
  readonly repeatForRefreshToken: (
    attempt: LoginAttempt,
    granted: GrantedTokens,
  ) => Promise<Awaited<ReturnType<BeginSignIn>> | undefined>
  /** Keeps the tokens of a new session, unopened here. */
  readonly keepTokens: (
    session: BffSession,
    granted: GrantedTokens,
    stepUp: StepUp | undefined,
  ) => Promise<void>
  /** Ends a session that this sign-in replaces; false when there was none. */
  readonly endReplaced: (hash: BffSession['hash']) => Promise<boolean>
  /** Takes back a session whose tokens could not be kept. */
  readonly discard: (session: BffSession) => Promise<void>
  readonly observe: (outcome: 'started' | 'replaced') => void
}

/** Completes a sign-in: code, ID token, tenant, new session id, tokens, and the end of the session before. */
export function createFinishSignIn(deps: FinishSignInDeps): FinishSignIn {
  return async function finishSignIn(req, res, { attempt, query }) {
    const { asked, indicators, scopes } = attempt
    const granted = await deps.codeGrant(new URL(deps.redirectUri + query), attempt, asked?.stepUp)
    const { claims, idToken } = granted
    if (!claims || !idToken) throw new BffError('invalid_callback', 'the provider sent no ID token')
    requireTenant(claims.tid, deps.allowedTenants)
    if (asked) requireStepUp(claims, asked)
    const repetition = await deps.repeatForRefreshToken(attempt, granted)
    if (repetition) return repetition
    const steppedUp = asked && [stepUpFingerprint(asked.stepUp)]
    const replaced = new Set([attempt.replaces, deps.sessions.named(req)])
    const user = { claims, idToken, steppedUp, indicators, scopes, granted: scopeList(granted.scope) }
    const session = await deps.sessions.signIn(req, res, user)
    try {
      await deps.keepTokens(session, granted, asked?.stepUp)
    } catch (error) {
      deps.sessions.withdraw(req)
      await deps.discard(session).catch(() => undefined)
      throw error
    }
    deps.observe('started')
    for (const hash of replaced) {
      // The new session stands whether or not an old one could be reached: that ends by itself at its timeout.
      const ended = hash && (await deps.endReplaced(hash).catch(() => false))
      if (ended) deps.observe('replaced')
    }
    return undefined
  }
}

/** RFC 9470 §5: a sign-in for one user's session must not come back as another's, nor weaker than it was asked for. */
function requireStepUp(claims: { sub: string; acr?: unknown }, { stepUp, sub }: AskedStepUp): void {
  const refused = (reason: string) =>
    new BffError('invalid_callback', 'the sign-in is not the one that was asked for', { details: { reason } })
  if (claims.sub !== sub) throw refused('other_user')
  const wanted = stepUp.acrValues?.split(' ')
  // Providers need not tell the `acr`; one that tells another than asked for has not done it.
  if (wanted && typeof claims.acr === 'string' && !wanted.includes(claims.acr)) throw refused('acr')
}

function requireTenant(tenant: unknown, allowed: readonly string[]): void {
  if (allowed.length === 0 || (typeof tenant === 'string' && allowed.includes(tenant))) return
  throw new BffError('access_denied', 'this tenant may not sign in here', { details: { reason: 'tenant' } })
}
