// Over 400 lines, because it is one document: every key that an operator may write, with its kind, default and description.

import {
  ALLOWED_ORIGIN,
  ENDPOINT,
  HOST,
  ISSUER,
  LISTEN,
  PROXY_RANGE,
  PUBLIC_URL,
  REDIS_NODE,
  REDIS_URL,
  UPSTREAM,
} from '../rules/addresses.ts'
import { COOKIE_NAME, HEADER_VALUE, KEY_PREFIX, METHOD, REQUEST_LINE, ROUTE_ID } from '../rules/http-rules.ts'
import { opaqueRule, PARAMETER_VALUE, RESOURCE_IDENTIFIER, SCOPE } from '../rules/oauth-rules.ts'
import { BASE_PATH, REWRITE_PATH, ROUTE_PATH } from '../rules/paths.ts'
import type { Rule } from '../rules/rule.ts'
import {
  certificateCheck,
  hmacSecretCheck,
  sessionKeyCheck,
  signingKeyCheck,
  textSecretCheck,
  tlsKeyCheck,
} from '../rules/secret-rules.ts'
import { CLOCK_TOLERANCE, DRAIN_DELAY, RATE_LIMIT, SESSION_TIME, SIZE, TIMEOUT } from '../rules/units.ts'
import type { SecretReader } from '../secrets/secret-source.ts'
import {
  createFieldKit,
  type DraftOf,
  type FieldKit,
  type Fields,
  jsonSchemaOf,
  readFields,
} from './field-kit.ts'

/** The config file's fields with units, secrets and defaults resolved; what no single field can know is not checked yet. */
export type FileConfig = Fields<ReturnType<typeof configFields>>

/** The same with every field that is wrong or missing left out, so that the other checks can still run. */
export type Draft = DraftOf<FileConfig>

/** Reads a parsed config file, each field by itself. `file` is there only when there are no issues. */
export function readConfigFields(raw: unknown, secrets: SecretReader) {
  reader = secrets
  try {
    return readFields(configSchema(), raw)
  } finally {
    reader = NO_SECRETS
  }
}

/** The JSON Schema (2020-12) of the config file as operators write it. */
export function configJsonSchema(): Record<string, unknown> {
  return jsonSchemaOf(configSchema())
}

const NO_SECRETS: SecretReader = {
  open: () => ({ problem: '' }),
  isInline: () => false,
  assertionFile: () => ({ problem: '' }),
}
/** That of the reading under way, which is synchronous. */
let reader = NO_SECRETS
let schema: ReturnType<typeof configFields> | undefined

/** Made once, because that takes ten times as long as a reading, in which nothing else is served. */
function configSchema() {
  schema ??= configFields(
    createFieldKit({
      open: (source, check) => reader.open(source, check),
      isInline: (secret) => reader.isInline(secret),
      assertionFile: (written) => reader.assertionFile(written),
    }),
  )
  return schema
}

/** Everything that an operator may write, in the order of the documentation, with defaults as the operator would write them. */
function configFields(kit: FieldKit) {
  return kit
    .section({
      publicUrl: kit.text(PUBLIC_URL, 'The origin browsers see. http only for a loopback host.'),
      listen: kit.text(LISTEN, 'Socket of the public listener.').prefault('0.0.0.0:8080'),
      drainDelay: kit
        .text(DRAIN_DELAY, 'After SIGTERM: not ready, but still accepting for so long.')
        .prefault('0s'),
      admin: adminFields(kit),
      trustProxy: kit
        .list(PROXY_RANGE, 'Whose X-Forwarded-* to believe: addresses or CIDR ranges.')
        .prefault([]),
      basePath: kit.text(BASE_PATH, "Where Cloakroom's own endpoints live.").prefault('/bff'),
      allowedOrigins: kit
        .list(ALLOWED_ORIGIN, 'Other origins whose scripts may call through CORS with credentials.')
        .prefault([]),
      hosts: kit
        .list(HOST, 'Other values of Host that are served, such as a name inside the cluster.')
        .prefault([]),
      limits: limitFields(kit),
      rateLimits: rateLimitFields(kit),
      provider: providerFields(kit),
      session: sessionFields(kit),
      resources: resourceFields(kit),
      routes: kit
        .listOf(routeFields(kit), '[{ path: /api, upstream: "http://api:8080" }]')
        .min(1)
        .describe('Where requests go. The longest path wins, at segment boundaries.'),
      tests: kit
        .listOf(testFields(kit), '[{ request: GET /api/orders, expect: { route: orders } }]')
        .prefault([])
        .describe(
          'Checked by `cloakroom check`, at every start and every reload: a config that breaks one is refused.',
        ),
    })
    .meta({ title: 'Cloakroom configuration' })
}

