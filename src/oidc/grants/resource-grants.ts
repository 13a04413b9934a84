import type { KeyObject } from 'node:crypto'
import type { ResourceConfig } from '../../config/config.ts'
import { BffError, stepUpFingerprint } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { SessionGrant, UserClaims } from '../../store/port.ts'
import { IdTokenError } from '../token-endpoint/id-token.ts'
import type { Parameters } from '../token-endpoint/openid-client.ts'
import {
  type FailedGrant,
  mayHaveUsedRefreshToken,
  problemOf,
  refusalOf,
  signInAgain,
} from '../token-endpoint/provider-errors.ts'
import type { TokenAnswer } from '../token-endpoint/provider-fetch.ts'
import {
  isUnexplained,
  reactionTo,
  reactionToClient,
  reactionToExchange,
} from '../token-endpoint/reactions.ts'
import type { GrantedTokens, TokenRequests } from '../token-endpoint/token-requests.ts'
import type { ConfigFaults, GrantOutcome } from './config-faults.ts'
import { createGrantRequests, type Dialect } from './dialects.ts'
import { claimsAfterRefresh } from './refreshed-claims.ts'
import { judgeToken, scopeList, type TokenFault, untoldScope } from './scopes.ts'

export type ResourceGrantsDeps = {
  readonly relyingParty: Pick<TokenRequests, 'refreshGrant' | 'clientCredentialsGrant' | 'tokenExchangeGrant'>
  readonly dialect: Dialect
  readonly resources: Readonly<Record<string, ResourceConfig>>
  readonly clientCapabilities: readonly string[]
  readonly log: Logger
  readonly monotonicNow: () => number
  readonly note: ConfigFaults['note']
  /** Id of the request that is being served, if one is. */
  readonly requestId?: () => string | undefined
  /** The key to ask for tokens with, given the one that the grant has had so far; absent: none (RFC 9449). */
  readonly proofKeyFor?: (known: KeyObject | undefined) => KeyObject | undefined
}

/** One refresh grant for one resource (RFC 6749 §6). */
export type RefreshRequest = {
  readonly refreshToken: string
  /** Name of the resource in the config. */
  readonly resource: string
  /** Hash of the session. */
  readonly session?: string
  readonly signIn?: SessionGrant
  /** Stores a rotated refresh token and the key it came with; awaited before anything else in the answer is looked at. */
  readonly keep: (newRefreshToken: string, key?: KeyObject) => Promise<void>
  /** JSON text of the claims that a challenge asks for (OpenID Connect Core §5.5). */
  readonly claims?: string
  /** The private key of the refresh token (RFC 9449 §5). */
  readonly key?: KeyObject
}

/** One access token for another. */
export type ExchangeRequest = {
  /** Name of the resource that the new token is for. */
  readonly resource: string
  readonly subjectToken: string
  /** The private key of that token, if it is bound to one. */
  readonly key?: KeyObject
  /** Hash of the session. */
  readonly session?: string
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
}

/**
 * Makes the grants that get one access token for one resource, which is asked for by name: from the session's refresh
 * token, for the client itself, or for another access token.
 */
