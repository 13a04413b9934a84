import type { ResourceConfig } from '../../config/config.ts'
import { unverifiedClaims } from '../token-endpoint/jwt.ts'
import type { GrantedTokens } from '../token-endpoint/token-requests.ts'
import { apiScopes, isMicrosoftGraph, isOtherThanGraph, judgeScopes, ownersOf, scopeList } from './scopes.ts'

/** Why an access token must not be sent to its resource; what was asked for and what came are for the log. */
export type TokenFault = {
  readonly outcome: 'wrong_audience' | 'scope_not_granted'
  readonly expected: string
  readonly actual: string
}

/** A provider's text in a log line is as long as it needs to be to be recognised. */
const MOST_LOGGED = 200

/**
 * Whether an answer says itself that its access token is not for `resource`: by its `scope` (RFC 6749 §5.1), by the `aud`
 * of a JWT, or by naming another resource. Undefined when nothing speaks against it. Providers narrow in silence: Keycloak
 * and Glewlwyd answer a refresh for another API with the scopes that the sign-in had.
 */
export function judgeToken(
  grant: Pick<GrantedTokens, 'accessToken' | 'resource' | 'scope'>,
  resource: ResourceConfig,
  resources: Readonly<Record<string, ResourceConfig>>,
): TokenFault | undefined {
  const all = Object.values(resources)
  const { resource: named } = grant
  // Azure AD v1 and AD FS name the resource that was asked for; its scopes are their own affair, and were not.
  const isNamed = named !== undefined && named === resource.resource
  const scopeFault = isNamed ? undefined : judgeByScope(grant, resource, all)
  if (scopeFault) return scopeFault
  if (named !== undefined && resource.resource !== undefined && !isNamed)
    return fault('wrong_audience', resource.resource, named)
  const isForOther =
    resource.audience === undefined && !isProvenAudience(grant.accessToken, resource)
      ? isOthersAudience(grant, resource, all)
      : !isForAudience(grant.accessToken, resource)
  if (!isForOther) return undefined
  const expected = resource.audience ?? resource.resource ?? resource.scopes.join(' ')
  return fault('wrong_audience', expected, audiences(grant.accessToken)?.join(' ') ?? '')
}

function judgeByScope(
  { scope, accessToken }: Pick<GrantedTokens, 'accessToken' | 'scope'>,
  resource: ResourceConfig,
  resources: readonly ResourceConfig[],
): TokenFault | undefined {
  const answered = scopeList(scope)
  const verdict = judgeScopes(answered, resource, resources)
  const carried = scopesInToken(accessToken)
  if (verdict === 'granted') {
    // A token may use names of its own for the same scopes; those of another resource are no such names.
    const isForeign = judgeScopes(carried, resource, resources) === 'foreign'
    const isOwnName = answered !== undefined && carried !== undefined && areLike(carried, resource)
    if (!isForeign || isOwnName || isProvenAudience(accessToken, resource)) return undefined
    return fault('scope_not_granted', resource.scopes.join(' '), carried?.join(' ') ?? '')
  }
  const isUnscoped = apiScopes(resource.scopes).length === 0
  // The scopes are those of the whole grant at some servers; a resource without any goes by the audience there.
  if (isUnscoped && isProvenAudience(accessToken, resource)) return undefined
  return fault('scope_not_granted', resource.scopes.join(' '), scope ?? '')
}

/**
 * Whether the `aud` of a JWT is another resource's, for one whose own is not known. Two resources may be of one API, of
 * which only one has it written down: a scope that is named in so many words says more.
 */
function isOthersAudience(
  { accessToken, scope }: Pick<GrantedTokens, 'accessToken' | 'scope'>,
  resource: ResourceConfig,
  resources: readonly ResourceConfig[],
): boolean {
  const aud = audiences(accessToken) ?? []
  if (aud.length > 0 && aud.every(isMicrosoftGraph) && isOtherThanGraph(resource)) return true
  const told = [...(scopeList(scope) ?? []), ...(scopesInToken(accessToken) ?? [])]
  if (areLike(told, resource)) return false
  return resources.some((other) => isProvenAudience(accessToken, other))
}

/** Whether one of these scopes may be one of the resource's, whoever else has it. */
function areLike(scopes: readonly string[], resource: ResourceConfig): boolean {
  return apiScopes(scopes).some((scope) => ownersOf(scope, [resource]).length > 0)
}

function isProvenAudience(accessToken: string, { audience, resource }: ResourceConfig): boolean {
  const expected = audience ?? resource
  return expected !== undefined && hasAudience(audiences(accessToken) ?? [], expected)
}

function fault(outcome: TokenFault['outcome'], expected: string, actual: string): TokenFault {
  return { outcome, expected: expected.slice(0, MOST_LOGGED), actual: actual.slice(0, MOST_LOGGED) }
}

/**
 * The resources that the access token of a code grant is good for, as far as the answer tells. One that is good for
 * several is to be used for none: each then gets its own by a refresh, because a token that an API may use at another is
 * worth more to whoever steals it.
 *
 * @param asked the scopes that the sign-in asked for, if an answer without `scope` grants them all.
 */
export function resourcesOfCode(
  grant: Pick<GrantedTokens, 'accessToken' | 'scope'>,
  asked: readonly string[] | undefined,
  inUse: readonly ResourceConfig[],
): readonly ResourceConfig[] {
  const byAudience = inUse.filter((resource) => isProvenAudience(grant.accessToken, resource))
  const scopes = asked === undefined ? [] : apiScopes(scopeList(grant.scope) ?? asked)
  const byScope = scopes.flatMap((scope) => ownersOf(scope, inUse))
  return [...new Set([...byScope, ...byAudience])]
}

/**
 * Whether the `aud` of an access token allows it for `resource`: false only for a JWT whose `aud` does not name the
 * resource's configured audience. An opaque token, or a resource without `audience`, cannot be judged and passes.
 *
 * The signature is the resource server's business (RFC 9068 §4): this check guards against a provider that answers
 * for another resource, as Entra does when scopes are mixed.
 */
function isForAudience(accessToken: string, { audience }: ResourceConfig): boolean {
  if (audience === undefined) return true
  const aud = audiences(accessToken)
  return aud === undefined || hasAudience(aud, audience)
}

const APPLICATION = /^(?:api:\/\/)?([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/i

/** Whether an audience is among those of a token. Entra ID calls an API `api://ID` in v1 tokens and `ID` in v2 tokens. */
function hasAudience(aud: readonly string[], audience: string): boolean {
  const [, id] = APPLICATION.exec(audience) ?? []
  return aud.includes(audience) || (id !== undefined && (aud.includes(id) || aud.includes(`api://${id}`)))
}

/** The `aud` of a JWT, its signature not looked at; undefined for an opaque token. */
function audiences(accessToken: string): readonly string[] | undefined {
  const claims = unverifiedClaims(accessToken)
  return claims && [claims.aud].flat().filter((one): one is string => typeof one === 'string')
}

/**
 * The scopes that a JWT access token carries, its signature not looked at: `scope` (RFC 9068 §2.2.3), or `scp`, as Entra ID
 * and Okta call it. Undefined where it tells none.
 */
function scopesInToken(accessToken: string): readonly string[] | undefined {
  const { scope, scp } = unverifiedClaims(accessToken) ?? {}
  const claims = [scope, scp].flat().filter((one) => typeof one === 'string')
  return claims.length === 0 ? undefined : claims.flatMap((one) => scopeList(one) ?? [])
}