function adminFields(kit: FieldKit) {
  return kit
    .section({
      listen: kit
        .text(LISTEN, 'Socket of probes and metrics; never the public one.')
        .prefault('0.0.0.0:9090'),
      hosts: kit
        .list(
          HOST,
          'Names it may be called by beside IP addresses, loopback names and the machine name; without a port: with any.',
        )
        .prefault([]),
      strictReadiness: kit
        .flag('True: /readyz also fails while the store or the provider is away.')
        .prefault(false),
    })
    .prefault({})
    .describe('The listener for operators.')
}

const SMALLEST_HEAD = 4_096

/** A browser's cookies and a sign-in's answer must fit. */
const HEADER_SIZE: Rule<number> = {
  must: 'must be a size with its unit (B, KB, KiB, MB, MiB, GB or GiB), at least 4KiB',
  example: '32KiB',
  parse: (text) => {
    const size = SIZE.parse(text)
    return size !== undefined && size >= SMALLEST_HEAD ? size : undefined
  },
}

/** `limits:` of the public listener. */
function limitFields(kit: FieldKit) {
  return kit
    .section({
      connections: kit
        .wholeNumber({ min: 1, max: 1_000_000, example: 10_000 }, 'Most open connections of clients.')
        .prefault(10_000),
      connectionsPerClient: kit
        .wholeNumber(
          { min: 1, max: 1_000_000, example: 1_000 },
          'Most open connections of one address, WebSockets included; those in trustProxy have no limit.',
        )
        .prefault(1_000),
      headerSize: kit
        .text(HEADER_SIZE, 'Largest head of a request: request line and fields.')
        .prefault('32KiB'),
      headerCount: kit
        .wholeNumber({ min: 10, max: 2_000, example: 100 }, 'Most field lines in the head of a request.')
        .prefault(100),
      urlLength: kit.text(SIZE, 'Longest path and query.').prefault('16KiB'),
      headerTimeout: kit.text(TIMEOUT, 'Until the head of a request is whole.').prefault('30s'),
      bodyRate: kit
        .wholeNumber(
          { min: 0, max: 1_000_000, example: 240 },
          'Bytes per second that a request body must come with, on average, after headerTimeout; 0 for none.',
        )
        .prefault(240),
      keepAlive: kit
        .text(TIMEOUT, "How long a connection may idle; longer than the load balancer's own limit.")
        .prefault('75s'),
      webSocketsPerSession: kit
        .wholeNumber({ min: 1, max: 10_000, example: 50 }, 'Most WebSockets of one session.')
        .prefault(50),
      webSocketsPerClient: kit
        .wholeNumber(
          { min: 1, max: 1_000_000, example: 200 },
          'Most WebSockets without a session of one client address.',
        )
        .prefault(200),
    })
    .prefault({})
    .describe('What the public listener takes, for each replica.')
}

/** `rateLimits:` on our own endpoints. */
function rateLimitFields(kit: FieldKit) {
  const limit = (what: string) =>
    kit.text(RATE_LIMIT, `${what} of one client address, over all replicas; off for none.`).prefault('600/1m')
  return kit
    .section({
      login: limit('Logins begun'),
      callback: limit('Logins finished'),
      logout: limit('Logouts'),
      frontchannelLogout: limit('Front-channel logouts'),
      backchannelLogout: limit('Back-channel logouts that are refused'),
      events: limit('Security events and revocations that are refused'),
    })
    .prefault({})
    .describe('How often one client address may call, as REQUESTS/DURATION.')
}