export function createResourceGrants(deps: ResourceGrantsDeps) {
  const { relyingParty, dialect, resources, clientCapabilities, log, note } = deps
  const { proofKeyFor = () => undefined, requestId = () => undefined } = deps
  const requests = createGrantRequests(dialect, clientCapabilities)
  const renewals = createRecentRenewals(deps.monotonicNow)
  function proving(known?: KeyObject): [] | [{ key: KeyObject }] {
    const key = proofKeyFor(known)
    return key ? [{ key }] : []
  }

  /** For whom a token was asked, as the log calls them. */
  function askerOf(session: string | undefined) {
    return { request_id: requestId(), ...(session === undefined ? {} : { session: session.slice(0, 12) }) }
  }

  function resourceNamed(name: string): ResourceConfig {
    const resource = resources[name]
    if (!resource) throw new BffError('provider_rejected', `no resource is named ${JSON.stringify(name)}`)
    return resource
  }

  /**
   * Throws `reauthentication_required` for a resource that the sign-in did not ask for, because a reload has added it
   * since, or was not granted: a provider that rotates may use the refresh token up before it says `invalid_target` or
   * `invalid_scope`.
   */
  function requireAsked(name: string, signIn: SessionGrant): void {
    const resource = resourceNamed(name)
    const lacks = dialect.notAskedFor(resource, signIn)
    if (lacks !== undefined) {
      throw new BffError('reauthentication_required', 'the sign-in did not ask for this resource', {
        details: { reason: 'resource_not_granted' },
        stepUp: { resource: name, lacks },
      })
    }
    if (!dialect.isDenied(resource, signIn)) return
    const expected = resource.scopes.join(' ')
    const actual = signIn.granted?.join(' ') ?? ''
    throw notedFault({ outcome: 'scope_not_granted', expected, actual }, resource, signIn)
  }

  /** Sends the refresh token once, for one resource; never rejects for what the provider answers. */
  async function refreshGrant(request: RefreshRequest) {
    const resource = resourceNamed(request.resource)
    const parameters = requests.refresh(resource, request)
    const key = proofKeyFor(request.key)
    const grant = await relyingParty.refreshGrant(request.refreshToken, parameters, {
      keep: (next) => request.keep(next, key),
      ignoredIdToken: (cause) => noteIgnoredIdToken(resource, cause),
      key,
    })
    if ('error' in grant) return refusedRefresh(grant, { ...request, resource })
    const fault = judgeToken(grant, resource, resources)
    if (fault) {
      const error = notedFault(fault, resource, request.signIn ?? {})
      return { kind: 'refused' as const, error, isMaybeUsed: false }
    }
    note({ resource: resource.name, outcome: 'renewed', lifetimeMs: grant.expiresAt - grant.obtainedAt })
    renewals.add(resource.name, request.session)
    const { accessToken, obtainedAt, expiresAt, claims: refreshed, refreshTokenExpiresAt } = grant
    const askedScope = scopeIn(parameters)
    return {
      kind: 'renewed' as const,
      accessToken,
      obtainedAt,
      expiresAt,
      ...untoldScope(grant, askedScope),
      ...(grant.key && { key: grant.key }),
      subject: grant.claims?.sub ?? grant.unverifiedSubject,
      ...(refreshTokenExpiresAt === undefined ? {} : { refreshTokenExpiresAt }),
      ...(refreshed && {
        claimsAfter(before: UserClaims) {
          return claimsAfterRefresh(before, refreshed, scopeList(askedScope), request.signIn)
        },
      }),
    }
  }

  function refusedRefresh(
    failed: FailedGrant,
    { resource, claims, session }: Omit<RefreshRequest, 'resource'> & { resource: ResourceConfig },
  ) {
    const { answer } = failed
    const refusal = refusalOf(answer)
    const isOfSession = isOneSessionsMatter(answer, resource, session)
    const problem = isOfSession ? signInAgain(refusal.oauthError) : failed.error
    const error = withStepUp(problem, { resource, claims: claimsOf(answer) ?? claims })
    const outcome = isOfSession ? 'step_up' : outcomeOf({ error, answer })
    const isLogged = note({ resource: resource.name, outcome, error, refusal })
    const fields = { ...askerOf(session), resource: resource.name, code: error.code, outcome, ...refusal }
    if (outcome === 'dead_grant') {
      log.info(fields, 'the grant is dead: its session ends')
      return { kind: 'dead' as const, reason: fields.oauthError ?? 'invalid_grant' }
    }
    if (!isLogged) log.warn(fields, 'a refresh was refused')
    const kind = error.code === 'provider_unavailable' ? ('unavailable' as const) : ('refused' as const)
    return { kind, error, isMaybeUsed: mayHaveUsedRefreshToken(failed) }
  }

  /**
   * Exchanges an access token of the user for one of another resource. Rejects with reauthentication_required,
   * access_denied, provider_rejected or provider_unavailable; never with what would end the session.
   */
  async function tokenExchangeGrant(request: ExchangeRequest): Promise<GrantedTokens> {
    const resource = resourceNamed(request.resource)
    const { grantType, parameters } = requests.exchange(resource, request)
    const grant = await relyingParty.tokenExchangeGrant(grantType, parameters, ...proving(request.key))
    if ('error' in grant) throw refusedExchange(grant, { ...request, resource })
    requireUsable(grant, resource)
    renewals.add(resource.name, request.session)
    return { ...grant, ...untoldScope(grant, scopeIn(dialect.otherGrant(resource))) }
  }

  function refusedExchange(
    { error: problem, answer }: FailedGrant,
    { resource, claims, session }: Omit<ExchangeRequest, 'resource'> & { resource: ResourceConfig },
  ): BffError {
    const react = isOneSessionsMatter(answer, resource, session)
      ? () => 'step_up' as const
      : reactionToExchange
    const reaction = answer && answer.status !== 200 ? react(answer) : undefined
    const error = withStepUp(reaction ? problemOf(reaction, answer) : problem, {
      resource,
      claims: claimsOf(answer) ?? claims,
    })
    const outcome = outcomeOf({ error, answer }, react)
    const refusal = refusalOf(answer)
    const isLogged = note({ resource: resource.name, outcome, error, refusal })
    const fields = { ...askerOf(session), resource: resource.name, code: error.code, outcome, ...refusal }
    if (!isLogged) log.warn(fields, 'an exchange was refused')
    return error
  }

  /** A token for the client itself (RFC 6749 §4.4). Rejects with provider_rejected or provider_unavailable. */
  async function clientCredentialsGrant(name: string): Promise<GrantedTokens> {
    const resource = resourceNamed(name)
    const grant = await relyingParty.clientCredentialsGrant(requests.client(resource), ...proving())
    if ('error' in grant) {
      const { answer, error } = grant
      const outcome = outcomeOf(grant, reactionToClient)
      note({ resource: name, outcome, error, refusal: refusalOf(answer) })
      throw answer && answer.status !== 200 ? problemOf(reactionToClient(answer), answer) : error
    }
    requireUsable(grant, resource)
    return { ...grant, ...untoldScope(grant, scopeIn(dialect.otherGrant(resource))) }
  }

  /** Counts a session whose tokens cannot be renewed, because its sign-in brought no refresh token. */
  function noRefreshToken(name: string): void {
    note({ resource: name, outcome: 'no_refresh_token', isOfUser: renewals.isForOther(name, undefined) })
  }

  /**
   * Whether a refusal that its words leave open concerns one session only: where others get this token all the same, the
   * configuration is right, whatever the word means.
   */
  function isOneSessionsMatter(
    answer: TokenAnswer | undefined,
    { name }: ResourceConfig,
    session: string | undefined,
  ): boolean {
    return answer !== undefined && isUnexplained(answer) && renewals.isForOther(name, session)
  }

  /** Notes what a token that no sign-in is for is worth. Throws `provider_rejected` for one that must not be used. */
  function requireUsable(grant: GrantedTokens, resource: ResourceConfig): void {
    const fault = judgeToken(grant, resource, resources)
    const lifetimeMs = grant.expiresAt - grant.obtainedAt
    if (!fault) return void note({ resource: resource.name, outcome: 'renewed', lifetimeMs })
    const error = notUsable(fault.outcome)
    note({ resource: resource.name, ...fault, error })
    throw error
  }

  /** The problem of a refreshed token that is not for its resource, noted and logged. */
  function notedFault(fault: TokenFault, resource: ResourceConfig, signIn: SessionGrant): BffError {
    const error = notForResource(fault, resource, signIn)
    const isOfUser = error.code === 'reauthentication_required'
    const isLogged = note({ resource: resource.name, ...fault, error, isOfUser })
    const fields = { resource: resource.name, code: error.code, ...fault }
    if (!isLogged) log.warn(fields, 'a token is not for its resource: not sent')
    return error
  }

  function noteIgnoredIdToken({ name }: ResourceConfig, cause: unknown): void {
    const logged = cause instanceof IdTokenError ? cause.facts : undefined
    const error = new BffError('provider_rejected', 'the ID token is not sound', { cause, logged })
    note({ resource: name, outcome: 'id_token_ignored', error })
  }

  return { requireAsked, refreshGrant, tokenExchangeGrant, clientCredentialsGrant, noRefreshToken }
}

