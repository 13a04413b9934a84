import { describeMutations } from './mutations.ts'

const PUBLIC_URL = 'publicUrl: https://app.example.com'
const STORE = 'type: redis\n    url: rediss://redis:6379\n    keyPrefix: cloakroom'

describeMutations('the top of the file and the session', [
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
  [
    PUBLIC_URL,
    `${PUBLIC_URL}\nlimits: { headerSize: 4095B }`,
    'limits.headerSize',
    /at least 4KiB \(got "4095B"\)/,
  ],
  [
    PUBLIC_URL,
    `${PUBLIC_URL}\nlimits: { bodyRate: -1 }`,
    'limits.bodyRate',
    /whole number from 0 to 1000000 \(got -1\)/,
  ],
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
])