const RSA_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const
const JWS_ALGORITHMS = [...RSA_ALGORITHMS, 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const

const CLIENT_ID = opaqueRule(
  'must be the client id as text, in quotes if it looks like a number',
  '6731de76-14a6-49ae-97bc-6eba6914391e',
)
const CAPABILITY = opaqueRule('must be a capability without blanks', 'cp1')
const TENANT_ID = opaqueRule('must be a tenant id without blanks', '72f988bf-86f1-41af-91ab-2d7cd011db47')
const KEY_ID = opaqueRule('must be a key id as text without blanks', '"key-2"')
const CERTIFICATE_ALGORITHMS = ['PS256', 'PS384', 'PS512', 'RS256', 'ES256', 'ES384', 'ES512'] as const

/** `provider:` the OpenID Provider / authorization server. */
function providerFields(kit: FieldKit) {
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
        .choice(
          ['query', 'form_post', 'jwt'],
          'How the provider answers an authorization request: in the query of the redirect, by a form that its page posts, which keeps the code out of URLs, or by a signed JWT in the query (JARM).',
        )
        .prefault('query'),
      responseType: kit
        .choice(
          ['code', 'code id_token'],
          'What the answer brings: a code, or beside it an ID token that is bound to the code; the latter with responseMode form_post only.',
        )
        .prefault('code'),
      par: kit
        .choice(['auto', 'required', 'off'], 'Pushed authorization requests (RFC 9126).')
        .prefault('auto'),
      dpop: kit
        .choice(
          ['off', 'provider', 'end-to-end'],
          'Tokens that are bound to a key of their session (DPoP, RFC 9449). provider: proofs go to the provider, and upstreams get the token as a Bearer token; end-to-end: upstreams get a proof with each request.',
        )
        .prefault('off'),
      authorizationParams: kit
        .map(
          kit.scalar(PARAMETER_VALUE),
          PARAMETER_VALUE.example,
          'More parameters for the authorization request.',
        )
        .prefault({}),
      loginParams: kit
        .listOf(
          kit.choice(
            ['prompt', 'login_hint', 'acr_values', 'max_age', 'ui_locales'],
            'A parameter of the authorization request.',
          ),
          '[prompt, login_hint]',
        )
        .prefault(['prompt', 'login_hint'])
        .describe('What the query of the login URL passes on to the provider; the rest of it is ignored.'),
      userinfo: kit
        .flag(
          "True: a sign-in adds the UserInfo endpoint's claims to those of the ID token, after the check of `sub`.",
        )
        .prefault(false),
      allowedTenants: kit
        .list(TENANT_ID, 'Entra ID multi-tenant: the `tid` values that may sign in; empty = not checked.')
        .prefault([]),
      clientCapabilities: kit
        .list(CAPABILITY, 'Entra ID client capabilities; `cp1` is continuous access evaluation.')
        .prefault([]),
      logoutToken: kit
        .section({
          requireExp: kit
            .flag(
              'Whether a logout token needs an `exp`. false for providers of older drafts, whose tokens are then good for 5 minutes from their `iat`.',
            )
            .prefault(true),
          requireType: kit
            .flag(
              'Whether a logout token needs the type `logout+jwt`. false takes `JWT` and none too, as many providers send.',
            )
            .prefault(false),
        })
        .prefault({})
        .describe('Logout tokens that the provider sends (OpenID Connect Back-Channel Logout).'),
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
      sharedSignals: sharedSignalsFields(kit),
      globalTokenRevocation: kit
        .flag('Whether POST B/global-token-revocation ends the sessions of a user.')
        .prefault(false),
    })
    .describe('The OpenID Provider / authorization server.')
}

