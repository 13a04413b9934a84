import { field } from '../scripted/http-messages.ts'
import { type AzureAnswer, type AzureTrace, azureErrorBody } from './azure-errors.ts'

/** One resource of a token request, or the refusal. */
export type AskedResource = { readonly resource: string; readonly scopes: readonly string[] } | AzureAnswer

/** What a successful token response is made of. */
export type IssuedTokens = {
  readonly resource: string
  readonly scopes: readonly string[]
  /** Scopes as asked, OIDC ones included. */
  readonly askedScopes: readonly string[]
  readonly lifetimeSeconds: number
  /** Epoch seconds. */
  readonly now: number
  readonly accessToken: string
  readonly refreshToken: string | undefined
  readonly idToken: string | undefined
}

/** Where v1 and v2 of the token endpoint differ. */
export type AzureDialect = {
  readonly version: 'v1' | 'v2'
  /** Paths below the origin. */
  paths(tenant: string): Record<'authorization' | 'token' | 'jwks' | 'endSession' | 'userinfo', string>
  issuerPath(tenant: string): string
  /** Reads the resource of a code or refresh request. `signedInFor` is what the authorization request named. */
  askedResource(
    form: [string, string][],
    leg: 'code' | 'refresh' | 'client_credentials' | 'on_behalf_of',
    signedInFor: readonly string[],
    trace: AzureTrace,
  ): AskedResource
  /** The resources that an authorization request names. */
  namedResources(query: [string, string][]): string[]
  tokenResponse(issued: IssuedTokens): Record<string, unknown>
}

const invalid = (trace: AzureTrace, error: string, code: number, text: string): AzureAnswer => ({
  status: 400,
  json: azureErrorBody(trace, error, `AADSTS${code}: ${text}`, [code], { errorUri: true }),
})

/** Azure AD v1: `resource` names the resource, `scope` is ignored, numbers are strings. */
export const AZURE_V1: AzureDialect = {
  version: 'v1',
  paths: (tenant) => ({
    authorization: `/${tenant}/oauth2/authorize`,
    token: `/${tenant}/oauth2/token`,
    jwks: '/common/discovery/keys',
    endSession: `/${tenant}/oauth2/logout`,
    userinfo: `/${tenant}/openid/userinfo`,
  }),
  issuerPath: (tenant) => `/${tenant}/`,
  askedResource(form, leg, signedInFor, trace) {
    const atSignIn = leg === 'code' ? signedInFor[0] : undefined
    const asked = field(form, 'resource')
    // The text of a recorded answer, without error_uri.
    if (!asked && !atSignIn)
      return {
        status: 400,
        json: azureErrorBody(
          trace,
          'invalid_resource',
          'AADSTS50001: Resource identifier is not provided.',
          [50001],
        ),
      }
    if (asked && atSignIn && asked !== atSignIn)
      return invalid(
        trace,
        'invalid_grant',
        70000,
        "The provided value for the input parameter 'resource' differs from the one of the authorization request.",
      )
    return { resource: asked ?? atSignIn!, scopes: ['user_impersonation'] }
  },
  namedResources: (query) => [field(query, 'resource')].filter((resource) => resource !== undefined),
  tokenResponse: (issued) => ({
    token_type: 'Bearer',
    expires_in: String(issued.lifetimeSeconds),
    expires_on: String(issued.now + issued.lifetimeSeconds),
    not_before: String(issued.now),
    ext_expires_in: String(issued.lifetimeSeconds),
    resource: issued.resource,
    scope: issued.scopes.join(' '),
    access_token: issued.accessToken,
    ...(issued.refreshToken ? { refresh_token: issued.refreshToken } : {}),
    ...(issued.idToken ? { id_token: issued.idToken } : {}),
  }),
}

/** Entra ID v2: scopes name the resource, `resource` is refused, numbers are numbers. */
export const ENTRA_V2: AzureDialect = {
  version: 'v2',
  paths: (tenant) => ({
    authorization: `/${tenant}/oauth2/v2.0/authorize`,
    token: `/${tenant}/oauth2/v2.0/token`,
    jwks: `/${tenant}/discovery/v2.0/keys`,
    endSession: `/${tenant}/oauth2/v2.0/logout`,
    userinfo: '/oidc/userinfo',
  }),
  issuerPath: (tenant) => `/${tenant}/v2.0`,
  askedResource(form, leg, signedInFor, trace) {
    if (field(form, 'resource') !== undefined)
      return invalid(trace, 'invalid_request', 901002, "The 'resource' request parameter is not supported.")
    const scope = field(form, 'scope') ?? ''
    const asked = resourceScopes(scope)
    const resources = [...new Set(asked.map(resourceOfScope))]
    // A refresh silently answers for the first resource; only the code is refused.
    if (resources.length > 1 && leg === 'code')
      return invalid(
        trace,
        'invalid_request',
        28000,
        `Provided value for the input parameter scope is not valid because it contains more than one resource. Scope ${scope} is not valid.`,
      )
    const mixed = asked.length > 1 && asked.some((name) => name.endsWith('/.default'))
    if (mixed && resources.length === 1)
      return invalid(
        trace,
        'invalid_scope',
        70011,
        `The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope ${scope} is not valid. .default scope can't be combined with resource-specific scopes.`,
      )
    const resource = resources[0] ?? signedInFor[0] ?? GRAPH
    return { resource, scopes: asked.filter((name) => resourceOfScope(name) === resource) }
  },
  namedResources: (query) => [...new Set(resourceScopes(field(query, 'scope') ?? '').map(resourceOfScope))],
  tokenResponse: (issued) => ({
    token_type: 'Bearer',
    scope: [
      ...issued.scopes,
      ...issued.askedScopes.filter((s) => OIDC.has(s) && s !== 'offline_access'),
    ].join(' '),
    expires_in: issued.lifetimeSeconds,
    ext_expires_in: issued.lifetimeSeconds,
    access_token: issued.accessToken,
    ...(issued.refreshToken ? { refresh_token: issued.refreshToken } : {}),
    ...(issued.idToken ? { id_token: issued.idToken } : {}),
  }),
}

const OIDC = new Set(['openid', 'profile', 'email', 'offline_access'])
const GRAPH = 'https://graph.microsoft.com'

function resourceScopes(scope: string): string[] {
  return scope.split(' ').filter((name) => name !== '' && !OIDC.has(name))
}

/** `api://orders/.default` → `api://orders`; a bare name is Microsoft Graph's. */
function resourceOfScope(scope: string): string {
  const slash = scope.lastIndexOf('/')
  return slash < 0 ? GRAPH : scope.slice(0, slash)
}
