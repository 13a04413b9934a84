import { randomUUID } from 'node:crypto'
import { AZURE_V1, type AzureDialect, ENTRA_V2 } from '../azure/azure-dialects.ts'
import type { AzureAnswer } from '../azure/azure-errors.ts'
import type { AzureGrant } from '../azure/azure-issue.ts'
import { createAzureTokens } from '../azure/azure-tokens.ts'
import { field } from '../scripted/http-messages.ts'
import {
  accessClaimsOf,
  idClaimsOf,
  type Profile,
  type ProfileApi,
  type ProfileDeps,
  type ProfileTokens,
  tokenEvent,
} from './profile.ts'

/** The tenant of the scripted Entra ID. */
const TENANT = '7fe81447-da57-4385-becb-6de57f21477e'

/** The authentication context that the API of the second factor asks for, and the challenge with which it does. */
const CONTEXT = 'c1'
const CLAIMS = JSON.stringify({ access_token: { acrs: { essential: true, value: CONTEXT } } })
const CLAIMS_CHALLENGE = `Bearer realm="", error="insufficient_claims", claims="${Buffer.from(CLAIMS).toString('base64')}"`

/**
 * Entra ID v2 as it was recorded: scopes name one API in each token request, a refresh may ask for any API that the tenant
 * knows, each brings a new refresh token while the old ones stay good, and refusals are AADSTS codes.
 */
export const entra: Profile = azure(ENTRA_V2, {
  title: 'Entra ID',
  // Known by its host otherwise.
  settings: {
    authMethod: 'client_secret_post',
    resourceDialect: 'scope',
    ...{ signInScopes: 'first', offlineConsent: 'never' },
    scopes: ['openid', 'profile', 'email', 'offline_access'],
  },
  resourceOf: ({ audience, scopes }) => ({
    scopes: qualified({ audience, scopes }),
    audience,
  }),
})

/** Azure AD v1: `resource` names the API. For configurations with that dialect. */
export const azureAdV1: Profile = azure(AZURE_V1, {
  title: 'Azure AD v1',
  settings: {
    ...{ authMethod: 'client_secret_post', resourceDialect: 'resource', signInScopes: 'first' },
    scopes: ['openid'],
  },
  resourceOf: ({ audience, resource = audience }) => ({ resource, audience }),
})

function azure(dialect: AzureDialect, own: Pick<Profile, 'title' | 'settings' | 'resourceOf'>): Profile {
  const { authorization, token, jwks, endSession } = dialect.paths(TENANT)
  return {
    ...own,
    issuerPath: dialect.issuerPath(TENANT),
    paths: { authorization, token, jwks, endSession },
    // As recorded: nothing about PKCE, `iss`, revocation, PAR or back-channel logout.
    metadata: {
      response_modes_supported: ['query', 'fragment', 'form_post'],
      scopes_supported: ['openid', 'profile', 'email', 'offline_access'],
      ...{ request_uri_parameter_supported: false, frontchannel_logout_supported: true },
      ...{ tenant_region_scope: 'EU', cloud_instance_name: 'microsoftonline.com' },
    },
    refuseAuthorization: (query) => refuseResource(dialect, query),
    responseParameters: () => ({ session_state: randomUUID() }),
    redirectSuffix: '#',
    createTokens: (deps) => azureTokens(dialect, deps),
    secondFactorChallenge: CLAIMS_CHALLENGE,
  }
}

/** v2 refuses `resource` already at the authorization endpoint. */
function refuseResource(dialect: AzureDialect, query: [string, string][]) {
  if (dialect.version !== 'v2' || field(query, 'resource') === undefined) return undefined
  return {
    error: 'invalid_request',
    error_description: "AADSTS901002: The 'resource' request parameter is not supported.",
  }
}

/** Bounds what a day of refreshes leaves behind. */
const MOST_ACCESS_TOKENS = 2_000
const MOST_REFRESH_TOKENS = 5_000

function azureTokens(dialect: AzureDialect, deps: ProfileDeps): ProfileTokens {
  const grants = new Map<string, AzureGrant>()
  const assertions = new Map<string, AzureGrant>()
  const { apis, accessTokenSeconds, client, codes, signer } = deps
  const answered = (status: number, { json }: AzureAnswer, form: [string, string][]) => {
    const user = grants.get(field(form, 'refresh_token') ?? '')?.user
    const { error } = (json ?? {}) as Record<string, unknown>
    const named = dialect.version === 'v1' ? 'resource' : 'scope'
    deps.observe(tokenEvent({ form }, named, { user, status, error }))
    keepNewest(grants, MOST_REFRESH_TOKENS)
    keepNewest(assertions, MOST_ACCESS_TOKENS)
  }
  const token = createAzureTokens({
    ...{ dialect, tenant: TENANT, client, signer, codes, grants, assertions, violations: [] },
    ...{ issue: (secret) => secret, issuer: deps.issuer, endpoints: { token: deps.tokenEndpoint } },
    resources: Object.fromEntries(apis.map((api) => [resourceAt(dialect, api), { audience: api.audience }])),
    ...{ trace: undefined, now: deps.now },
    policy: {
      ...{ resources: {}, interactive: true, user: '', accessTokenSeconds, idTokenClaims: {} },
      ...{ unsignedIdToken: false, namesNoResource: false, metadataDown: false, enforcesContexts: true },
      claimsOf({ user, withClaims, authTime }, kind) {
        const claims = deps.claimsOf(user)
        const when = authTime === undefined ? {} : { auth_time: authTime }
        if (kind === 'id') return { ...idClaimsOf(claims, ['profile', 'email']), ...when }
        return { ...accessClaimsOf(claims), ...(withClaims ? { acrs: [CONTEXT] } : {}) }
      },
    },
    observe: ({ form }, answer) => answered(answer.status, answer, form),
  })
  return {
    token,
    endGrants(user) {
      for (const grant of grants.values()) if (user === undefined || grant.user === user) grant.revoked = true
    },
    hadSecondFactor: (accessToken) => assertions.get(accessToken)?.withClaims === true,
    save: () => ({ grants: [...grants], assertions: [...assertions] }) satisfies SavedAzure,
    load(saved) {
      const { grants: kept, assertions: tokens } = saved as SavedAzure
      for (const [key, grant] of kept) grants.set(key, { ...grant })
      for (const [key, grant] of tokens) assertions.set(key, { ...grant })
    },
  }
}

/** A scope names its API, or it would be one of Microsoft Graph. */
function qualified({ audience, scopes }: Pick<ProfileApi, 'audience' | 'scopes'>): string[] {
  const named = scopes.length > 0 ? scopes : ['.default']
  return named.map((scope) => (scope.includes('/') ? scope : `${audience}/${scope}`))
}

/** What token requests call an API: its `resource`, or what its first scope begins with. */
function resourceAt(dialect: AzureDialect, { audience, resource = audience, scopes }: ProfileApi): string {
  if (dialect.version === 'v1') return resource
  return dialect.namedResources([['scope', qualified({ audience, scopes }).join(' ')]])[0] ?? resource
}

type SavedAzure = {
  readonly grants: readonly (readonly [string, AzureGrant])[]
  readonly assertions: readonly (readonly [string, AzureGrant])[]
}

/** A Map keeps the order in which its entries came. */
function keepNewest(map: Map<string, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return
    map.delete(key)
  }
}