/** `provider.sharedSignals:` the transmitter of security events. */
function sharedSignalsFields(kit: FieldKit) {
  return kit
    .section({
      transmitter: kit.text(ISSUER, 'Issuer of the events; its metadata and keys are read from there.'),
      audience: kit.text(
        opaqueRule('must be the audience of the events, without blanks', 'https://app.example.com'),
        'What the `aud` of the events has. A client id is also good for CLIENT/STREAM, as Keycloak writes it.',
      ),
      authorization: kit
        .secret(textSecretCheck, 'The whole value of the Authorization field that pushes come with.')
        .optional(),
      subjects: kit
        .listOf(
          kit.choice(['iss_sub', 'email'], 'Issuer and subject, or a verified e-mail address.'),
          '[iss_sub]',
        )
        .min(1)
        .prefault(['iss_sub'])
        .describe('How an event may name a user; sessions of the provider may be named in any case.'),
    })
    .optional()
    .describe('Security events (Shared Signals: CAEP, RISC) that the provider pushes to B/ssf/events.')
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
  const audience = kit
    .choice(
      ['auto', 'issuer', 'token_endpoint'],
      'What the assertion names as its audience: the issuer, or the URL of the token endpoint. auto: the token endpoint for method certificate and at Microsoft, else the issuer.',
    )
    .prefault('auto')
  const clientSecretJwt = kit.section({
    method: kit.constant('client_secret_jwt'),
    secret: kit.secret(hmacSecretCheck, 'The client secret, at least 32 bytes: the key of HS256.'),
    audience,
  })
  const privateKeyJwt = kit.section({
    method: kit.constant('private_key_jwt'),
    key: kit.secret(signingKeyCheck, 'Private key, PKCS#8 PEM.'),
    keyId: kit.text(KEY_ID, 'JWS `kid`.').optional(),
    algorithm: kit.choice(JWS_ALGORITHMS, 'JWS algorithm; default: the usual one for the key.').optional(),
    audience,
  })
  const certificate = kit.section({
    method: kit.constant('certificate'),
    key: kit.secret(tlsKeyCheck, "The certificate's private key, PEM."),
    certificate: kit.publicSource(certificateCheck, 'The certificate, alone or with its chain, PEM.'),
    algorithm: kit
      .choice(
        CERTIFICATE_ALGORITHMS,
        'JWS algorithm; default: PS256, or the one of an EC key. RS256 sends x5t beside x5t#S256.',
      )
      .optional(),
    audience,
  })
  const workloadIdentity = kit.section({
    method: kit.constant('workload_identity'),
    assertionFile: kit.assertionFile(
      'File of the client assertion, read at each use; default: what AZURE_FEDERATED_TOKEN_FILE names.',
    ),
  })
  return kit
    .oneOf(
      'method',
      [
        kit.section({ method: kit.constant('client_secret_basic'), secret: clientSecret }),
        kit.section({ method: kit.constant('client_secret_post'), secret: clientSecret }),
        clientSecretJwt,
        privateKeyJwt,
        certificate,
        workloadIdentity,
        kit.section({ method: kit.constant('tls_client_auth') }),
        kit.section({ method: kit.constant('none') }),
      ],
      {
        values: [
          ...['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt'],
          ...['certificate', 'tls_client_auth', 'workload_identity', 'none'],
        ],
        example: '{ method: client_secret_post, secret: { file: /run/secrets/client-secret } }',
      },
    )
    .describe('How Cloakroom proves to the provider that it is the client.')
}

function sessionFields(kit: FieldKit) {
  return kit
    .section({
      store: storeFields(kit),
      keys: kit
        .listOf(
          kit.secret(sessionKeyCheck, '256 bits as base64url; `cloakroom keygen` prints one.'),
          '[{ file: /run/secrets/session-key }]',
        )
        .min(1)
        .describe('Session keys: the first seals, all open.'),
      idleTimeout: kit.text(SESSION_TIME, 'A session ends when unused for this long.').prefault('30m'),
      absoluteTimeout: kit
        .text(SESSION_TIME, 'A session ends this long after the login, used or not.')
        .prefault('10h'),
      maxPerUser: kit
        .wholeNumber(
          { min: 0, max: 10_000, example: 5 },
          'Most sessions of one user: a sign-in beyond it ends the oldest; 0 for no limit.',
        )
        .prefault(0),
      cookie: kit
        .section({
          name: kit
            .text(COOKIE_NAME, 'Default __Host-Http-cloakroom; cloakroom on a loopback http publicUrl.')
            .optional(),
          sameSite: kit.choice(['strict', 'lax'], 'SameSite attribute.').prefault('strict'),
        })
        .prefault({})
        .describe('The session cookie.'),
    })
    .describe("The browser's session.")
}

