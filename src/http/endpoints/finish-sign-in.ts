import type { Request } from 'express'
import { BffError, describeError, type StepUp, stepUpFingerprint } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { scopeList } from '../../oidc/grants/scopes.ts'
import type { LoginAttempt, PreviousSession } from '../../oidc/sign-in/attempts.ts'
import type { BeginSignIn, BegunSignIn } from '../../oidc/sign-in/authorization.ts'
import type { AskedStepUp } from '../../oidc/sign-in/step-up.ts'
import type { AuthorizationChecks } from '../../oidc/token-endpoint/openid-client.ts'
import type { GrantedTokens } from '../../oidc/token-endpoint/token-requests.ts'
import type { BffSession, Sessions } from '../../session/session.ts'
import type { EndPreviousSessions, FinishSignIn } from './callback.ts'

export type FinishSignInDeps = {
  /** `B/callback` as the provider knows it; never built from request headers (RFC 9700 §2.1). */
  readonly redirectUri: string
  /** Entra `tid` allow-list; empty = not checked. */
  readonly allowedTenants: readonly string[]
  readonly sessions: Pick<Sessions, 'signIn' | 'withdraw'>
  readonly codeGrant: (
    callback: URL,
    attempt: AuthorizationChecks,
    stepUp: StepUp | undefined,
  ) => Promise<GrantedTokens>
  /** Told of each attempt that failed at the provider, or at a check of its answer. */
  readonly noteFailed?: (attempt: LoginAttempt, error: unknown) => void
  /** Whether beginning it again, with consent, may bring the refresh token that is missing. */
  readonly isToBeRepeated: (attempt: LoginAttempt, granted: GrantedTokens) => boolean
  readonly beginSignIn: BeginSignIn
  /** Uses up the `challenge` of a login URL. */
  readonly spendChallenge: (challenge: string) => Promise<unknown>
  /** Keeps the tokens of a new session, unopened here. */
  readonly keepTokens: (
    session: BffSession,
    granted: GrantedTokens,
    stepUp: StepUp | undefined,
  ) => Promise<void>
  /** Rejects with `invalid_callback` when the provider has ended this session since the sign-in began. Asked when it exists. */
  readonly requireNotEnded: (claims: BffSession['claims'], endingsBefore: number) => Promise<void>
  /** Takes back a session whose tokens could not be kept. */
  readonly discard: (session: BffSession) => Promise<void>
  /** Told of each session that began, and of the step-up that it was for. */
  readonly observe: (req: Request, session: BffSession, asked: AskedStepUp | undefined) => void
}

/** Completes a sign-in: code, ID token, tenant, new session id, tokens. */
export function createFinishSignIn(deps: FinishSignInDeps): FinishSignIn {
  return async function finishSignIn(req, res, { attempt, query }) {
    const { asked, indicators, scopes } = attempt
    const callback = new URL(deps.redirectUri + query)
    const granted = await deps.codeGrant(callback, attempt, asked?.stepUp).catch((error) => {
      deps.noteFailed?.(attempt, error)
      throw error
    })
    const { claims, idToken, userinfo } = granted
    if (!claims || !idToken) throw new BffError('invalid_callback', 'the provider sent no ID token')
    requireTenant(claims.tid, deps.allowedTenants)
    if (asked) requireStepUp(claims, asked)
    if (deps.isToBeRepeated(attempt, granted)) return { repetition: await repeat(deps, attempt) }
    // Now it is spent. One who began twice with it may finish both, for each attempt is good once in its own browser.
    if (asked?.challenge !== undefined) await deps.spendChallenge(asked.challenge)
    const steppedUp = asked && [stepUpFingerprint(asked.stepUp)]
    const user = {
      ...{ claims, idToken, userinfo, indicators, scopes, granted: scopeList(granted.scope) },
      ...{ steppedUp, earlierStepUps: asked?.earlier },
      refreshTokenExpiresAt: granted.refreshToken ? granted.refreshTokenExpiresAt : undefined,
    }
    const session = await deps.sessions.signIn(req, res, user)
    try {
      await Promise.all([
        deps.keepTokens(session, granted, asked?.stepUp),
        deps.requireNotEnded(claims, attempt.endingsBefore),
      ])
    } catch (error) {
      deps.sessions.withdraw(req)
      await deps.discard(session).catch(() => undefined)
      throw error
    }
    deps.observe(req, session, asked)
    return { session }
  }
}

/** The same sign-in once more, with consent. */
function repeat({ beginSignIn }: FinishSignInDeps, attempt: LoginAttempt): Promise<BegunSignIn> {
  const { returnUrl, previous, hadCookie, beganAtRoute, asked, loginHint, params } = attempt
  const same = { returnUrl, previous, hadCookie, beganAtRoute, asked, loginHint, params }
  return beginSignIn({ ...same, isRepeated: true })
}

/** Both end a session and resolve with false when there was none any more. */
export type EndPreviousSessionsDeps = {
  /** Ends the oldest sessions of a user who has too many. Asked last: a session that the new one replaces does not count. */
  readonly endOldest: (claims: BffSession['claims']) => Promise<unknown>
  readonly log: Logger
  readonly end: (session: PreviousSession) => Promise<boolean>
  readonly endAndRevoke: (session: PreviousSession) => Promise<boolean>
  readonly observe: (session: PreviousSession) => void
}

/** Makes `endPreviousSessions`. A previous session that cannot be reached now ends at its timeout. */
export function createEndPreviousSessions({
  end,
  endAndRevoke,
  endOldest,
  log,
  observe,
}: EndPreviousSessionsDeps): EndPreviousSessions {
  return async function endPreviousSessions(previous, session, asked) {
    let wasAlive = false
    for (const one of previous) {
      const ending = mayShareGrant(one, session, asked) ? end(one) : endAndRevoke(one)
      const ended = await ending.catch(() => false)
      if (ended) observe(one)
      wasAlive ||= ended
    }
    await endOldest(session.claims).catch((error) =>
      log.warn({ err: describeError(error) }, 'session.maxPerUser was passed over: the next sign-in looks'),
    )
    return wasAlive
  }
}

/**
 * Some providers keep one grant for all sign-ins of one of their own sessions: revoking the previous refresh token would
 * revoke the new one with it (RFC 7009 §2.1). Equal `sid`s tell such sign-ins; without a `sid`, a step-up of the same user
 * is one.
 */
function mayShareGrant(previous: PreviousSession, { claims }: BffSession, asked: unknown): boolean {
  if (previous.sub !== claims.sub) return false
  const areNamed = previous.sid !== undefined && claims.sid !== undefined
  return areNamed ? previous.sid === claims.sid : asked !== undefined
}

/** RFC 9470 §5: a step-up of one user must not come back as another user, nor with a weaker authentication than asked for. */
function requireStepUp(claims: { sub: string; acr?: unknown }, { stepUp, sub }: AskedStepUp): void {
  const refused = (reason: string) =>
    new BffError('invalid_callback', 'the sign-in is not the one that was asked for', { details: { reason } })
  if (claims.sub !== sub) throw refused('other_user')
  const wanted = stepUp.ofRoute ? undefined : stepUp.acrValues?.split(' ')
  // A provider may leave out the `acr`. Another one than asked for means that it did not step up.
  if (wanted && typeof claims.acr === 'string' && !wanted.includes(claims.acr)) throw refused('acr')
}

function requireTenant(tenant: unknown, allowed: readonly string[]): void {
  if (allowed.length === 0 || (typeof tenant === 'string' && allowed.includes(tenant))) return
  throw new BffError('access_denied', 'this tenant may not sign in here', { details: { reason: 'tenant' } })
}
