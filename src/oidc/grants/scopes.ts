import type { ResourceConfig } from '../../config/config.ts'

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
  // Such a name is Graph's, if that was asked for it, rather than one of whoever asked for all.
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