function storeFields(kit: FieldKit) {
  const userName = opaqueRule('must be a user name without blanks', 'cloakroom')
  const redis = kit.section({
    type: kit.constant('redis'),
    url: kit.text(REDIS_URL, 'One address: redis://HOST[:PORT][/DB]; rediss:// for TLS.').optional(),
    cluster: kit
      .list(REDIS_NODE, 'Redis Cluster, in place of url: some of its nodes; they name the rest.')
      .min(1)
      .optional(),
    sentinels: kit
      .list(
        { ...REDIS_NODE, example: 'sentinel-1:26379' },
        'Redis Sentinel, in place of url: all sentinels; they name the primary.',
      )
      .min(1)
      .optional(),
    masterName: kit
      .text(
        opaqueRule('must be a name without blanks', 'mymaster'),
        'What the sentinels call the primary: NAME in their `sentinel monitor NAME …`.',
      )
      .optional(),
    sentinelUsername: kit.text(userName, 'ACL user at the sentinels.').optional(),
    sentinelPassword: kit
      .secret(textSecretCheck, 'Password at the sentinels; default: none, whatever that of Redis is.')
      .optional(),
    sentinelTls: kit
      .flag('Whether the sentinels are asked over TLS; default: as Redis is, when there is a `tls`.')
      .optional(),
    username: kit.text(userName, 'ACL user.').optional(),
    password: kit.secret(textSecretCheck, 'Password.').optional(),
    tls: tlsFields(kit),
    keyPrefix: kit.text(KEY_PREFIX, 'First part of every key.').prefault('cloakroom'),
    durability: kit
      .choice(
        ['none', 'replica'],
        'replica: a rotated refresh token is on one replica of Redis before it is used (WAIT), so that a failover does not lose it; unanswered in 500 ms, it is used all the same, with a warning and a count.',
      )
      .prefault('none'),
  })
  const memory = kit.section({ type: kit.constant('memory') })
  return kit
    .oneOf('type', [redis, memory], {
      values: ['redis', 'memory'],
      example: '{ type: redis, url: rediss://redis:6379 }',
    })
    .describe('Where sessions are kept. memory: in one process, lost at a restart.')
}

function resourceFields(kit: FieldKit) {
  const resource = kit.section({
    resource: kit.text(RESOURCE_IDENTIFIER, 'Identifier of the API, sent byte for byte.').optional(),
    scopes: kit.list({ ...SCOPE, example: 'api://orders/.default' }, 'Scopes to ask for.').prefault([]),
    audience: kit
      .text(
        opaqueRule('must be an audience without blanks', 'api://orders'),
        'A JWT access token for another audience is never sent.',
      )
      .optional(),
    grant: kit
      .choice(['refresh_token', 'client_credentials', 'token_exchange'], 'How its access token is got.')
      .prefault('refresh_token'),
    subject: kit
      .text(
        opaqueRule('must be a name of `resources`', 'orders'),
        'For grant token_exchange: the resource whose access token is exchanged.',
      )
      .optional(),
    exchange: kit
      .choice(
        ['rfc8693', 'on_behalf_of'],
        'For grant token_exchange: RFC 8693, or the on-behalf-of flow; default on_behalf_of on Entra ID, else rfc8693.',
      )
      .optional(),
  })
  return kit
    .map(
      resource,
      '{ orders: { scopes: [api://orders/.default] } }',
      'What the refresh token is exchanged for, one access token each. Routes name them.',
    )
    .prefault({})
}

const RESOURCE_REFERENCE = opaqueRule('must be a name of `resources`', 'orders')
const SERVER_NAME = opaqueRule('must be a host name', 'orders.internal')

