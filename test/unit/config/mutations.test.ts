import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BASE, changed, load, problemsOf } from './base-config.ts'

/** A part of the valid config, what replaces it, the field that must be named and what must be said about it. */
type Mutation = readonly [from: string, to: string, path: string, says: RegExp]

const PUBLIC_URL = 'publicUrl: https://app.example.com'
const ISSUER = 'issuer: https://id.example.com'
const SECRET = 'secret: { env: CLIENT_SECRET }'
const ORDERS_PATH = 'path: /api/orders\n'
const UPSTREAM = 'upstream: http://orders:8080'
const HEADERS = 'headers: { x-user-id: "{claims.sub}" }'
const EXPECT = 'expect: { route: orders }'
const STORE = 'type: redis\n    url: rediss://redis:6379\n    keyPrefix: cloakroom'

const MUTATIONS: readonly Mutation[] = [
  // The file
  ['trustProxy:', 'trustProxi:', 'trustProxi', /not a known key \(did you mean "trustProxy"\?\)/],
  ['trustProxy:', 'zzz:', 'zzz', /not a known key; known here: publicUrl, /],
  [PUBLIC_URL, '', 'publicUrl', /^is required: .* e\.g\. https:\/\/app\.example\.com$/],
  [PUBLIC_URL, 'publicUrl:', 'publicUrl', /got nothing/],
  [
    PUBLIC_URL,
    'publicUrl: http://app.example.com',
    'publicUrl',
    /must be https: .*loopback.*got "http:\/\/app/,
  ],
  [PUBLIC_URL, 'publicUrl: https://app.example.com/app', 'publicUrl', /no path/],
  [PUBLIC_URL, 'publicUrl: https://app.example.com?a', 'publicUrl', /got "https:\/\/app\.example\.com\?a"/],
  [PUBLIC_URL, 'publicUrl: https://u:p4ss@app.example.com', 'publicUrl', /got "https:\/\/\[redacted\]@app/],
  [PUBLIC_URL, 'publicUrl: app.example.com', 'publicUrl', /must be an https origin/],
  ['listen: 127.0.0.1:8080', 'listen: 8080', 'listen', /must be HOST:PORT \(got 8080\)/],
  ['listen: 127.0.0.1:8080', 'listen: localhost:65536', 'listen', /must be HOST:PORT/],
  [
    '  listen: 127.0.0.1:9090',
    '  listen: 0.0.0.0:8080',
    'admin.listen',
    /must not be the public listener's port 8080/,
  ],
  ['admin:\n  listen: 127.0.0.1:9090', 'admin: yes', 'admin', /block of keys .*got a string/],
  [
    '  listen: 127.0.0.1:9090',
    '  strictReadiness: yes',
    'admin.strictReadiness',
    /true or false \(got "yes"\)/,
  ],
  ['[10.0.0.0/8]', '10.0.0.0/8', 'trustProxy', /must be a list \(got a string\), e\.g\. \[10\.0\.0\.0\/8\]/],
  ['[10.0.0.0/8]', '[10.0.0.0/33]', 'trustProxy[0]', /CIDR.*got "10\.0\.0\.0\/33"/],
  ['[10.0.0.0/8]', '[loopback]', 'trustProxy[0]', /must be an IP address/],
  ['basePath: /bff', 'basePath: bff', 'basePath', /must start with "\/"/],
  ['basePath: /bff', 'basePath: /', 'basePath', /must not be the root/],
  ['basePath: /bff', 'allowedOrigins: ["*"]', 'allowedOrigins[0]', /no wildcard/],
  ['basePath: /bff', 'allowedOrigins: [https://a.example/x]', 'allowedOrigins[0]', /no path/],

  // The provider
  [ISSUER, 'isuer: https://id.example.com', 'provider.isuer', /did you mean "issuer"\?/],
  [ISSUER, '', 'provider.issuer', /^is required/],
  [ISSUER, 'issuer: http://id.example.com', 'provider.issuer', /must be https/],
  [ISSUER, 'issuer: https://id.example.com?x=1', 'provider.issuer', /without query or fragment/],
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

  // The session
  ['type: redis', 'type: rediss', 'session.store.type', /did you mean "redis"\?/],
  [STORE, 'type: memory\n    url: x', 'session.store.url', /not a known key/],
  ['url: rediss://redis:6379', 'url: redis:6379', 'session.store.url', /must be redis:\/\/HOST/],
  ['url: rediss://redis:6379', 'url: rediss://redis/a', 'session.store.url', /must be redis:\/\/HOST/],
  ['url: rediss://redis:6379', '', 'session.store.url', /^is required/],
  [
    'url: rediss://redis:6379',
    'url: redis://redis\n    tls: { servername: r }',
    'session.store.tls',
    /has no effect/,
  ],
  ['keyPrefix: cloakroom', 'keyPrefix: "{a}"', 'session.store.keyPrefix', /must be letters/],
  ['  keys:\n    - { env: SESSION_KEY }\n', '', 'session.keys', /^is required: a list/],
  ['keys:\n    - { env: SESSION_KEY }', 'keys: []', 'session.keys', /must not be empty/],
  [
    'keys:\n    - { env: SESSION_KEY }',
    'keys: { env: SESSION_KEY }',
    'session.keys',
    /must be a list \(got a block/,
  ],
  ['{ env: SESSION_KEY }', '{ env: CLIENT_SECRET }', 'session.keys[0]', /256 bits .* cloakroom keygen$/],
  [
    'absoluteTimeout: 10h',
    'absoluteTimeout: 10m',
    'session.absoluteTimeout',
    /at least idleTimeout \(got "10m"\)/,
  ],
  [
    'idleTimeout: 30m\n  absoluteTimeout: 10h',
    'idleTimeout: 11h',
    'session.idleTimeout',
    /at most absoluteTimeout/,
  ],
  [
    'name: __Host-Http-cloakroom',
    'name: __Secure-sid',
    'session.cookie.name',
    /must start with .*e\.g\. __Host-Http-sid/,
  ],
  ['name: __Host-Http-cloakroom', 'name: "a b"', 'session.cookie.name', /must be a cookie name/],
  [PUBLIC_URL, 'publicUrl: http://localhost:8080', 'session.cookie.name', /no __ prefix .*e\.g\. cloakroom/],
  ['sameSite: strict', 'sameSite: none', 'session.cookie.sameSite', /must be strict or lax \(got "none"\)/],

  // Resources
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

  // Routes
  [ORDERS_PATH, 'path: api/orders\n', 'routes[0].path', /must start with "\/"/],
  [ORDERS_PATH, 'path: /api/*\n', 'routes[0].path', /plain prefix, not a pattern/],
  [ORDERS_PATH, 'path: /api/:id\n', 'routes[0].path', /plain prefix, not a pattern/],
  [ORDERS_PATH, 'path: //api\n', 'routes[0].path', /must not contain "\/\/"/],
  [ORDERS_PATH, 'path: /a/../b\n', 'routes[0].path', /"\." or "\.\." segments/],
  [ORDERS_PATH, 'path: /a/.\n', 'routes[0].path', /"\." or "\.\." segments/],
  [ORDERS_PATH, 'path: /%41\n', 'routes[0].path', /must write %41 as the character "A"/],
  [ORDERS_PATH, 'path: /%2F\n', 'routes[0].path', /must not contain %2F/],
  [ORDERS_PATH, 'path: /%c3%a4\n', 'routes[0].path', /upper-case/],
  [ORDERS_PATH, 'path: /a?b\n', 'routes[0].path', /without "\?" or "#"/],
  [ORDERS_PATH, 'path: "/a#b"\n', 'routes[0].path', /without "\?" or "#"/],
  [ORDERS_PATH, 'path: /a\\b\n', 'routes[0].path', /backslash/],
  [ORDERS_PATH, 'path: /a;b\n', 'routes[0].path', /must not contain ";"/],
  [ORDERS_PATH, 'path: /ä\n', 'routes[0].path', /canonical absolute path/],
  [ORDERS_PATH, 'path: /bff\n', 'routes[0].path', /at or below basePath \/bff/],
  [ORDERS_PATH, 'path: /bff/x/\n', 'routes[0].path', /at or below basePath \/bff/],
  [
    'path: /api/billing',
    'path: /api/orders/',
    'routes[1].path',
    /must differ from routes\[0\] \(line 31\), which matches GET, POST/,
  ],
  [
    'id: billing',
    'id: orders',
    'routes[1].id',
    /must differ from the id of routes\[0\] \(line 31\): both are "orders"/,
  ],
  ['id: orders\n', 'id: a b\n', 'routes[0].id', /without blanks/],
  [
    UPSTREAM,
    'upstream: orders:8080',
    'routes[0].upstream',
    /must be an http\(s\) URL without a path \(got "orders:8080"\), e\.g\. http:\/\/orders:8080/,
  ],
  [UPSTREAM, 'upstream: http://orders/v2', 'routes[0].upstream', /"rewrite: \/v2"/],
  [
    UPSTREAM,
    'upstream: http://u:hush@orders',
    'routes[0].upstream',
    /must not contain a user name .*\[redacted\]@orders/,
  ],
  [UPSTREAM, 'upstream: ftp://orders', 'routes[0].upstream', /http\(s\) URL/],
  ['rewrite: /v1', 'rewrite: v1', 'routes[0].rewrite', /must start with "\/"/],
  [
    'resource: orders',
    'resource: ordres',
    'routes[0].resource',
    /there is no resource "ordres" \(did you mean "orders"\?\)/,
  ],
  [
    'resource: orders',
    'resource: toString',
    'routes[0].resource',
    /there is no resource "toString"; there are orders, billing/,
  ],
  ['auth: anonymous', 'auth: anonymous\n    resource: orders', 'routes[2].resource', /needs a session/],
  [
    'auth: anonymous',
    'auth: anonymous\n    headers: { x: "{claims.sub}" }',
    'routes[2].headers.x',
    /needs a session/,
  ],
  ['auth: anonymous', 'auth: none', 'routes[2].auth', /must be required, optional or anonymous/],
  ['auth: anonymous', 'csrf: off', 'routes[2].csrf', /must be header or fetch-metadata \(got "off"\)/],
  ['[GET, POST]', '[]', 'routes[0].methods', /must not be empty/],
  ['[GET, POST]', '[trace]', 'routes[0].methods[0]', /must not be CONNECT or TRACE/],
  ['[GET, POST]', '["G T"]', 'routes[0].methods[0]', /must be an HTTP method/],
  [
    '{ connect: 2s, response: 30s, idle: 5m }',
    '30s',
    'routes[0].timeout',
    /connect, response, idle\) \(got a string\)/,
  ],
  ['connect: 2s', 'connect: 0s', 'routes[0].timeout.connect', /more than nothing/],
  ['maxBody: 10MiB', 'maxBody: 10', 'routes[0].maxBody', /size with its unit .*got 10\), e\.g\. 10MiB/],
  ['maxBody: 10MiB', 'websocket: "true"', 'routes[0].websocket', /must be true or false \(got "true"\)/],
  ['maxBody: 10MiB', 'tls: { servername: a }', 'routes[0].tls', /has no effect/],
  [
    'upstream: https://billing',
    'upstream: https://billing\n    tls: { ca: /ca.pem }',
    'routes[1].tls.ca',
    /certificates in PEM.*\{ file: PATH \}/,
  ],
  [HEADERS, 'headers: { Host: a }', 'routes[0].headers.Host', /must be another header/],
  [HEADERS, 'headers: { Authorization: a }', 'routes[0].headers.Authorization', /must be another header/],
  [HEADERS, 'headers: { "a b": a }', 'routes[0].headers["a b"]', /must be a header name/],
  [HEADERS, 'headers: { X-A: a, x-a: b }', 'routes[0].headers.x-a', /same header as "X-A"/],
  [HEADERS, 'headers: { x: "{sub}" }', 'routes[0].headers.x', /\{claims\.NAME\} as its only placeholder/],
  [HEADERS, 'headers: { x: "{claims.}" }', 'routes[0].headers.x', /only placeholder/],
  [HEADERS, 'headers: { x: "a\\r\\nb: c" }', 'routes[0].headers.x', /one line/],

  // Tests
  [
    'request: GET /api/orders/42',
    'request: /api/orders/42',
    'tests[0].request',
    /must be a method and a path/,
  ],
  [EXPECT, 'expect: {}', 'tests[0].expect', /must say what is expected/],
  [
    EXPECT,
    'expect: { route: ordres }',
    'tests[0].expect.route',
    /no route "ordres" \(did you mean "orders"\?\)/,
  ],
  [EXPECT, 'expect: { resource: nope }', 'tests[0].expect.resource', /no resource "nope"/],
  [EXPECT, 'expect: { code: path_rejectd }', 'tests[0].expect.code', /did you mean "path_rejected"\?/],
  [EXPECT, 'expect: { route: orders, code: path_rejected }', 'tests[0].expect.code', /must stand alone/],

  // What the contract has and this version does not
  [
    ISSUER,
    `${ISSUER}\n  responseMode: form_post`,
    'provider.responseMode',
    /not supported by this version yet; only "query" is/,
  ],
  [
    ISSUER,
    `${ISSUER}\n  dpop: provider`,
    'provider.dpop',
    /not supported by this version yet; only "off" is/,
  ],
  [ISSUER, `${ISSUER}\n  dpop: end-to-end`, 'provider.dpop', /not supported by this version yet/],
  [
    ISSUER,
    `${ISSUER}\n  clientCapabilities: [cp1]`,
    'provider.clientCapabilities[0]',
    /not supported by this version yet/,
  ],
  [
    'client_secret_post',
    'certificate',
    'provider.clientAuth.method',
    /"certificate" is not supported by this version yet/,
  ],
  [
    'client_secret_post',
    'workload_identity',
    'provider.clientAuth.method',
    /not supported by this version yet/,
  ],
  [
    'url: rediss://redis:6379',
    'cluster: [a:1, b:2]',
    'session.store.cluster',
    /not supported by this version yet/,
  ],
  [
    'audience: api://orders',
    'grant: token_exchange',
    'resources.orders.grant',
    /not supported by this version yet/,
  ],
]

describe('a valid config with one line changed', () => {
  test('is valid before the change', () => {
    assert.deepEqual(load(BASE).warnings, [])
  })

  for (const [from, to, path, says] of MUTATIONS) {
    test(`"${to.trim().replaceAll(/\s*\n\s*/g, ' ¶ ')}" instead of "${from.trim().split('\n')[0]}" names ${path}`, () => {
      const problems = problemsOf(changed(from, to))
      const named = problems.find((problem) => problem.path === path)
      assert.ok(named, `reported instead: ${JSON.stringify(problems)}`)
      assert.match(named.message, says)
      assert.doesNotMatch(named.message, /\u0000|undefined|\[object/)
    })
  }

  test('sentinels are refused with one problem for each of their keys', () => {
    const text = changed('url: rediss://redis:6379', 'sentinels: [a:1]\n    masterName: m')
    assert.deepEqual(
      problemsOf(text).map(({ path }) => path),
      ['session.store.sentinels', 'session.store.masterName'],
    )
  })
})
