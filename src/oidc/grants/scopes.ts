import type { ResourceConfig } from '../../config/config.ts'
import { unverifiedClaims } from '../token-endpoint/jwt.ts'
import type { GrantedTokens } from '../token-endpoint/token-requests.ts'

/** Scopes of OpenID Connect Core §5.4 and §11: they say nothing of an API. */
const OPENID_SCOPES: ReadonlySet<string> = new Set([
  ...['openid', 'profile', 'email', 'address', 'phone', 'offline_access'],
])

/** Entra ID leaves the resource out of the scopes of Microsoft Graph, and takes them without it. */
const MICROSOFT_GRAPH: ReadonlySet<string> = new Set([
  ...['https://graph.microsoft.com', 'https://graph.microsoft.us', 'https://dod-graph.microsoft.us'],
  'https://microsoftgraph.chinacloudapi.cn',
])

const GRAPH_ID = /^00000003-0000-0000-c000-000000000000$/

/** Whether an audience is Microsoft Graph, whose tokens Entra ID gives where nothing else is asked for that it knows. */
export function isMicrosoftGraph(audience: string): boolean {
  return GRAPH_ID.test(audience) || MICROSOFT_GRAPH.has(audience.replace(/\/$/, '').toLowerCase())
}

/** Whether all scopes of a resource name an API, and none of them Microsoft Graph. */
export function isOtherThanGraph({ scopes }: Pick<ResourceConfig, 'scopes'>): boolean {
  const apis = apiScopes(scopes).map((scope) => partsOf(scope).api)
  return apis.length > 0 && apis.every((api) => api !== undefined && !MICROSOFT_GRAPH.has(api))
}

/** Whose scopes are compared. */
export type ScopedResource = Pick<ResourceConfig, 'name' | 'scopes'>

/** The scopes of a list that name an API: all but those of OpenID Connect itself. */
export function apiScopes(scopes: readonly string[]): string[] {
  return scopes.filter((scope) => !OPENID_SCOPES.has(scope.toLowerCase()))
}

/** The single scopes of a `scope` member (RFC 6749 §3.3); undefined when there is none. */
export function scopeList(value: unknown): readonly string[] | undefined {
  if (typeof value !== 'string') return undefined
  return value
    .split(/\s+/)
    .filter(Boolean)
    .flatMap((scope) => spellings(scope))
}

/** LinkedIn and others part them with commas, and examples of Entra ID's are percent-encoded; a scope may hold both. */
function spellings(scope: string): string[] {
  if (/%3a|%2f/i.test(scope)) return [scope, decoded(scope)]
  return scope.includes(',') ? [scope, ...scope.split(',').filter(Boolean)] : [scope]
}

function decoded(scope: string): string {
  try {
    return decodeURIComponent(scope)
  } catch {
    return scope
  }
}

/**
 * The resources that an answered scope is one of: those whose scopes come nearest to it. Another resource's own scope, to
 * the letter, is not ours because it is like one of ours.
 */
export function ownersOf<R extends ScopedResource>(answered: string, resources: readonly R[]): R[] {
  const likenesses = resources.map(({ scopes }) =>
    Math.max(UNLIKE, ...apiScopes(scopes).map((asked) => likeness(asked, answered))),
  )
  const best = Math.max(UNLIKE, ...likenesses)
  return best === UNLIKE ? [] : resources.filter((_, index) => likenesses[index] === best)
}

/**
 * Whether the `scope` of a token answer says that its token may be used for `resource`. `missing`: none of its API scopes
 * is there. `foreign`: only scopes of other resources are. An answer without `scope` grants what was asked for
 * (RFC 6749 §5.1).
 *
 * @param resources all of the configuration.
 */
export function judgeScopes(
  answered: readonly string[] | undefined,
  resource: ScopedResource,
  resources: readonly ScopedResource[],
): 'granted' | 'missing' | 'foreign' {
  if (answered === undefined) return 'granted'
  const owners = apiScopes(answered).flatMap((scope) => ownersOf(scope, resources))
  if (owners.some(({ name }) => name === resource.name)) return 'granted'
  if (owners.length > 0) return 'foreign'
  return apiScopes(resource.scopes).length > 0 ? 'missing' : 'granted'
}

/** Those of a resource's scopes that a sign-in was granted; all of them when nothing is known of it. */
export function grantedScopes(
  resource: ScopedResource,
  granted: readonly string[] | undefined,
): readonly string[] {
  if (granted === undefined) return resource.scopes
  const isGranted = (scope: string) => granted.some((one) => likeness(scope, one) > UNLIKE)
  return resource.scopes.filter((scope) => apiScopes([scope]).length === 0 || isGranted(scope))
}

const UNLIKE = 0
const ANY = 1
const BARE = 2
const SAME = 3
const EXACT = 4

/**
 * How much an answered scope is the one that was asked for. RFC 6749 §3.3 compares letter by letter; Entra ID answers
 * `api://orders/orders.read`, or only `orders.read`, to `api://orders/.default`, and in its own spelling of the letters.
 */
