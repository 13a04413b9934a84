import { UPSTREAM } from '../rules/addresses.ts'
import { HEADER_VALUE, METHOD, REQUEST_LINE, ROUTE_ID } from '../rules/http-rules.ts'
import { opaqueRule } from '../rules/oauth-rules.ts'
import { REWRITE_PATH, ROUTE_PATH } from '../rules/paths.ts'
import { certificateCheck, tlsKeyCheck } from '../rules/secret-rules.ts'
import { SIZE, TIMEOUT } from '../rules/units.ts'
import type { FieldKit } from './schema.ts'

const RESOURCE_REFERENCE = opaqueRule('must be a name of `resources`', 'orders')
const SERVER_NAME = opaqueRule('must be a host name', 'orders.internal')

/** One item of `routes:`. */
export function routeFields(kit: FieldKit) {
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
  })
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
          'Failures in a row, none of them an answer, after which the upstream is left alone; 0 = never.',
        )
        .prefault(20),
      pause: kit.text(TIMEOUT, 'Until one request may try again.').prefault('1s'),
    })
    .prefault({})
    .describe('When an upstream that fails is left alone.')
}

/** `tls:` towards an upstream or Redis. An empty member (`ca:` from a template) is an absent one: that fails closed. */
export function tlsFields(kit: FieldKit) {
  return kit
    .section({
      ...tlsIdentityFields(kit),
      servername: kit.text(SERVER_NAME, 'Name that the certificate is verified for.').nullish(),
    })
    .optional()
    .describe('TLS settings; default: the system CAs and no client certificate.')
}

/** Whom to trust and who we are. */
export function tlsIdentityFields(kit: FieldKit) {
  return {
    ca: kit
      .publicText(certificateCheck, 'CA certificates to trust instead of the system ones, PEM.')
      .nullish(),
    cert: kit.publicText(certificateCheck, 'Client certificate, PEM.').nullish(),
    key: kit.secret(tlsKeyCheck, "The client certificate's private key, PEM.").nullish(),
  }
}

/** One item of `tests:`. */
export function testFields(kit: FieldKit) {
  const expected = (what: string, example: string) =>
    kit.text(opaqueRule(`must be ${what}`, example), `Expected: ${what}.`)
  return kit.section({
    request: kit.text(REQUEST_LINE, 'METHOD /path?query, as a browser would send it.'),
    expect: kit.section({
      route: expected('the id of a route', 'orders').optional(),
      upstream: expected('the whole URL at the upstream', 'http://orders:8080/v1/42').optional(),
      resource: expected('the name of a resource, or null when no token is sent', 'orders').nullish(),
      code: kit
        .choice(['path_rejected', 'method_not_allowed', 'route_not_found'], 'Expected refusal.')
        .optional(),
    }),
  })
}
