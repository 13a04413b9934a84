import type { ResourceConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { stepUpFingerprint } from '../sign-in/step-up.ts'
import { IdTokenError } from '../token-endpoint/id-token.ts'
import type { FailedGrant } from '../token-endpoint/provider-errors.ts'
import {
  mayHaveUsedRefreshToken,
  problemOf,
  refusalOf,
  signInAgain,
} from '../token-endpoint/provider-errors.ts'
import { isUnexplained, reactionTo, reactionToClient } from '../token-endpoint/reactions.ts'
import type { RelyingParty } from '../token-endpoint/relying-party.ts'
import type { TokenAnswer } from '../token-endpoint/token-answer.ts'
import { claimsParameter, claimsRequest } from './claims-request.ts'
import type { ConfigFaults, GrantOutcome } from './config-faults.ts'
import type { Dialect, SignInGrant } from './dialects.ts'
import { createRecentRenewals } from './recent-renewals.ts'
import { claimsAfterRefresh, type UserClaims } from './refreshed-claims.ts'
import { apiScopes, grantedScopes, scopeList } from './scopes.ts'
import { judgeToken, type TokenFault } from './token-purpose.ts'

const MAX_CLAIMS_LENGTH = 8_192

export type ResourceGrantsDeps = {
  readonly relyingParty: RelyingParty
  readonly dialect: Dialect
  readonly resources: Readonly<Record<string, ResourceConfig>>
  /** Those that sign-ins are for, in the order of the routes. */
  readonly inUse: readonly ResourceConfig[]
  readonly clientCapabilities: readonly string[]
  readonly log: Logger
  readonly monotonicNow: () => number
  readonly note: ConfigFaults['note']
}

/** What a session's sign-in asked for and was granted, and the step-ups that it was for. */
export type SessionGrant = SignInGrant & { readonly steppedUp?: readonly string[] | undefined }

type RefreshRequest = {
  readonly refreshToken: string
  readonly resource: string
  /** Tells one session from another. */
  readonly session?: string
  readonly signIn?: SessionGrant
  readonly keep: (newRefreshToken: string) => Promise<void>
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
}

/** One access token per resource, each asked for by name: from the session's refresh token, or for the client itself. */
export function createResourceGrants(deps: ResourceGrantsDeps) {
  const { relyingParty, dialect, resources, inUse, clientCapabilities, log, note } = deps
  const resourceNamed = (name: string) => requireResource(resources, name)
  const renewals = createRecentRenewals(deps.monotonicNow)

  /** Spends the refresh token once, for one resource; never rejects for what the provider answers. */
  async function refreshGrant(request: RefreshRequest) {
    const resource = resourceNamed(request.resource)
    const claims = claimsRequest(clientCapabilities, request.claims)
    const parameters = dialect.refreshGrant(resource, request.signIn)
    const grant = await relyingParty.refreshGrant(
      request.refreshToken,
      [...parameters, ...claimsParameter(claims)],
      {
        keep: request.keep,
        ignoredIdToken(cause) {
          const logged = cause instanceof IdTokenError ? cause.facts : undefined
          const error = new BffError('provider_rejected', 'the ID token is not sound', { cause, logged })
          note({ resource: resource.name, outcome: 'id_token_ignored', error })
        },
      },
    )
    if ('error' in grant) return refused(grant, { ...request, resource })
    const fault = judgeToken(grant, resource, resources)
    if (fault) {
      const error = notForResource(fault, resource, request.signIn ?? {})
      noteNotForResource(resource, fault, error)
      return { kind: 'refused' as const, error, isMaybeSpent: false }
    }
    note({ resource: resource.name, outcome: 'renewed' })
    renewals.add(resource.name, request.session)
    const { accessToken, obtainedAt, expiresAt, claims: refreshed } = grant
    const asked = scopeList(parameters.find(([name]) => name === 'scope')?.[1])
    return {
      kind: 'renewed' as const,
      accessToken,
      obtainedAt,
      expiresAt,
      subject: grant.claims?.sub ?? grant.unverifiedSubject,
      ...(refreshed && {
        claimsAfter: (before: UserClaims) =>
          claimsAfterRefresh(before, refreshed, asked, request.signIn?.scopes),
      }),
    }
  }

  function refused(
    failed: FailedGrant,
    { resource, claims, session }: Omit<RefreshRequest, 'resource'> & { resource: ResourceConfig },
  ) {
    const { answer, wasSent } = failed
    const refusal = refusalOf(answer)
    // Others get this token all the same: whatever the word means, the configuration is right.
    const isOfSession =
      answer !== undefined && isUnexplained(answer) && renewals.isForOther(resource.name, session)
    const problem = isOfSession ? signInAgain(refusal.oauthError) : failed.error
    const error = withStepUp(problem, { resource, claims: claimsOf(answer) ?? claims })
    const outcome = isOfSession ? 'step_up' : outcomeOf({ error, answer })
    const isTold = note({ resource: resource.name, outcome, error, refusal })
    const fields = { resource: resource.name, code: error.code, outcome, ...refusal }
    if (outcome === 'dead_grant') {
      log.info(fields, 'the grant is dead: its session ends')
      return { kind: 'dead' as const, reason: fields.oauthError ?? 'invalid_grant' }
    }
    if (!isTold) log.warn(fields, 'a refresh was refused')
    const isMaybeSpent = mayHaveUsedRefreshToken({ answer, wasSent })
    return error.code === 'provider_unavailable'
      ? { kind: 'unavailable' as const, error, isMaybeSpent }
      : { kind: 'refused' as const, error, isMaybeSpent }
  }

  /** A token for the client itself (RFC 6749 §4.4). Rejects with provider_rejected or provider_unavailable. */
  async function clientCredentialsGrant(name: string) {
    const resource = resourceNamed(name)
    const grant = await relyingParty.clientCredentialsGrant(dialect.otherGrant(resource))
    if ('error' in grant) {
      const { answer, error } = grant
      const outcome = outcomeOf(grant, reactionToClient)
      note({ resource: name, outcome, error, refusal: refusalOf(answer) })
      throw answer && answer.status !== 200 ? problemOf(reactionToClient(answer), answer) : grant.error
    }
    noteUse(note, resource, judgeToken(grant, resource, resources))
    return grant
  }

  /**
   * Throws `reauthentication_required` for a resource that the sign-in did not ask for, because a reload has added it
   * since, or was not granted: a provider that rotates may burn the refresh token before it says `invalid_target` or
   * `invalid_scope`.
   */
  function requireAsked(name: string, signIn: SessionGrant): void {
    const resource = resourceNamed(name)
    const lacks = notAskedFor(resource, signIn)
    if (lacks !== undefined) {
      throw new BffError('reauthentication_required', 'the sign-in did not ask for this resource', {
        details: { reason: 'resource_not_granted' },
        stepUp: { resource: name, lacks },
      })
    }
    if (!isDenied(resource, signIn)) return
    const fault = {
      outcome: 'scope_not_granted',
      expected: resource.scopes.join(' '),
      actual: signIn.granted?.join(' ') ?? '',
    } as const
    const error = notForResource(fault, resource, signIn)
    noteNotForResource(resource, fault, error)
    throw error
  }

  function noteNotForResource({ name }: ResourceConfig, fault: TokenFault, error: BffError): void {
    const isOfUser = error.code === 'reauthentication_required'
    const isTold = note({ resource: name, ...fault, error, isOfUser })
    if (!isTold)
      log.warn({ resource: name, code: error.code, ...fault }, 'a token is not for its resource: not sent')
  }

  /** What of a resource a sign-in did not ask for, if a refresh must not ask for it then. */
  function notAskedFor(
    resource: ResourceConfig,
    { indicators, scopes, steppedUp = [] }: SessionGrant,
  ): string | undefined {
    if (indicators && resource.resource !== undefined && !indicators.includes(resource.resource))
      return resource.resource
    if (!dialect.isLimitedByScopes) return undefined
    const wanted = apiScopes(resource.scopes)
    if (scopes) return wanted.filter((scope) => !scopes.includes(scope)).join(' ') || undefined
    if (indicators || wanted.length === 0 || inUse.length === 1) return undefined
    // A session of a version that asked for one resource only: the first, unless a step-up was for another.
    return steppedUp.length === 0 && inUse[0] === resource ? undefined : wanted.join(' ')
  }

  /** Whether the code answer named the scopes of the whole grant, and none of this resource's is among them. */
  function isDenied(resource: ResourceConfig, { granted }: SessionGrant): boolean {
    if (!dialect.isCodeForAll || granted === undefined || apiScopes(resource.scopes).length === 0)
      return false
    return apiScopes(grantedScopes(resource, granted)).length === 0
  }

  /** Tells of a session that nobody can renew a token for: its sign-in brought no refresh token. */
  function noRefreshToken(name: string): void {
    note({ resource: name, outcome: 'no_refresh_token', isOfUser: renewals.isForOther(name, undefined) })
  }

  return { refreshGrant, requireAsked, noRefreshToken, clientCredentialsGrant }
}

/** The reaction to a failed grant, or what else came in place of a token. */
export function outcomeOf(
  { error, answer }: Pick<FailedGrant, 'error' | 'answer'>,
  react = reactionTo,
): GrantOutcome {
  if (answer && answer.status !== 200) return react(answer)
  // Anything else is not the provider's doing: its answer could not be kept, because the user signed out, for example.
  return error.code === 'provider_rejected' ? 'unusable_answer' : 'retry_later'
}

/** The resource of that name. Throws: no token is even offered for a resource that the config does not know. */
export function requireResource(
  resources: Readonly<Record<string, ResourceConfig>>,
  name: string,
): ResourceConfig {
  const resource = resources[name]
  if (!resource) throw new BffError('provider_rejected', `no resource is named ${JSON.stringify(name)}`)
  return resource
}

/** A sign-in that cures it must be for this resource, and bring the claims that were asked for. */
export function withStepUp(
  problem: BffError,
  { resource, claims }: { resource: ResourceConfig; claims: string | undefined },
): BffError {
  if (problem.code !== 'reauthentication_required') return problem
  return new BffError(problem.code, problem.message, {
    details: problem.details,
    stepUp: { resource: resource.name, ...(claims === undefined ? {} : { claims }) },
  })
}

/** The claims challenge of a refusal, if it is one of a sane length. */
export function claimsOf(answer: TokenAnswer | undefined): string | undefined {
  const claims = answer?.body?.claims
  return typeof claims === 'string' && claims.length <= MAX_CLAIMS_LENGTH ? claims : undefined
}

/**
 * The problem of a token that is not for its resource. A user who declined, or has taken his consent back, may give it:
 * once, in a sign-in that asks for it. When that did not help, it is not his to give.
 */
function notForResource(
  { outcome, expected }: TokenFault,
  resource: ResourceConfig,
  { steppedUp }: SessionGrant,
): BffError {
  const stepUp = { resource: resource.name, consent: true, lacks: expected } as const
  const wasTried = steppedUp?.includes(stepUpFingerprint(stepUp)) === true
  if (outcome === 'wrong_audience' || wasTried) return notUsable(outcome)
  return new BffError('reauthentication_required', 'the authorization server did not grant these scopes', {
    details: { reason: outcome },
    stepUp,
  })
}

/** `provider_rejected`: the answer is for another resource than was asked for, or for none. */
function notUsable(reason: TokenFault['outcome']): BffError {
  const message =
    reason === 'wrong_audience'
      ? 'the authorization server answered for another resource'
      : 'the authorization server granted other scopes than these'
  return new BffError('provider_rejected', message, { details: { reason } })
}

/** Notes what became of a token that no sign-in is for. Throws `provider_rejected` for one that must not be used. */
export function noteUse(note: ConfigFaults['note'], { name }: ResourceConfig, fault: TokenFault | undefined) {
  if (!fault) {
    note({ resource: name, outcome: 'renewed' })
    return
  }
  const error = notUsable(fault.outcome)
  note({ resource: name, ...fault, error })
  throw error
}
