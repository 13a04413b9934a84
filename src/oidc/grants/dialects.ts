import type { ProviderConfig, ResourceConfig } from '../../config/config.ts'
import { grantedScopes } from './scopes.ts'

/** Form or query parameters in the order they are sent; a name may repeat (RFC 8707 `resource`). */
export type Parameters = readonly (readonly [name: string, value: string])[]

/** What a sign-in asked for, as far as its refresh token is limited by it. */
export type SignInGrant = {
  /** RFC 8707 indicators of the resources that it named; absent where a grant is not limited to some (§2.2). */
  readonly indicators?: readonly string[] | undefined
  /** The scopes that it asked for; absent in sessions that are older than this record. */
  readonly scopes?: readonly string[] | undefined
  /** The scopes that its code answer said it was granted, if it did. */
  readonly granted?: readonly string[] | undefined
}

/** How requests to one provider name resources: pure, exact, one row per dialect of contract section 3. */
export type Dialect = {
  /** What a sign-in for `login` asks for, to be remembered with its session. */
  signInGrant(login: ResourceConfig | undefined): SignInGrant
  /** Parameters of the authorization request: what lets the refresh token serve every resource in use, `login` first. */
  authorizationRequest(login: ResourceConfig | undefined): Parameters
  /** Parameters of the code grant: the access token that comes with the code is for the resource `login`. */
  codeGrant(login: ResourceConfig | undefined): Parameters
  /** Parameters of a refresh grant for exactly one resource. */
  refreshGrant(resource: ResourceConfig, signIn?: SignInGrant): Parameters
  /** Whether a refresh may ask only for scopes that the sign-in asked for (RFC 6749 §6). */
  readonly isLimitedByScopes: boolean
  /** Whether the scopes of a code answer are those of the whole grant, and not of one resource only. */
  readonly isCodeForAll: boolean
  /** Parameters of a grant for exactly one resource that no refresh token is spent for: client credentials, exchange. */
  otherGrant(resource: ResourceConfig): Parameters
}

type DialectSettings = Pick<ProviderConfig, 'resourceDialect' | 'scopes' | 'signInScopes'>

/** @param resources those that routes use with the refresh token. */
export function createDialect(provider: DialectSettings, resources: readonly ResourceConfig[]): Dialect {
  const loginScopes = provider.scopes
  const isForAll = provider.signInScopes === 'all' && provider.resourceDialect !== 'resource'
  const signInScopes = (login: ResourceConfig | undefined): readonly string[] => {
    const others = isForAll ? resources.flatMap(({ scopes }) => scopes) : []
    return [...new Set([...loginScopes, ...(login?.scopes ?? []), ...others])]
  }
  const common = {
    signInGrant: (login: ResourceConfig | undefined): SignInGrant => ({ scopes: signInScopes(login) }),
    isLimitedByScopes: isForAll,
    isCodeForAll: false,
  }
  switch (provider.resourceDialect) {
    case 'resource':
      // Azure AD v1 and AD FS: one `resource`; what it may do is registered, so `scope` is never sent for it.
      return {
        ...common,
        signInGrant: () => ({ scopes: loginScopes }),
        authorizationRequest: (login) => [scope(loginScopes), ...named('resource', login)],
        codeGrant: (login) => named('resource', login),
        refreshGrant: (resource) => named('resource', resource),
        otherGrant: (resource) => named('resource', resource),
      }
    case 'scope':
      // Entra ID v2 and most others: the scopes name the resource, and must come first; `resource` is an error there.
      return {
        ...common,
        isCodeForAll: isForAll,
        authorizationRequest: (login) => [scope(signInScopes(login))],
        codeGrant(login) {
          // A token for one of several is not to be had by the code (RFC 6749 §4.1.3 has no `scope`), but at Entra ID.
          if (!login || (isForAll && resources.length > 1)) return []
          return [scope([...login.scopes, ...loginScopes])]
        },
        refreshGrant: (resource, signIn) => [
          scope([
            ...(isForAll ? grantedScopes(resource, signIn?.granted) : resource.scopes),
            ...ofLogin(signIn?.scopes ?? loginScopes),
          ]),
        ],
        otherGrant: (resource) => [scope(resource.scopes)],
      }
    case 'resource-indicator': {
      // RFC 8707 §2: all resources at the authorization endpoint, exactly one in a token request.
      const indicators = resources.flatMap(({ resource }) => resource ?? [])
      return {
        ...common,
        signInGrant: (login) => ({ indicators, scopes: signInScopes(login) }),
        authorizationRequest: (login) => [
          scope(signInScopes(login)),
          ...resources.flatMap((resource) => named('resource', resource)),
        ],
        codeGrant: (login) => named('resource', login),
        refreshGrant: (resource) => [...named('resource', resource), ...ownScopes(resource)],
        otherGrant: (resource) => [...named('resource', resource), ...ownScopes(resource)],
      }
    }
    case 'audience':
      return {
        ...common,
        authorizationRequest: (login) => [scope(signInScopes(login)), ...named('audience', login)],
        codeGrant: () => [],
        refreshGrant: (resource) => [...named('audience', resource), ...ownScopes(resource)],
        otherGrant: (resource) => [...named('audience', resource), ...ownScopes(resource)],
      }
  }
}

/** What a refresh asks for beside an API's scopes: what the sign-in asked for, so that the answer brings it again. */
function ofLogin(scopes: readonly string[]): string[] {
  return ['offline_access', 'openid'].filter((scope) => scopes.includes(scope))
}

function scope(scopes: readonly string[]): readonly [string, string] {
  return ['scope', [...new Set(scopes)].join(' ')]
}

function ownScopes({ scopes }: ResourceConfig): Parameters {
  return scopes.length > 0 ? [scope(scopes)] : []
}

/** Byte for byte as configured: `https://a/` and `https://a` are two resources. */
function named(parameter: string, resource: ResourceConfig | undefined): Parameters {
  return resource?.resource === undefined ? [] : [[parameter, resource.resource]]
}
