import { ENDPOINT, HOST, ISSUER } from '../rules/addresses.ts'
import { opaqueRule, PARAMETER_VALUE, SCOPE } from '../rules/oauth-rules.ts'
import { signingKeyCheck, textSecretCheck } from '../rules/secret-rules.ts'
import { CLOCK_TOLERANCE, TIMEOUT } from '../rules/units.ts'
import { tlsIdentityFields } from './route-fields.ts'
import type { FieldKit } from './schema.ts'

const RSA_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const
const JWS_ALGORITHMS = [...RSA_ALGORITHMS, 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const

const CLIENT_ID = opaqueRule(
  'must be the client id as text, in quotes if it looks like a number',
  '6731de76-14a6-49ae-97bc-6eba6914391e',
)
const CAPABILITY = opaqueRule('must be a capability without blanks', 'cp1')
const TENANT_ID = opaqueRule('must be a tenant id without blanks', '72f988bf-86f1-41af-91ab-2d7cd011db47')
const KEY_ID = opaqueRule('must be a key id as text without blanks', '"key-2"')

/** `provider:` the OpenID Provider / authorization server. */
export function providerFields(kit: FieldKit) {
  return kit
    .section({
      issuer: kit.text(ISSUER, 'Issuer; its discovery document is read unless `endpoints` says enough.'),
      endpoints: endpointFields(kit),
      clientId: kit.text(CLIENT_ID, 'The client id registered at the provider.'),
      clientAuth: clientAuthFields(kit),
      resourceDialect: kit
        .choice(
          ['scope', 'resource', 'resource-indicator', 'audience'],
          'How a token request names one resource. scope: Entra ID v2 and most others; resource: Azure AD v1, AD FS; resource-indicator: RFC 8707; audience: Auth0.',
        )
        .prefault('scope'),
      scopes: kit
        .list(SCOPE, 'Scopes of the login; openid is among them.')
        .prefault(['openid', 'profile', 'email', 'offline_access']),
      signInScopes: kit
        .choice(
          ['auto', 'all', 'first'],
          'Whose scopes a sign-in asks for beside these: those of all resources, because a refresh may narrow but never widen; of the first, where refreshes widen, as on Entra ID. auto: first on login.microsoftonline.*, login.partner.microsoftonline.cn and sts.windows.net, else all. Set first for Entra ID under another host, such as ciamlogin.com, b2clogin.com or a domain of your own.',
        )
        .prefault('auto'),
      offlineConsent: kit
        .choice(
          ['auto', 'always', 'never'],
          'Whether a sign-in asks with prompt=consent, which many providers want before they grant offline_access. auto: when a sign-in brought no refresh token, it is repeated once with it, and if that helps so are all later ones begun; not on Entra ID.',
        )
        .prefault('auto'),
      responseMode: kit
        .choice(['query'], 'How the provider answers an authorization request.')
        .prefault('query'),
      par: kit
        .choice(['auto', 'required', 'off'], 'Pushed authorization requests (RFC 9126).')
        .prefault('auto'),
      dpop: kit.choice(['off'], 'Sender-constrained tokens (RFC 9449).').prefault('off'),
      authorizationParams: kit
        .map(
          kit.scalar(PARAMETER_VALUE),
          PARAMETER_VALUE.example,
          'More parameters for the authorization request.',
        )
        .prefault({}),
      allowedTenants: kit
        .list(TENANT_ID, 'Entra ID multi-tenant: the `tid` values that may sign in; empty = not checked.')
        .prefault([]),
      clientCapabilities: kit
        .list(CAPABILITY, 'Entra ID client capabilities; `cp1` is continuous access evaluation.')
        .prefault([]),
      reusesRefreshTokens: kit
        .flagOrAuto(
          'Whether a refresh token is offered again that may have been used already, because an answer was lost or a resource refused: true once more, false never (the user signs in again); auto as true, but not to a provider that rotates and refused a resource.',
        )
        .prefault('auto'),
      tls: kit
        .section(tlsIdentityFields(kit))
        .optional()
        .describe(
          'TLS settings for calls to the provider; default: the system CAs and no client certificate.',
        ),
      insecureHosts: kit
        .list(HOST, 'Hosts whose provider endpoints may be plain http, such as those inside a cluster.')
        .prefault([]),
      clockTolerance: kit
        .text(
          CLOCK_TOLERANCE,
          "How far the provider's clock may be from ours, on either side: one for iat, nbf and exp.",
        )
        .prefault('60s'),
      timeout: kit.text(TIMEOUT, 'How long the provider may take to answer one request.').prefault('5s'),
      concurrency: kit
        .wholeNumber(
          { min: 1, max: 1000, example: 32 },
          'Most requests for tokens at the same time, per replica.',
        )
        .prefault(32),
    })
    .describe('The OpenID Provider / authorization server.')
}

function endpointFields(kit: FieldKit) {
  const endpoint = (description: string) => kit.text(ENDPOINT, description).optional()
  return kit
    .section({
      authorization: endpoint('Authorization endpoint.'),
      token: endpoint('Token endpoint.'),
      jwks: endpoint('JSON Web Key Set.'),
      revocation: endpoint('Revocation endpoint (RFC 7009).'),
      endSession: endpoint('End-session endpoint (OpenID Connect RP-Initiated Logout).'),
      userinfo: endpoint('UserInfo endpoint.'),
    })
    .optional()
    .describe('Overrides discovery; with authorization, token and jwks nothing is discovered.')
}

function clientAuthFields(kit: FieldKit) {
  const clientSecret = kit.secret(textSecretCheck, 'The client secret.')
  const privateKeyJwt = kit.section({
    method: kit.constant('private_key_jwt'),
    key: kit.secret(signingKeyCheck, 'Private key, PKCS#8 PEM.'),
    keyId: kit.text(KEY_ID, 'JWS `kid`.').optional(),
    algorithm: kit.choice(JWS_ALGORITHMS, 'JWS algorithm; default: the usual one for the key.').optional(),
  })
  return kit
    .oneOf(
      'method',
      [
        kit.section({ method: kit.constant('client_secret_basic'), secret: clientSecret }),
        kit.section({ method: kit.constant('client_secret_post'), secret: clientSecret }),
        privateKeyJwt,
        kit.section({ method: kit.constant('none') }),
      ],
      {
        values: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
        example: '{ method: client_secret_post, secret: { file: /run/secrets/client-secret } }',
      },
    )
    .describe('How Cloakroom proves to the provider that it is the client.')
}