/** One item of `routes:`. */
function routeFields(kit: FieldKit) {
  return kit.section({
    path: kit.text(ROUTE_PATH, 'Path prefix: matches itself and everything below.'),
    id: kit.text(ROUTE_ID, 'Label in metrics and logs; default: the path.').optional(),
    upstream: kit.text(UPSTREAM, 'Where requests go: scheme, host and port.'),
    rewrite: kit
      .text(REWRITE_PATH, 'Replaces the matched prefix; absent = the path is kept as it is.')
      .optional(),
    resource: kit.text(RESOURCE_REFERENCE, 'A name of `resources`; absent = no token is sent.').optional(),
    auth: kit
      .choice(['required', 'optional', 'anonymous'], 'Whether a session is needed.')
      .prefault('required'),
    methods: kit.list(METHOD, 'Methods that are let through; default all.').min(1).optional(),
    csrf: kit
      .choice(
        ['header', 'fetch-metadata'],
        'header: requests carry X-CSRF: 1. fetch-metadata: Sec-Fetch-Site or Origin says same-origin (downloads, images).',
      )
      .prefault('header'),
    timeout: timeoutFields(kit),
    websocket: kit.flag('Whether WebSocket upgrades are let through.').prefault(false),
    maxBody: kit.text(SIZE, 'Largest request body; default unlimited.').optional(),
    http2: kit.flag('Whether the upstream is spoken to in HTTP/2.').prefault(false),
    connections: kit
      .wholeNumber(
        { min: 1, max: 100_000, example: 256 },
        'Most connections to the upstream, for each replica; default unlimited.',
      )
      .optional(),
    breaker: breakerFields(kit),
    tls: tlsFields(kit),
    headers: kit
      .map(
        kit.scalar(HEADER_VALUE),
        '{ x-user-id: "{claims.sub}" }',
        "Headers added for the upstream, with {claims.NAME} placeholders; the client's own are removed, on every route.",
      )
      .prefault({}),
    encodedSlashes: kit
      .choice(
        ['reject', 'pass'],
        'reject: a path with %2F is refused. pass: it goes on byte for byte, and separates no segments when matching.',
      )
      .prefault('reject'),
    preserveHost: kit
      .flag(
        "Whether the upstream sees the Host of publicUrl; otherwise its own, and the browser's in X-Forwarded-Host.",
      )
      .prefault(false),
    require: accessFields(kit),
    bearer: kit
      .section(
        {
          audience: kit.text(
            opaqueRule('must be an audience without blanks', 'api://orders'),
            'The `aud` that the token must have.',
          ),
          scopes: kit
            .list({ ...SCOPE, example: 'orders.read' }, 'Scopes that the token must have, all of them.')
            .prefault([]),
        },
        '{ audience: api://orders }',
      )
      .optional()
      .describe(
        "Clients may bring an access token of the provider's in place of the cookie: a command line, a native application, a service.",
      ),
  })
}

const CLAIM_VALUE: Rule<string> = {
  must: 'must be a value of the claim: a text, a number, true or false',
  example: 'ops',
  parse: (text) => (text === '' ? undefined : text),
}
const ACR_VALUE = opaqueRule('must be an authentication context class without blanks', 'mfa')

/** `require:` of a route. */
function accessFields(kit: FieldKit) {
  return kit
    .section(
      {
        claims: kit
          .map(
            kit.listOf(kit.scalar(CLAIM_VALUE), '[ops]').min(1),
            '{ groups: [ops] }',
            'Claims of the user, each with the values of which it must have one. A name that is no claim is read as a path: realm_access.roles.',
          )
          .optional(),
        acr: kit
          .listOf(kit.scalar(ACR_VALUE), '[mfa]')
          .min(1)
          .optional()
          .describe('The user must have signed in by one of these authentication context classes.'),
        maxAge: kit
          .text(SESSION_TIME, 'How long ago the user may have proved to the provider who she is.')
          .optional(),
        scopes: kit
          .list({ ...SCOPE, example: 'orders.write' }, "The route's access token must have one of these.")
          .min(1)
          .optional(),
      },
      '{ claims: { groups: [ops] } }',
    )
    .optional()
    .describe('What a caller must be or have: all of these members, each by one of its values.')
}