function scopeIn(parameters: Parameters): string | undefined {
  return parameters.find(([name]) => name === 'scope')?.[1]
}

/** The reaction to a failed grant, or what else came in place of a token. */
export function outcomeOf(
  { error, answer }: Pick<FailedGrant, 'error' | 'answer'>,
  react = reactionTo,
): GrantOutcome {
  if (answer && answer.status !== 200) return react(answer)
  // The client had no proof to send.
  if (error.logged?.oauthError === 'invalid_client') return 'configuration'
  // No error of the token endpoint: no answer, a page in place of one, or an answer that could not be kept.
  return error.code === 'provider_rejected' ? 'unusable_answer' : 'retry_later'
}

/** A sign-in that cures it must be for this resource, and bring the claims that were asked for. */
function withStepUp(
  problem: BffError,
  { resource, claims }: { resource: ResourceConfig; claims: string | undefined },
): BffError {
  if (problem.code !== 'reauthentication_required') return problem
  return new BffError(problem.code, problem.message, {
    details: problem.details,
    stepUp: { resource: resource.name, ...(claims === undefined ? {} : { claims }) },
  })
}

const MAX_CLAIMS_LENGTH = 8_192

/** The claims challenge of a refusal, if it is one of a sane length. */
function claimsOf(answer: TokenAnswer | undefined): string | undefined {
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

const RECENT_MS = 300_000

/** Remembers which resources were renewed of late, and for which sessions: two for each resource are enough. */
function createRecentRenewals(monotonicNow: () => number) {
  const recent = new Map<string, { readonly session: string; readonly at: number }[]>()
  return {
    /** Notes that a token of `resource` was renewed for `session`. */
    add(resource: string, session: string | undefined): void {
      if (session === undefined) return
      const others = (recent.get(resource) ?? []).filter((one) => one.session !== session)
      recent.set(resource, [{ session, at: monotonicNow() }, ...others].slice(0, 2))
    },
    /** Whether a token of `resource` was renewed for another session within five minutes. */
    isForOther: (resource: string, session: string | undefined): boolean =>
      (recent.get(resource) ?? []).some(
        (one) => one.session !== session && monotonicNow() < one.at + RECENT_MS,
      ),
  }
}
