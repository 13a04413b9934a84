import type { ProviderConfig, ResourceConfig } from '../../config/config.ts'
import type { SessionGrant } from '../../store/port.ts'
import type { Parameters } from '../token-endpoint/openid-client.ts'
import { apiScopes, grantedScopes } from './scopes.ts'

/** What a sign-in asks for, as far as its refresh token is limited by it. */
export type SignInGrant = Pick<SessionGrant, 'indicators' | 'scopes'>

/** How requests to one provider name resources: pure, exact, one row per dialect of contract section 3. */
export type Dialect = {
  /** What a sign-in for `login` asks for, to be remembered with its session. */
  signInGrant(login: ResourceConfig | undefined): SignInGrant
  /** Parameters of the authorization request: what lets the refresh token serve every resource in use, `login` first. */
  authorizationRequest(login: ResourceConfig | undefined): Parameters
  /** Parameters of the code grant: the access token that comes with the code is for the resource `login`. */
  codeGrant(login: ResourceConfig | undefined): Parameters
  /** Parameters of a refresh grant for exactly one resource. */
  refreshGrant(resource: ResourceConfig, signIn?: SessionGrant): Parameters
  /** Parameters of a grant for exactly one resource without a refresh token: client credentials, token exchange. */
  otherGrant(resource: ResourceConfig): Parameters
  /** Whether the scopes of a code answer are those of the whole grant, and not of one resource only. */
  readonly isCodeForAll: boolean
  /** The token that comes with the code is for the UserInfo endpoint, and for no resource. */
  readonly isCodeForUserInfo?: boolean
  /** What of a resource a sign-in did not ask for, if a refresh must not ask for it then; blank-separated. */
  notAskedFor(resource: ResourceConfig, signIn: SessionGrant): string | undefined
  /** Whether the code answer named the scopes of the whole grant, and none of this resource's is among them. */
  isDenied(resource: ResourceConfig, signIn: SessionGrant): boolean
}

type DialectSettings = Pick<ProviderConfig, 'resourceDialect' | 'scopes' | 'signInScopes'> &
  Partial<Pick<ProviderConfig, 'userinfo'>>

/** Makes the dialect of one provider. @param resources those that routes use with the refresh token, in their order. */
export function createDialect(provider: DialectSettings, resources: readonly ResourceConfig[]): Dialect {
  const loginScopes = provider.scopes
  const isForAll = provider.signInScopes === 'all' && provider.resourceDialect !== 'resource'
  const signInScopes = (login: ResourceConfig | undefined): readonly string[] => {
    const others = isForAll ? resources.flatMap(({ scopes }) => scopes) : []
    return [...new Set([...loginScopes, ...(login?.scopes ?? []), ...others])]
  }
  const isCodeForAll = isForAll && provider.resourceDialect === 'scope'
  const common = {
    isCodeForAll,
    signInGrant: (login: ResourceConfig | undefined): SignInGrant => ({ scopes: signInScopes(login) }),

    notAskedFor(
      resource: ResourceConfig,
      { indicators, scopes, steppedUp = [] }: SessionGrant,
    ): string | undefined {
      if (indicators && resource.resource !== undefined && !indicators.includes(resource.resource))
        return resource.resource
      // RFC 6749 §6: a refresh may ask only for scopes that the sign-in asked for. Entra ID alone widens.
      if (!isForAll) return undefined
      const wanted = apiScopes(resource.scopes)
      if (scopes) return wanted.filter((scope) => !scopes.includes(scope)).join(' ') || undefined
      if (indicators || wanted.length === 0 || resources.length === 1) return undefined
      // A session of a version that asked for one resource only: the first, unless a step-up was for another.
      return steppedUp.length === 0 && resources[0] === resource ? undefined : wanted.join(' ')
    },

    isDenied(resource: ResourceConfig, { granted }: SessionGrant): boolean {
      if (!isCodeForAll || granted === undefined || apiScopes(resource.scopes).length === 0) return false
      return apiScopes(grantedScopes(resource, granted)).length === 0
    },
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
        // A token for one of the resources is none for the UserInfo endpoint.
        isCodeForUserInfo: provider.userinfo === true,
        codeGrant: (login) => (provider.userinfo ? [] : named('resource', login)),
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

/**
 * The `claims` parameter of a request (OpenID Connect Core §5.5), if it needs one: what a challenge asks for, with our
 * client capabilities merged in as `xms_cc`, as Entra ID wants them.
 *
 * @param claims JSON text of a challenge; anything that is no JSON object is left out.
 */
export function claimsParameter(capabilities: readonly string[], claims?: string): Parameters {
  const asked = objectOf(claims)
  if (capabilities.length === 0) return asked ? [['claims', JSON.stringify(asked)]] : []
  const accessToken = isObject(asked?.access_token) ? asked.access_token : {}
  const merged = { ...asked, access_token: { ...accessToken, xms_cc: { values: capabilities } } }
  return [['claims', JSON.stringify(merged)]]
}

/** The parameters of each request for one access token, but for what proves the client, and a refresh token. */
export type GrantRequests = {
  /** RFC 6749 §6. */
  refresh(
    resource: ResourceConfig,
    asked?: { readonly signIn?: SessionGrant | undefined; readonly claims?: string | undefined },
  ): Parameters
  /** RFC 8693 §2.1, or Entra ID's on-behalf-of flow. */
  exchange(
    resource: ResourceConfig,
    asked: { readonly subjectToken: string; readonly claims?: string | undefined },
  ): { readonly grantType: string; readonly parameters: Parameters }
  /** RFC 6749 §4.4. */
  client(resource: ResourceConfig): Parameters
}

/** Makes these requests: what is sent, and what `explain` prints. */
export function createGrantRequests(dialect: Dialect, clientCapabilities: readonly string[]): GrantRequests {
  const claimsOf = (claims?: string) => claimsParameter(clientCapabilities, claims)
  return {
    refresh: (resource, { signIn, claims } = {}) => [
      ...dialect.refreshGrant(resource, signIn),
      ...claimsOf(claims),
    ],
    exchange(resource, { subjectToken, claims }) {
      const { grantType, parameters } = exchangeOf(resource, subjectToken)
      return { grantType, parameters: [...parameters, ...dialect.otherGrant(resource), ...claimsOf(claims)] }
    },
    client: (resource) => dialect.otherGrant(resource),
  }
}

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

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

function objectOf(text: string | undefined): Record<string, unknown> | undefined {
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Issuers of Entra ID, whatever the cloud or the host's name, end in `/{tenant id}/` or `/{tenant id}/v2.0`; AD FS in `/adfs`. */
const MICROSOFT_ISSUER = /\/(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\/v2\.0)?|adfs)\/?$/i

/**
 * Whether this provider takes a refresh token again that it has seen already; `auto` when that has to be learned. Entra
 * ID and AD FS do: their refresh tokens are not revoked when they are used.
 */
export function reusesRefreshTokens({
  issuer,
  reusesRefreshTokens: setting,
}: Pick<ProviderConfig, 'issuer' | 'reusesRefreshTokens'>): boolean | 'auto' {
  return setting === 'auto' && MICROSOFT_ISSUER.test(issuer) ? true : setting
}
