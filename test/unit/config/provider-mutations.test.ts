import { describeMutations } from './mutations.ts'

const ISSUER = 'issuer: https://id.example.com'
const SECRET = 'secret: { env: CLIENT_SECRET }'

describeMutations('the provider and its resources', [
  [ISSUER, 'isuer: https://id.example.com', 'provider.isuer', /did you mean "issuer"\?/],
  [ISSUER, '', 'provider.issuer', /^is required/],
  [ISSUER, 'issuer: http://id.example.com', 'provider.issuer', /must be https/],
  [ISSUER, 'issuer: https://id.example.com?x=1', 'provider.issuer', /without query or fragment/],
  ...[
    ['https://id.example.com/t/v2.0/.well-known/openid-configuration', 'https://id.example.com/t/v2.0'],
    ['https://id.example.com/.well-known/openid-configuration/', 'https://id.example.com'],
    ['https://id.example.com/.well-known/openid-configuration?appid=x', 'https://id.example.com'],
    ['https://id.example.com/.well-known/oauth-authorization-server', 'https://id.example.com'],
    ['https://id.example.com/.well-known/oauth-authorization-server/t1', 'https://id.example.com/t1'],
    ['https://id.example.com/.well-known/openid-configuration/realms/x', 'https://id.example.com/realms/x'],
  ].map(
    ([url, cure]) =>
      [
        ISSUER,
        `issuer: ${url}`,
        'provider.issuer',
        new RegExp(`must be the issuer, not the address of its discovery document; write ${cure}[ ,(]`),
      ] as [string, string, string, RegExp],
  ),
  [ISSUER, `${ISSUER}\n  endpoints: { token: /token }`, 'provider.endpoints.token', /absolute https URL/],
  [ISSUER, `${ISSUER}\n  endpoints: { tokn: x }`, 'provider.endpoints.tokn', /did you mean "token"\?/],
  [ISSUER, `${ISSUER}\n  par: on`, 'provider.par', /must be auto, required or off \(got "on"\)/],
  [
    'clientId: spa',
    'clientId: 12345',
    'provider.clientId',
    /in quotes if it looks like a number \(got 12345\)/,
  ],
  ['clientId: spa', 'client_id: spa', 'provider.client_id', /did you mean "clientId"\?/],
  [
    'client_secret_post',
    'client_secret_pots',
    'provider.clientAuth.method',
    /did you mean "client_secret_post"\?/,
  ],
  ['client_secret_post', 'none', 'provider.clientAuth.secret', /not a known key/],
  [
    '    method: client_secret_post\n',
    '',
    'provider.clientAuth.method',
    /^is required: client_secret_basic, /,
  ],
  [SECRET, '', 'provider.clientAuth.secret', /^is required: \{ env: NAME \} or \{ file: PATH \}$/],
  [SECRET, 'secret: { env: NOPE }', 'provider.clientAuth.secret', /environment variable NOPE is not set/],
  [
    SECRET,
    'secret: { file: nope }',
    'provider.clientAuth.secret',
    /cannot read the file .*nope \(there is no such/,
  ],
  [SECRET, 'secret: { fiel: nope }', 'provider.clientAuth.secret', /did you mean "file"\?/],
  [SECRET, 'secret: ""', 'provider.clientAuth.secret', /must not be empty/],
  [
    'client_secret_post\n    secret',
    'private_key_jwt\n    key',
    'provider.clientAuth.key',
    /must hold an unencrypted PKCS#8/,
  ],
  ['resourceDialect: scope', 'resourceDialect: scopes', 'provider.resourceDialect', /did you mean "scope"\?/],
  [
    'scopes: [openid, profile, offline_access]',
    'scopes: [profile]',
    'provider.scopes',
    /must include openid/,
  ],
  [
    'scopes: [openid, profile, offline_access]',
    'scopes: ["a b"]',
    'provider.scopes[0]',
    /one scope without blanks/,
  ],
  ['{ domain_hint: contoso.com }', '{ state: x }', 'provider.authorizationParams.state', /sets state itself/],
  [
    '{ domain_hint: contoso.com }',
    '{ code_challenge_method: plain }',
    'provider.authorizationParams.code_challenge_method',
    /itself/,
  ],
  [
    '{ domain_hint: contoso.com }',
    '{ request_uri: "urn:x" }',
    'provider.authorizationParams.request_uri',
    /itself/,
  ],
  ['timeout: 5s', 'timeout: 5', 'provider.timeout', /duration with its unit .*got 5\), e\.g\. 5s/],
  ['timeout: 5s', 'timeout: 25d', 'provider.timeout', /at most 24d/],
  [
    'timeout: 5s',
    'concurrency: 0',
    'provider.concurrency',
    /must be a whole number from 1 to 1000 \(got 0\), e\.g\. 32/,
  ],
  ['timeout: 5s', 'concurrency: 1001', 'provider.concurrency', /from 1 to 1000 \(got 1001\)/],
  ['timeout: 5s', 'concurrency: 2.5', 'provider.concurrency', /must be a whole number .*\(got 2\.5\)/],
  ['timeout: 5s', 'concurrency: many', 'provider.concurrency', /must be a whole number .*\(got "many"\)/],

  ['  orders: {', '  or ders: {', 'resources["or ders"]', /must be a name of letters/],
  [
    'scopes: [api://orders/.default], audience',
    'scope: [], audience',
    'resources.orders.scope',
    /did you mean "scopes"\?/,
  ],
  [
    'scopes: [api://orders/.default], audience',
    'audience',
    'resources.orders.scopes',
    /scopes name the resource/,
  ],
  [
    'resourceDialect: scope',
    'resourceDialect: audience',
    'resources.orders.resource',
    /is required: with .*"audience"/,
  ],
  [
    '{ scopes: [api://billing/.default] }',
    '{ resource: "a b" }',
    'resources.billing.resource',
    /without blanks/,
  ],
])
