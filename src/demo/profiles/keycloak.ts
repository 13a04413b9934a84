import { field } from '../scripted/http-messages.ts'
import type { Target, TokenAsk, TokenPolicy } from '../scripted/tokens.ts'
import {
  accessClaimsOf,
  type Profile,
  type ProfileApi,
  type ProfileDeps,
  refusal,
  STEP_UP_CHALLENGE,
  tokensOf,
  usualPolicy,
} from './profile.ts'

/** Client scopes that a realm knows beside those of the APIs. */
const REALM_SCOPES = ['openid', 'profile', 'email', 'offline_access', 'roles', 'web-origins', 'acr', 'basic']
/** Those of a client unless it is told otherwise; they are not asked for. */
const DEFAULT_SCOPES = ['profile', 'email']

/**
 * Keycloak 26.7 with "Revoke Refresh Token", as it was measured: `npm run providers -- keycloak` compares the two. A
 * client scope with an Audience mapper stands for each API.
 */
export const keycloak: Profile = {
  title: 'Keycloak',
  issuerPath: '/realms/dev',
  paths: {
    authorization: '/realms/dev/protocol/openid-connect/auth',
    token: '/realms/dev/protocol/openid-connect/token',
    jwks: '/realms/dev/protocol/openid-connect/certs',
    endSession: '/realms/dev/protocol/openid-connect/logout',
    revocation: '/realms/dev/protocol/openid-connect/revoke',
  },
  metadata: {
    response_modes_supported: ['query', 'form_post'],
    code_challenge_methods_supported: ['plain', 'S256'],
    authorization_response_iss_parameter_supported: true,
    require_pushed_authorization_requests: false,
  },
  settings: {
    authMethod: 'client_secret_basic',
    resourceDialect: 'scope',
    scopes: ['openid', 'profile', 'email'],
  },
  resourceOf: ({ name, audience, scopes }) => ({ scopes: scopes.length > 0 ? scopes : [name], audience }),
  refuseAuthorization(query, apis) {
    const repeated = repeatedName(query)
    if (repeated) return { error: 'invalid_request', error_description: 'duplicated parameter' }
    const unknown = scopesOf(query).filter((scope) => !knownScopes(apis).includes(scope))
    if (unknown.length === 0) return undefined
    return { error: 'invalid_scope', error_description: `Invalid scopes: ${scopesOf(query).join(' ')}` }
  },
  responseParameters: (issuer, { sid }) => ({ session_state: sid, iss: issuer }),
  createTokens: (deps) => tokensOf(deps, policyOf(deps), 'scope'),
  secondFactorChallenge: STEP_UP_CHALLENGE,
}

function policyOf(deps: ProfileDeps): TokenPolicy {
  return {
    ...usualPolicy(deps),
    check: (form) => (repeatedName(form) ? refusal('invalid_request', 'duplicated parameter') : undefined),
    target: (ask) => targetOf(ask, deps.apis),
    // Within its own session a client needs no offline_access.
    hasRefreshToken: () => true,
    accessTokenType: 'JWT',
    accessClaims: ({ user, sid }) => {
      const { roles, ...claims } = accessClaimsOf(deps.claimsOf(user))
      return {
        ...{ typ: 'Bearer', azp: deps.client.clientId, client_id: undefined, sid, ...claims },
        ...(Array.isArray(roles) ? { realm_access: { roles } } : {}),
      }
    },
    answer: (json, { grant }) => ({
      ...json,
      ...{ refresh_expires_in: 1800, 'not-before-policy': 0, session_state: grant.sid },
    }),
    refusal: (error, description, status) =>
      error === 'invalid_client'
        ? refusal('unauthorized_client', 'Invalid client or Invalid client credentials', 401)
        : refusal(error, WORDS[description] ?? description, status),
  }
}

const WORDS: Readonly<Record<string, string>> = {
  'refresh token not found': 'Invalid refresh token',
  'grant is revoked': 'Session not active',
  'code: spent': 'Code not valid',
  'code: unknown': 'Code not valid',
  'refresh token already used': 'Maximum allowed refresh token reuse exceeded',
}

/** A refresh names scopes of the sign-in; others are dropped without an error, and the token then has no audience of theirs. */
function targetOf({ form, grant, leg }: TokenAsk, apis: readonly ProfileApi[]): Target {
  const granted = [...new Set([...grant.scopes, ...DEFAULT_SCOPES])]
  const asked = leg === 'refresh' ? field(form, 'scope')?.split(' ').filter(Boolean) : undefined
  const scopes = asked
    ? granted.filter((scope) => asked.includes(scope) || DEFAULT_SCOPES.includes(scope))
    : granted
  const audiences = apis
    .filter(({ name, scopes: own }) => scopesOfApi(name, own).some((scope) => scopes.includes(scope)))
    .map(({ audience }) => audience)
  // By its default roles every user has some of the client "account".
  const audience = audiences.length === 0 ? 'account' : [...audiences, 'account']
  return { audience, scope: scopes.join(' ') }
}

const scopesOfApi = (name: string, scopes: readonly string[]) => (scopes.length > 0 ? scopes : [name])

function knownScopes(apis: readonly ProfileApi[]): string[] {
  return [...REALM_SCOPES, ...apis.flatMap(({ name, scopes }) => scopesOfApi(name, scopes))]
}

function scopesOf(params: [string, string][]): string[] {
  return (field(params, 'scope') ?? '').split(' ').filter(Boolean)
}

function repeatedName(params: [string, string][]): string | undefined {
  const names = params.map(([name]) => name)
  return names.find((name, index) => names.indexOf(name) !== index)
}