function likeness(asked: string, answered: string): number {
  if (asked === answered) return EXACT
  const wanted = partsOf(asked)
  const given = partsOf(answered)
  const isWanted = wanted.name === given.name || (wanted.name === '.default' && wanted.api !== undefined)
  if (!isWanted) return UNLIKE
  if (wanted.api === given.api) return SAME
  // A bare name belongs to Microsoft Graph if Graph was asked for it, rather than to an API that was asked for `.default`.
  if (given.api === undefined) {
    return wanted.name === given.name && MICROSOFT_GRAPH.has(wanted.api ?? '') ? BARE : ANY
  }
  return wanted.api === undefined && MICROSOFT_GRAPH.has(given.api) ? BARE : UNLIKE
}

/**
 * The API that a scope names, if it does, and the permission. `https://management.azure.com//.default` has two slashes,
 * because the API's own name ends in one; an API named by its bare id is `api://ID` too.
 */
function partsOf(scope: string): { readonly api: string | undefined; readonly name: string } {
  const text = scope.toLowerCase()
  const slash = text.lastIndexOf('/')
  const api = text
    .slice(0, Math.max(0, slash))
    .replace(/\/+$/, '')
    .replace(/^api:\/\//, '')
    .replace(GRAPH_ID, 'https://graph.microsoft.com')
  return api === '' ? { api: undefined, name: text } : { api, name: text.slice(slash + 1) }
}

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

/** Whether one of these scopes may be one of the resource's. Another resource may have the same scope. */
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
 * The resources that the access token of a code grant is good for, as far as the answer tells. A token that is good
 * for several must be used for none, because an API could use it at another one; each then gets its own by a refresh.
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
export function hasAudience(aud: readonly string[], audience: string): boolean {
  const [, id] = APPLICATION.exec(audience) ?? []
  return aud.includes(audience) || (id !== undefined && (aud.includes(id) || aud.includes(`api://${id}`)))
}

/** The `aud` of a JWT, its signature not looked at; undefined for an opaque token. */
function audiences(accessToken: string): readonly string[] | undefined {
  const claims = unverifiedClaims(accessToken)
  return claims && [claims.aud].flat().filter((one): one is string => typeof one === 'string')
}

/**
 * The scopes of an access token that does not tell them itself: those answered, or else those asked for (RFC 6749 §5.1).
 * Undefined for one that does.
 */
export function untoldScope(
  { accessToken, scope }: Pick<GrantedTokens, 'accessToken' | 'scope'>,
  asked: string | undefined,
): { readonly untoldScope?: string } {
  const untold = scopesInToken(accessToken) === undefined ? (scope ?? asked) : undefined
  return untold ? { untoldScope: untold } : {}
}

/** The scopes of an access token, under each name that an operator may give them for a resource. */
export type TokenScopes = (
  token: { readonly value: string; readonly scope?: string },
  resource: string,
) => readonly string[]

/**
 * Makes the look-up of a token's scopes: those that it carries, else those that came with it. Entra ID and others put the API
 * before its scopes in some places and not in others: of a resource's own API, `api://orders/read` and `read` are the same.
 */
export function createTokenScopes(resources: Readonly<Record<string, ResourceConfig>>): TokenScopes {
  const known = new WeakMap<object, readonly string[]>()
  const apisOf = new Map(
    Object.entries(resources).map(([name, resource]) => [name, apisOfResource(resource)]),
  )
  return function tokenScopes(token, resource) {
    const found = known.get(token)
    if (found) return found
    const carried = scopesInToken(token.value) ?? scopeList(token.scope) ?? []
    const scopes = withAndWithoutApi(carried, apisOf.get(resource) ?? [])
    known.set(token, scopes)
    return scopes
  }
}

function apisOfResource({ audience, resource, scopes }: ResourceConfig): string[] {
  const ofScopes = scopes.map((scope) => scope.slice(0, Math.max(0, scope.lastIndexOf('/'))))
  return [...new Set([audience, resource, ...ofScopes].flatMap((api) => api?.replace(/\/+$/, '') || []))]
}

/** Each scope as it is, and in the other spelling if it is one of these APIs. */
export function withAndWithoutApi(scopes: readonly string[], apis: readonly string[]): readonly string[] {
  return scopes.flatMap((scope) => [
    scope,
    ...apis.flatMap((api) => {
      if (scope.startsWith(`${api}/`)) return scope.slice(api.length + 1)
      return scope.includes('/') ? [] : `${api}/${scope}`
    }),
  ])
}

/**
 * The scopes that a JWT access token carries, its signature not looked at: `scope` (RFC 9068 §2.2.3), or `scp`, as Entra ID
 * and Okta call it. Undefined where it tells none.
 */
function scopesInToken(accessToken: string): readonly string[] | undefined {
  return scopesOfClaims(unverifiedClaims(accessToken) ?? {})
}

/** The same of claims that were read already. */
export function scopesOfClaims({
  scope,
  scp,
}: Readonly<Record<string, unknown>>): readonly string[] | undefined {
  const claims = [scope, scp].flat().filter((one) => typeof one === 'string')
  return claims.length === 0 ? undefined : claims.flatMap((one) => scopeList(one) ?? [])
}