function timeoutFields(kit: FieldKit) {
  return kit
    .section(
      {
        connect: kit.text(TIMEOUT, 'Until the upstream has accepted the connection.').prefault('2s'),
        response: kit.text(TIMEOUT, "Until the upstream's response headers.").prefault('30s'),
        idle: kit
          .text(TIMEOUT, 'Between two pieces of a body, or of what passes through a WebSocket.')
          .prefault('5m'),
      },
      '{ connect: 2s, response: 30s, idle: 5m }',
    )
    .prefault({})
    .describe('How long the upstream may take.')
}

function breakerFields(kit: FieldKit) {
  return kit
    .section({
      failures: kit
        .wholeNumber(
          { min: 0, max: 10_000, example: 20 },
          'Failures in a row, none of them an answer, after which the circuit of the upstream opens; 0 = never.',
        )
        .prefault(20),
      pause: kit.text(TIMEOUT, 'Until one request may try again.').prefault('1s'),
    })
    .prefault({})
    .describe('When the circuit of a failing upstream opens.')
}

/** `tls:` towards an upstream or Redis. An empty member (`ca:` from a template) is an absent one: that fails closed. */
function tlsFields(kit: FieldKit) {
  return kit
    .section({
      ...tlsIdentityFields(kit),
      servername: kit.text(SERVER_NAME, 'Name that the certificate is verified for.').nullish(),
    })
    .optional()
    .describe('TLS settings; default: the system CAs and no client certificate.')
}

/** Whom to trust and who we are. */
function tlsIdentityFields(kit: FieldKit) {
  return {
    ca: kit
      .publicText(certificateCheck, 'CA certificates to trust instead of the system ones, PEM.')
      .nullish(),
    cert: kit.publicText(certificateCheck, 'Client certificate, PEM.').nullish(),
    key: kit.secret(tlsKeyCheck, "The client certificate's private key, PEM.").nullish(),
  }
}

/** One item of `tests:`. */
function testFields(kit: FieldKit) {
  const expected = (what: string, example: string) =>
    kit.text(opaqueRule(`must be ${what}`, example), `Expected: ${what}.`)
  return kit.section({
    request: kit.text(REQUEST_LINE, 'METHOD /path?query, as a browser would send it.'),
    as: kit
      .claimsOrNobody('Claims of the signed-in user, or nobody. Without it, access rules are not judged.')
      .optional(),
    expect: kit.section({
      route: expected('the id of a route', 'orders').optional(),
      upstream: expected('the whole URL at the upstream', 'http://orders:8080/v1/42').optional(),
      resource: expected('the name of a resource, or null when no token is sent', 'orders').nullish(),
      code: kit
        .choice(
          [
            ...(['path_rejected', 'method_not_allowed', 'route_not_found'] as const),
            ...(['session_required', 'access_denied', 'reauthentication_required'] as const),
          ],
          'Expected refusal; the last three are for tests with `as`.',
        )
        .optional(),
    }),
  })
}

type SchemaNode = Readonly<Record<string, unknown>>

/** Every key that a file may have, with its way from the top: `provider.clientAuth.method`, `routes[].timeout.connect`. */
export function configFieldNames(): string[] {
  return [...new Set(namesBelow(configJsonSchema() as SchemaNode, ''))]
}

function namesBelow(node: SchemaNode, path: string): string[] {
  const { items, additionalProperties } = node
  const properties = (node.properties ?? {}) as SchemaNode
  const branches = [node.anyOf, node.oneOf].flatMap((list) => (list as SchemaNode[] | undefined) ?? [])
  const below = (child: unknown, at: string) =>
    typeof child === 'object' && child !== null ? namesBelow(child as SchemaNode, at) : []
  return [
    ...Object.entries(properties).flatMap(([name, child]) => {
      const own = path === '' ? name : `${path}.${name}`
      return [own, ...below(child, own)]
    }),
    ...below(items, `${path}[]`),
    ...below(additionalProperties, `${path}.NAME`),
    ...branches.flatMap((branch) => namesBelow(branch, path)),
  ]
}
