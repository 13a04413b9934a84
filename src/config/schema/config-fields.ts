import { ALLOWED_ORIGIN, HOST, LISTEN, PROXY_RANGE, PUBLIC_URL, REDIS_URL } from '../rules/addresses.ts'
import { COOKIE_NAME, KEY_PREFIX } from '../rules/http-rules.ts'
import { opaqueRule, RESOURCE_IDENTIFIER, SCOPE } from '../rules/oauth-rules.ts'
import { BASE_PATH } from '../rules/paths.ts'
import { sessionKeyCheck, textSecretCheck } from '../rules/secret-rules.ts'
import { SESSION_TIME } from '../rules/units.ts'
import { limitFields, rateLimitFields } from './limit-fields.ts'
import { providerFields } from './provider-fields.ts'
import { routeFields, testFields, tlsFields } from './route-fields.ts'
import type { FieldKit } from './schema.ts'

/** Everything an operator may write, in the order of the documentation, with the defaults as the operator would write them. */
export function configFields(kit: FieldKit) {
  return kit
    .section({
      publicUrl: kit.text(PUBLIC_URL, 'The origin browsers see. http only for a loopback host.'),
      listen: kit.text(LISTEN, 'Socket of the public listener.').prefault('0.0.0.0:8080'),
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
  const redis = kit.section({
    type: kit.constant('redis'),
    url: kit.text(REDIS_URL, 'redis://HOST[:PORT][/DB]; rediss:// for TLS.'),
    username: kit.text(opaqueRule('must be a user name without blanks', 'cloakroom'), 'ACL user.').optional(),
    password: kit.secret(textSecretCheck, 'Password.').optional(),
    tls: tlsFields(kit),
    keyPrefix: kit.text(KEY_PREFIX, 'First part of every key.').prefault('cloakroom'),
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
