import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runRouteTests } from '../../../src/cli/config/route-tests.ts'
import { load, SESSION_KEY, SESSION_KEY_2 } from '../../kit/config/base-config.ts'

/** The file of the public contract, word for word: what every version must accept. */
const DOCUMENTED = `publicUrl: https://app.example.com      # the origin browsers see. http only for a loopback host
listen: 0.0.0.0:8080
admin: { listen: 0.0.0.0:9090 }         # probes, metrics, console. Never on the public listener
trustProxy: [10.0.0.0/8]                # whose X-Forwarded-* to believe; default none
basePath: /bff
allowedOrigins: []                      # other origins whose scripts may call through CORS with credentials; default none

provider:                               # the OpenID Provider / authorization server
  issuer: https://login.microsoftonline.com/TENANT/v2.0     # discovery
  # endpoints: { authorization, token, jwks, revocation, endSession, userinfo }  # without discovery, or to override it
  clientId: 6731de76-14a6-49ae-97bc-6eba6914391e
  clientAuth: { method: client_secret_post, secret: { file: /run/secrets/client-secret } }
  #   method: client_secret_basic | client_secret_post | private_key_jwt | certificate | workload_identity | none
  #   private_key_jwt: key (PEM secret), keyId, algorithm    certificate: key + certificate PEM (sends x5t#S256)
  #   workload_identity: assertionFile, default $AZURE_FEDERATED_TOKEN_FILE, read at each use
  resourceDialect: scope                # how a token request names one resource (section 3)
  scopes: [openid, profile, email, offline_access]
  responseMode: query                   # query | form_post
  par: auto                             # auto | required | off   pushed authorization requests
  dpop: off                             # off | provider | end-to-end
  authorizationParams: { domain_hint: contoso.com }
  allowedTenants: []                    # Entra multi-tenant: \`tid\` allow-list
  clientCapabilities: []                # e.g. [cp1]: continuous access evaluation
  timeout: 5s

session:
  store: { type: redis, url: rediss://redis:6379 }
  #   redis: url | { cluster: [host:port, …] } | { sentinels: [host:port, …], masterName }, username, password, tls: { ca, cert, key, servername }, keyPrefix: cloakroom
  #   memory: one process, lost at restart; the demo's store
  keys: [ { file: /run/secrets/session-key-2 }, { file: /run/secrets/session-key-1 } ]   # first seals, all open
  idleTimeout: 30m
  absoluteTimeout: 10h
  cookie: { name: __Host-Http-cloakroom, sameSite: strict }     # strict | lax. On a loopback http publicUrl: no prefix, no Secure

resources:                              # what the refresh token is exchanged for, one access token each
  orders:  { scopes: [api://orders/.default], audience: api://orders }   # audience: a JWT access token for another one is never sent
  billing: { resource: https://billing.example.com, scopes: [billing.read] }
  audit:   { resource: https://audit.example.com, grant: client_credentials }  # refresh_token (default) | client_credentials | token_exchange

routes:                                 # longest path wins, at segment boundaries; two that can match the same request equally well are an error
  - path: /api/orders
    id: orders                          # label in metrics and logs; default: the path
    upstream: http://orders.shop.svc:8080
    rewrite: /v1                        # replaces the matched prefix; absent = the path is kept as it is
    resource: orders                    # absent = no token is sent
    auth: required                      # required (default) | optional | anonymous
    methods: [GET, POST]                # default all
    csrf: header                        # header (default) | fetch-metadata: Sec-Fetch-Site or Origin says same-origin (downloads, images). No off switch where a token is sent
    timeout: { connect: 2s, response: 30s, idle: 5m }   # response = until its headers
    websocket: false
    maxBody: 10MiB                      # default none
    tls: { ca, cert, key, servername }
    headers: { x-user-id: "{claims.sub}" }              # added for the upstream; the client's own are removed
    require: { claims: { groups: [ops] }, acr: [mfa], maxAge: 15m, scopes: [orders.write] }   # all of these members, each by one of its values (section 4b)
    bearer: { audience: api://orders, scopes: [] }      # clients with an access token of their own, beside the cookie (section 4b)
  - path: /
    upstream: http://spa.shop.svc:80
    auth: anonymous

tests:                                  # checked by \`check\` and before every reload: a config that breaks one is refused
  - request: GET /api/orders/42?x=1
    expect: { route: orders, upstream: "http://orders.shop.svc:8080/v1/42?x=1", resource: orders }
  - request: DELETE /api/orders/42
    expect: { code: method_not_allowed }
  - request: GET /api/orders/42
    as: { groups: [staff] }             # claims of the signed-in user; \`as: nobody\` for none; without \`as\` access rules are not judged
    expect: { code: access_denied }
`

test('the config file of the public contract loads, and its routes do what its tests say', () => {
  const files = {
    '/run/secrets/client-secret': 'hush',
    '/run/secrets/session-key-1': SESSION_KEY,
    '/run/secrets/session-key-2': SESSION_KEY_2,
  }
  const { config, warnings } = load(DOCUMENTED, { files })
  assert.deepEqual(runRouteTests(config), [])
  assert.deepEqual(config.resources.audit?.scopes, ['https://audit.example.com/.default'])
  assert.equal(config.routes[0]?.tls, undefined)
  assert.deepEqual(
    warnings.map(({ path }) => path),
    ['provider.issuer', 'resources.billing', 'resources.billing.scopes[0]', 'resources.audit'],
  )
})
