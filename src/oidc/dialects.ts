import type { ProviderConfig, ResourceConfig } from '../config/config.ts'

/** Form or query parameters in the order they are sent; a name may repeat (RFC 8707 `resource`). */
export type Parameters = readonly (readonly [name: string, value: string])[]

/** How requests to one provider name resources: pure, exact, one row per dialect of contract section 3. */
export type Dialect = {
  /** Parameters of the authorization request: what lets the refresh token serve every resource in use, `login` first. */
  authorizationRequest(login: ResourceConfig | undefined): Parameters
  /** Parameters of the code grant: the access token that comes with the code is for the resource `login`. */
  codeGrant(login: ResourceConfig | undefined): Parameters
  /** Parameters of a refresh grant for exactly one resource. */
  refreshGrant(resource: ResourceConfig): Parameters
  /** What the grant of a sign-in is limited to, by the names in `resource` (RFC 8707 §2.2); absent where it is not. */
  readonly indicators?: readonly string[]
  /** Parameters of a grant for exactly one resource that no refresh token is spent for: client credentials, exchange. */
  otherGrant(resource: ResourceConfig): Parameters
}

/** @param resources those that routes use with the refresh token. */
export function createDialect(provider: ProviderConfig, resources: readonly ResourceConfig[]): Dialect {
  const loginScopes = provider.scopes
  switch (provider.resourceDialect) {
    case 'resource':
      // Azure AD v1 and AD FS: one `resource`; what it may do is registered, so `scope` is never sent for it.
      return {
        authorizationRequest: (login) => [scope(loginScopes), ...named('resource', login)],
        codeGrant: (login) => named('resource', login),
        refreshGrant: (resource) => named('resource', resource),
        otherGrant: (resource) => named('resource', resource),
      }
    case 'scope':
      // Entra ID v2 and most others: the scopes name the resource, and must come first; `resource` is an error there.
      return {
        authorizationRequest: (login) => [scope([...loginScopes, ...(login?.scopes ?? [])])],
        codeGrant: (login) => (login ? [scope([...login.scopes, ...loginScopes])] : []),
        refreshGrant: (resource) => [scope([...resource.scopes, 'offline_access', ...openid(loginScopes)])],
        otherGrant: (resource) => [scope(resource.scopes)],
      }
    case 'resource-indicator':
      // RFC 8707 §2: all resources at the authorization endpoint, exactly one in a token request.
      return {
        authorizationRequest: () => [
          scope([...loginScopes, ...resources.flatMap((resource) => resource.scopes)]),
          ...resources.flatMap((resource) => named('resource', resource)),
        ],
        indicators: resources.flatMap(({ resource }) => resource ?? []),
        codeGrant: (login) => named('resource', login),
        refreshGrant: (resource) => [...named('resource', resource), ...ownScopes(resource)],
        otherGrant: (resource) => [...named('resource', resource), ...ownScopes(resource)],
      }
    case 'audience':
      return {
        authorizationRequest: (login) => [
          scope([...loginScopes, ...(login?.scopes ?? [])]),
          ...named('audience', login),
        ],
        codeGrant: () => [],
        refreshGrant: (resource) => [...named('audience', resource), ...ownScopes(resource)],
        otherGrant: (resource) => [...named('audience', resource), ...ownScopes(resource)],
      }
  }
}

function scope(scopes: readonly string[]): readonly [string, string] {
  return ['scope', [...new Set(scopes)].join(' ')]
}

function ownScopes({ scopes }: ResourceConfig): Parameters {
  return scopes.length > 0 ? [scope(scopes)] : []
}

function openid(loginScopes: readonly string[]): string[] {
  return loginScopes.includes('openid') ? ['openid'] : []
}

/** Byte for byte as configured: `https://a/` and `https://a` are two resources. */
function named(parameter: string, resource: ResourceConfig | undefined): Parameters {
  return resource?.resource === undefined ? [] : [[parameter, resource.resource]]
}
