import type { ResourceConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { claimsParameter, claimsRequest } from './claims-request.ts'
import type { ConfigFaults, GrantOutcome } from './config-faults.ts'
import type { Dialect } from './dialects.ts'
import { reactionTo, reactionToClient } from './grant-errors.ts'
import type { FailedGrant, GrantedTokens } from './grant-types.ts'
import { isForAudience } from './jwt.ts'
import { mayHaveSpent, problemOf, refusalOf } from './provider-errors.ts'
import type { RelyingParty } from './relying-party.ts'
import type { TokenAnswer } from './token-answer.ts'

const MAX_CLAIMS_LENGTH = 8_192

export type ResourceGrantsDeps = {
  readonly relyingParty: RelyingParty
  readonly dialect: Dialect
  readonly resources: Readonly<Record<string, ResourceConfig>>
  readonly clientCapabilities: readonly string[]
  readonly log: Logger
  readonly note: ConfigFaults['note']
}

type RefreshRequest = {
  readonly refreshToken: string
  readonly resource: string
  readonly keep: (newRefreshToken: string) => Promise<void>
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
}

/** One access token per resource, each asked for by name: from the session's refresh token, or for the client itself. */
export function createResourceGrants(deps: ResourceGrantsDeps) {
  const { relyingParty, dialect, resources, clientCapabilities, log, note } = deps
  const resourceNamed = (name: string) => requireResource(resources, name)

  /** Spends the refresh token once, for one resource; never rejects for what the provider answers. */
  async function refreshGrant(request: RefreshRequest) {
    const resource = resourceNamed(request.resource)
    const claims = claimsRequest(clientCapabilities, request.claims)
    const grant = await relyingParty.refreshGrant(
      request.refreshToken,
      [...dialect.refreshGrant(resource), ...claimsParameter(claims)],
      {
        keep: request.keep,
        ignoredIdToken(cause) {
          const error = new BffError('provider_rejected', 'the ID token is not sound', { cause })
          note({ resource: resource.name, outcome: 'id_token_ignored', error })
        },
      },
    )
    if ('error' in grant) return refused(grant, { resource, claims: request.claims })
    if (!isForResource(grant, resource)) {
      note({ resource: resource.name, outcome: 'wrong_audience' })
      return { kind: 'refused' as const, error: wrongAudience(), isMaybeSpent: false }
    }
    note({ resource: resource.name, outcome: 'renewed' })
    const { accessToken, obtainedAt, expiresAt } = grant
    return {
      kind: 'renewed' as const,
      accessToken,
      obtainedAt,
      expiresAt,
      subject: grant.claims?.sub ?? grant.unverifiedSubject,
    }
  }

  function refused(
    { error: problem, answer, wasSent }: FailedGrant,
    { resource, claims }: { resource: ResourceConfig; claims: string | undefined },
  ) {
    const error = withStepUp(problem, { resource, claims: claimsOf(answer) ?? claims })
    const outcome = outcomeOf({ error, answer })
    const refusal = refusalOf(answer)
    const isTold = note({ resource: resource.name, outcome, error, refusal })
    const fields = { resource: resource.name, code: error.code, outcome, ...refusal }
    if (outcome === 'dead_grant') {
      log.info(fields, 'the grant is dead: its session ends')
      return { kind: 'dead' as const, reason: fields.oauthError ?? 'invalid_grant' }
    }
    if (!isTold) log.warn(fields, 'a refresh was refused')
    const isMaybeSpent = mayHaveSpent({ answer, wasSent })
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
    const isRight = isForResource(grant, resource)
    note({ resource: name, outcome: isRight ? 'renewed' : 'wrong_audience' })
    if (!isRight) throw wrongAudience()
    return grant
  }

  /**
   * Throws `reauthentication_required` for a resource that the sign-in did not ask for, because a reload has added it
   * since: a provider that rotates may burn the refresh token before it says `invalid_target`.
   */
  function requireAsked(name: string, indicators: readonly string[] | undefined): void {
    const resource = resourceNamed(name)
    if (!indicators || resource.resource === undefined || indicators.includes(resource.resource)) return
    throw new BffError('reauthentication_required', 'the sign-in did not ask for this resource', {
      details: { reason: 'resource_not_granted' },
      stepUp: { resource: name },
    })
  }

  /** Tells of a session that nobody can renew a token for: its sign-in brought no refresh token. */
  function noRefreshToken(name: string): void {
    note({ resource: name, outcome: 'no_refresh_token' })
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

/** False when the answer says that its access token is for another resource: it must not be used or kept. */
export function isForResource(grant: GrantedTokens, resource: ResourceConfig): boolean {
  const namesAnother =
    grant.resource !== undefined && resource.resource !== undefined && grant.resource !== resource.resource
  return !namesAnother && isForAudience(grant.accessToken, resource)
}

/** `provider_rejected`: the answer is for another resource than was asked for. */
export function wrongAudience(): BffError {
  return new BffError('provider_rejected', 'the authorization server answered for another resource', {
    details: { reason: 'wrong_audience' },
  })
}
