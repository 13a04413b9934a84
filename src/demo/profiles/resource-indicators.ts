import { field, fields } from '../scripted/http-messages.ts'
import {
  type Answer,
  resourceTarget,
  type Target,
  type TokenAsk,
  type TokenPolicy,
} from '../scripted/tokens.ts'
import {
  type Profile,
  type ProfileApi,
  type ProfileDeps,
  refusal,
  STEP_UP_CHALLENGE,
  tokensOf,
  usualPolicy,
} from './profile.ts'

/** RFC 8707 and RFC 9700, without a peculiarity: each API by `resource`, refresh tokens that are good for one use. */
export const plain: Profile = {
  title: 'the standards',
  issuerPath: '',
  paths: {
    authorization: '/authorize',
    token: '/token',
    jwks: '/jwks',
    endSession: '/logout',
    revocation: '/revoke',
  },
  metadata: {
    response_modes_supported: ['query', 'form_post'],
    code_challenge_methods_supported: ['S256'],
    authorization_response_iss_parameter_supported: true,
    scopes_supported: ['openid', 'profile', 'email', 'offline_access'],
  },
  settings: {
    authMethod: 'client_secret_basic',
    resourceDialect: 'resource-indicator',
    scopes: ['openid', 'profile', 'email', 'offline_access'],
  },
  resourceOf: ({ audience, resource = audience, scopes }) => ({
    ...{ resource, audience },
    ...(scopes.length > 0 ? { scopes } : {}),
  }),
  refuseAuthorization: refuseUnknownResource,
  responseParameters: (issuer) => ({ iss: issuer }),
  createTokens: (deps) =>
    tokensOf(deps, { ...usualPolicy(deps), target: (ask) => targetOf(ask, deps) }, 'resource'),
  secondFactorChallenge: STEP_UP_CHALLENGE,
}

/**
 * The same as strict as the standards allow, in the words of oidc-provider: `offline_access` only with prompt=consent
 * (OpenID Connect Core §11), a refresh never widens (RFC 6749 §6), and one that is refused has used up its refresh token.
 */
export const strict: Profile = {
  ...plain,
  title: 'a strict provider',
  asksConsent: (query) => hasConsent(query),
  createTokens: (deps) => tokensOf(deps, strictPolicy(deps), 'resource'),
}

function hasConsent(query: [string, string][]): boolean {
  return (field(query, 'prompt') ?? '').split(' ').includes('consent')
}

function refuseUnknownResource(query: [string, string][], apis: readonly ProfileApi[]) {
  const known = apis.map(({ audience, resource = audience }) => resource)
  if (fields(query, 'resource').every((resource) => known.includes(resource))) return undefined
  return { error: 'invalid_target', error_description: 'resource indicator is missing, or unknown' }
}

function targetOf(ask: TokenAsk, { apis }: ProfileDeps): Target | Answer {
  const target = resourceTarget(ask)
  if (target === 'several')
    return refusal('invalid_target', 'only a single resource indicator value must be requested')
  if (target === 'unknown') return refusal('invalid_target', 'resource indicator is missing, or unknown')
  const api = apis.find(({ audience, resource = audience }) => resource === target.audience)
  return api ? { ...target, audience: api.audience } : target
}

function strictPolicy(deps: ProfileDeps): TokenPolicy {
  return {
    ...usualPolicy(deps),
    target(ask) {
      const asked = field(ask.form, 'scope')?.split(' ') ?? []
      const missing = ask.leg === 'refresh' ? asked.filter((scope) => !ask.grant.scopes.includes(scope)) : []
      if (missing.length > 0)
        return refusal(
          'invalid_scope',
          `refresh token missing requested ${missing.length > 1 ? 'scopes' : 'scope'}`,
        )
      return targetOf(ask, deps)
    },
    usesUpRefused: () => true,
    hasRefreshToken: ({ scopes, prompt }) =>
      scopes.includes('offline_access') && (prompt ?? '').split(' ').includes('consent'),
    refusal: (error, description, status) =>
      error === 'invalid_client'
        ? refusal(error, 'client authentication failed', 401)
        : refusal(error, error === 'invalid_grant' ? 'grant request is invalid' : description, status),
  }
}
