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

/**
 * Auth0 with refresh token rotation and multi-resource refresh tokens whose policies name every API, after its
 * documentation and its SDKs: there is none to measure.
 */
export const auth0: Profile = {
  title: 'Auth0',
  issuerPath: '/',
  paths: {
    authorization: '/authorize',
    token: '/oauth/token',
    jwks: '/.well-known/jwks.json',
    endSession: '/oidc/logout',
    revocation: '/oauth/revoke',
  },
  metadata: {
    response_modes_supported: ['query', 'form_post'],
    code_challenge_methods_supported: ['S256', 'plain'],
    scopes_supported: ['openid', 'profile', 'offline_access', 'email'],
  },
  settings: {
    authMethod: 'client_secret_post',
    resourceDialect: 'audience',
    scopes: ['openid', 'profile', 'email', 'offline_access'],
  },
  resourceOf: ({ audience, scopes }) => ({
    ...{ resource: audience, audience },
    ...(scopes.length > 0 ? { scopes } : {}),
  }),
  refuseAuthorization(query, apis) {
    const audience = field(query, 'audience')
    if (audience === undefined || apis.some((api) => nameOf(api) === audience)) return undefined
    return { error: 'access_denied', error_description: `Service not found: ${audience}` }
  },
  responseParameters: () => ({}),
  createTokens: (deps) => tokensOf(deps, policyOf(deps), 'audience'),
  secondFactorChallenge: STEP_UP_CHALLENGE,
}

function policyOf(deps: ProfileDeps): TokenPolicy {
  return {
    ...usualPolicy(deps),
    target: (ask) => targetOf(ask, deps),
    accessTokenType: 'JWT',
    accessClaims: ({ user }) => ({
      ...accessClaimsOf(deps.claimsOf(user)),
      ...{ azp: deps.client.clientId, client_id: undefined },
    }),
    refusal: (error, description, status) => {
      if (error === 'invalid_client') return refusal('access_denied', 'Unauthorized', 401)
      if (error === 'invalid_grant' && !description.startsWith('code'))
        return refusal(error, 'Unknown or invalid refresh token.', 403)
      if (error === 'invalid_grant') return refusal(error, 'Invalid authorization code', 403)
      return refusal(error, description, status)
    },
  }
}

/** A refresh for an API that is not known is not refused: the token is for the API of the sign-in. */
function targetOf({ form, grant }: TokenAsk, { apis, issuer }: ProfileDeps): Target {
  const asked = field(form, 'audience')
  const api = [asked, grant.audience]
    .map((name) => apis.find((one) => nameOf(one) === name))
    .find((one) => one !== undefined)
  const isOpenId = grant.scopes.includes('openid')
  const userInfo = `${issuer}userinfo`
  const scope = field(form, 'scope') ?? grant.scopes.join(' ')
  if (!api) return { audience: userInfo, scope }
  return { audience: isOpenId ? [api.audience, userInfo] : api.audience, scope }
}

const nameOf = ({ audience, resource }: ProfileApi) => resource ?? audience
