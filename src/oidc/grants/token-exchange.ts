import type { ResourceConfig } from '../../config/config.ts'
import type { BffError } from '../../errors.ts'
import type { FailedGrant } from '../token-endpoint/provider-errors.ts'
import { problemOf, refusalOf } from '../token-endpoint/provider-errors.ts'
import { isUnexplained, reactionToExchange } from '../token-endpoint/reactions.ts'
import type { GrantedTokens } from '../token-endpoint/token-requests.ts'
import { claimsParameter, claimsRequest } from './claims-request.ts'
import type { Parameters } from './dialects.ts'
import { createRecentRenewals } from './recent-renewals.ts'
import {
  claimsOf,
  noteUse,
  outcomeOf,
  type ResourceGrantsDeps,
  requireResource,
  withStepUp,
} from './resource-grants.ts'
import { judgeToken } from './token-purpose.ts'

/** One access token for another. */
export type ExchangeRequest = {
  /** Name of the resource that the new token is for. */
  readonly resource: string
  readonly subjectToken: string
  /** Tells one session from another. */
  readonly session?: string
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
}

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

/**
 * Exchanges an access token of the user for one of another resource. Rejects with reauthentication_required,
 * access_denied, provider_rejected or provider_unavailable; never with what would end the session.
 */
export function createTokenExchange(deps: ResourceGrantsDeps) {
  const { relyingParty, dialect, resources, clientCapabilities, log, note } = deps
  const renewals = createRecentRenewals(deps.monotonicNow)
  return async function tokenExchangeGrant(request: ExchangeRequest): Promise<GrantedTokens> {
    const resource = requireResource(resources, request.resource)
    const { grantType, parameters } = exchangeOf(resource, request.subjectToken)
    const grant = await relyingParty.tokenExchangeGrant(grantType, [
      ...parameters,
      ...dialect.otherGrant(resource),
      ...claimsParameter(claimsRequest(clientCapabilities, request.claims)),
    ])
    if ('error' in grant) throw refused(grant, { ...request, resource })
    noteUse(note, resource, judgeToken(grant, resource, resources))
    renewals.add(resource.name, request.session)
    return grant
  }

  function refused(
    { error: problem, answer }: FailedGrant,
    { resource, claims, session }: Omit<ExchangeRequest, 'resource'> & { resource: ResourceConfig },
  ): BffError {
    const isOfSession =
      answer !== undefined && isUnexplained(answer) && renewals.isForOther(resource.name, session)
    const react = isOfSession ? () => 'step_up' as const : reactionToExchange
    const reaction = answer && answer.status !== 200 ? react(answer) : undefined
    const error = withStepUp(reaction ? problemOf(reaction, answer) : problem, {
      resource,
      claims: claimsOf(answer) ?? claims,
    })
    const outcome = outcomeOf({ error, answer }, react)
    const refusal = refusalOf(answer)
    const isTold = note({ resource: resource.name, outcome, error, refusal })
    if (!isTold)
      log.warn({ resource: resource.name, code: error.code, outcome, ...refusal }, 'an exchange was refused')
    return error
  }
}

/** The two ways that providers know: RFC 8693 §2.1, and Entra ID's on-behalf-of flow, a profile of RFC 7523 §2.1. */
function exchangeOf(
  { exchange }: ResourceConfig,
  subjectToken: string,
): { grantType: string; parameters: Parameters } {
  if (exchange === 'on_behalf_of') {
    return {
      grantType: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
      parameters: [
        ['assertion', subjectToken],
        ['requested_token_use', 'on_behalf_of'],
      ],
    }
  }
  return {
    grantType: 'urn:ietf:params:oauth:grant-type:token-exchange',
    parameters: [
      ['subject_token', subjectToken],
      ['subject_token_type', ACCESS_TOKEN],
      ['requested_token_type', ACCESS_TOKEN],
    ],
  }
}
