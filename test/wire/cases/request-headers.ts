import {
  ALICE,
  denied,
  forwarded,
  get,
  HOST,
  MALFORMED,
  type RequestRule,
  request,
  row,
  spellings,
  type WireCase,
} from '../wire-case.ts'

const PUBLIC = forwarded('GET /api/public/x')
const toPublic = (rule: Omit<RequestRule, 'line'>) => forwarded('GET /api/public/x', rule)
const ADMIN = forwarded('GET /api/admin/x', { token: 'alice' })
const ME = forwarded('GET /api/me', { fields: { 'x-user-id': 'alice', 'x-tier': 'gold' } })
const UNKNOWN = denied(401, 'session_required')

/** C1, C2: no credential of the client's own making arrives. */
// biome-ignore format: a row is a line
const CREDENTIALS: readonly WireCase[] = [
  ...['Bearer evil', 'Basic ZXZpbDpldmls', 'DPoP evil', 'Negotiate evil', 'evil'].flatMap((value) => [
    row('C1', ['R-167'], `${value}, beside a session`, get('/api/admin/x', `${ALICE}Authorization: ${value}\r\n`), ADMIN),
    row('C1', ['R-167'], `${value}, without a session`, get('/api/admin/x', `${HOST}X-CSRF: 1\r\nAuthorization: ${value}\r\n`), UNKNOWN),
    row('C1', ['R-167'], `${value}, on an anonymous route`, get('/api/public/x', `${HOST}Authorization: ${value}\r\n`), PUBLIC),
  ]),
  row('C1', ['R-167'], 'on a route where a session is optional, without one', get('/api/optional/x', `${HOST}X-CSRF: 1\r\nAuthorization: Bearer evil\r\n`), forwarded('GET /api/optional/x')),
  row('C1', ['R-167'], 'on a route where a session is optional, with one', get('/api/optional/x', `${ALICE}Authorization: Bearer evil\r\n`), forwarded('GET /api/optional/x', { token: 'alice' })),
  row('C1', ['R-167'], 'on a route that sends no token', get('/api/me', `${ALICE}Authorization: Bearer evil\r\n`), ME),
  row('C1', ['R-167'], 'the session cookie is of no use on an anonymous route', get('/api/public/x', ALICE), PUBLIC),
  row('C1', ['R-160'], 'Proxy-Authorization', get('/api/admin/x', `${ALICE}Proxy-Authorization: Basic ZXZpbA==\r\n`), ADMIN),
  row('C2', ['R-167'], 'two fields', get('/api/admin/x', `${ALICE}Authorization: Bearer evil\r\nAuthorization: Bearer evil2\r\n`), ADMIN),
  row('C2', ['R-167'], 'small letters', get('/api/admin/x', `${ALICE}authorization: Bearer evil\r\n`), ADMIN),
  row('C2', ['R-167'], 'capitals', get('/api/admin/x', `${ALICE}AUTHORIZATION: Bearer evil\r\n`), ADMIN),
  row('C2', ['R-167'], 'before every other field', request('GET', '/api/admin/x', `Authorization: Bearer evil\r\n${ALICE}`), ADMIN),
  row('C2', ['R-167'], 'nothing in it', get('/api/admin/x', `${ALICE}Authorization:\r\n`), ADMIN),
  row('C2', ['R-173'], 'a blank before the colon', get('/api/admin/x', `${ALICE}Authorization : Bearer evil\r\n`), MALFORMED),
  row('C2', ['R-173'], 'a blank before the name', get('/api/admin/x', `${ALICE} Authorization: Bearer evil\r\n`), MALFORMED),
]

// biome-ignore format: a row is a line
const connection = (name: string, options: string, fields = '', expect: WireCase['expect'] = ADMIN) =>
  row('C3', ['R-160', 'R-161'], name, get('/api/admin/x', `${ALICE}Connection: ${options}\r\n${fields}`), expect)

/** C3: what `Connection` names is the client's own, never ours. */
// biome-ignore format: a row is a line
const NAMED_BY_CONNECTION: readonly WireCase[] = [
  connection('our Authorization', 'Authorization'),
  connection('our Authorization in capitals', 'AUTHORIZATION, keep-alive'),
  connection('our forwarding fields', 'X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded, Via'),
  connection('our request id', 'X-Request-Id'),
  connection('the host', 'Host'),
  connection('the cookie: the session is read first', 'Cookie', 'Cookie: a=1\r\n', [ADMIN, UNKNOWN]),
  connection('the CSRF header: it is read first', 'X-CSRF'),
  connection('a field of the client', 'X-Mine', 'X-Mine: evil\r\n'),
  connection('a field of the client in another spelling', 'x_mine', 'X-Mine: evil\r\n'),
  connection('in two fields', 'X-Mine', 'Connection: X-Other\r\nX-Mine: evil\r\nX-Other: evil\r\n'),
  connection('itself', 'Connection'),
  connection('what is no name', '"evil", ,;=, X-Mine', 'X-Mine: evil\r\n', [ADMIN, MALFORMED]),
  connection('a thousand names', Array.from({ length: 1000 }, (_, n) => `x${n}`).join(',')),
  row('C3', ['R-161'], 'the fields that the route adds', get('/api/me', `${ALICE}Connection: X-User-Id, X-Tier\r\n`), ME),
  row('C3', ['R-161'], 'close, and our forwarding field (CVE-2024-45410)', get('/api/admin/x', `${ALICE}Connection: close, X-Forwarded-For\r\n`), { ...ADMIN, connection: 'closed' }),
  row('C3', ['R-160'], 'Keep-Alive, Proxy-Connection, TE, Trailer and their kin', get('/api/public/x', `${HOST}Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate\r\nTrailer: X\r\nProxy-Authenticate: Basic\r\nProxy-Evil: 1\r\n`), PUBLIC),
  row('C3', ['R-160'], 'Proxy, which CGI makes HTTP_PROXY of (CVE-2016-5385)', get('/api/public/x', `${HOST}Proxy: http://evil.example\r\nPROXY: http://evil.example\r\n`), PUBLIC),
  row('C3', ['R-160'], 'HTTP2-Settings', get('/api/public/x', `${HOST}HTTP2-Settings: AAMAAABk\r\n`), PUBLIC),
]

/** Names that some server in front of an application would set, and the application believe. */
const IDENTITY_FIELDS = [
  ...['X-Forwarded-For', 'X-Forwarded-Host', 'X-Forwarded-Proto', 'X-Forwarded-Port', 'X-Forwarded-Prefix'],
  ...['X-Forwarded-Uri', 'X-Forwarded-Method', 'X-Forwarded-Server', 'X-Forwarded-User', 'X-Forwarded-Email'],
  ...[
    'X-Forwarded-Preferred-Username',
    'X-Forwarded-Groups',
    'X-Forwarded-Access-Token',
    'X-Forwarded-Client-Cert',
  ],
  ...['X-Forwarded-Scheme', 'X-Forwarded-Ssl', 'X-Forwarded', 'Forwarded', 'X-Request-Id'],
  ...['X-Real-IP', 'X-Client-IP', 'X-Cluster-Client-IP', 'True-Client-IP', 'CF-Connecting-IP'],
  'Proxy',
  ...['X-Original-URL', 'X-Original-Host', 'X-Original-Forwarded-For', 'X-Rewrite-URL'],
]
const OTHER_PROXIES_FIELDS = [
  ...['X-Amzn-Oidc-Data', 'X-Amzn-Oidc-Identity', 'X-Amzn-Oidc-AccessToken'],
  ...[
    'X-MS-Client-Principal',
    'X-MS-Client-Principal-Id',
    'X-MS-Client-Principal-Name',
    'X-MS-Token-AAD-Access-Token',
  ],
  ...[
    'X-Auth-Request-User',
    'X-Auth-Request-Email',
    'X-Auth-Request-Access-Token',
    'Remote-User',
    'X-Remote-User',
  ],
  ...[
    'Client-Cert',
    'Client-Cert-Chain',
    'X-Client-Cert',
    'X-SSL-Client-Cert',
    'X-SSL-Client-Verify',
    'X-SSL-Client-DN',
  ],
]

const inEverySpelling = (id: string, names: readonly string[], rules: string[]) =>
  names.map((name) =>
    row(id, rules, `${name} in every spelling`, get('/api/admin/x', ALICE + spellings(name)), ADMIN),
  )

/** C4: the fields that a route adds are ours in every spelling. */
// biome-ignore format: a row is a line
const INJECTED: readonly WireCase[] = [
  ...['X-User-Id', 'X-Tier', 'X-Nickname', 'X-Picture', 'X-Groups'].map((name) =>
    row('C4', ['R-172'], `${name} in every spelling`, get('/api/me', ALICE + spellings(name)), ME),
  ),
  row('C4', ['R-173'], 'a blank behind the name', get('/api/me', `${ALICE}X-User-Id : evil\r\n`), MALFORMED),
  row('C4', ['R-172'], 'a hundred of them', get('/api/me', ALICE + 'x_user-id: evil\r\n'.repeat(90)), ME),
  ...[...`!#$%&'*+-.^_\`|~`].map((sign) =>
    row('C4', ['R-172'], `X-User-Id with ${sign} for its hyphens`, get('/api/me', `${ALICE}X${sign}User${sign}Id: evil\r\nx${sign}user-id: evil\r\n`), ME),
  ),
  ...['X-User-Id', 'X-Tier', 'X-Nickname', 'X-Groups'].flatMap((name) => [
    row('C4', ['R-172'], `${name} in every spelling, on another route, from a stranger`, get('/api/public/x', HOST + spellings(name)), PUBLIC),
    row('C4', ['R-172'], `${name} in every spelling, on another route, from a user`, get('/api/public/x', ALICE + spellings(name)), PUBLIC),
    row('C4', ['R-172'], `${name} in every spelling, on another route with a session`, get('/api/admin/x', ALICE + spellings(name)), ADMIN),
    row('C4', ['R-172'], `${name} in every spelling, on another route where a session is optional`, get('/api/optional/x', `${HOST}X-CSRF: 1\r\n${spellings(name)}`), forwarded('GET /api/optional/x')),
  ]),
  row('C4', [], 'a name that no route adds is data', get('/api/public/x', `${HOST}X-Tier-Of: 7\r\n`), toPublic({ fields: { 'x-tier-of': '7' } })),
]

/** C5: what an untrusted client says of itself changes nothing of ours either. */
// biome-ignore format: a row is a line
const NO_EFFECT: readonly WireCase[] = [
  row(
    'C5',
    ['R-166'],
    'the redirect URI is the configured one',
    get(
      '/bff/login?returnUrl=/x',
      `${HOST}X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\nForwarded: host=evil.example;proto=http\r\nX-Forwarded-Prefix: /evil\r\n`,
    ),
    { answers: [{ status: 302, fields: { location: /^(?!.*evil).*[?&]redirect_uri=https%3A%2F%2Fapp\.example\.test%2Fbff%2Fcallback(&|$)/, 'set-cookie': /^__Host-Http-cloakroom-login-[\w-]+=[^;]+;(?=.* Secure)(?=.* HttpOnly)(?!.*evil)/ } }], requests: [], connection: 'open' },
  ),
  row('C5', ['R-166'], 'X-Original-URL and X-Rewrite-URL choose no route', get('/api/public/x', `${HOST}X-Original-URL: /api/admin/evil\r\nX-Rewrite-URL: /api/admin/evil\r\n`), PUBLIC),
  row('C5', ['R-166'], 'an address of this machine makes nobody trusted', get('/api/public/x', `${HOST}X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n`), PUBLIC),
]

/** C6: the address of the client, told by a proxy that is believed. */
const TRUSTED_PROXY = (
  [
    ['one address', 'X-Forwarded-For: 203.0.113.7\r\n', '203.0.113.7'],
    ['what the attacker wrote stands in front', 'X-Forwarded-For: 10.0.0.1, 203.0.113.7\r\n', '203.0.113.7'],
    ['in two fields', 'X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 203.0.113.7\r\n', '203.0.113.7'],
    ['another trusted hop', 'X-Forwarded-For: 203.0.113.7, 127.0.0.1\r\n', '203.0.113.7'],
    ['IPv6', 'X-Forwarded-For: 2001:db8::1\r\n', '2001:db8::1'],
    ['no address', 'X-Forwarded-For: evil\r\n', '127.0.0.1'],
    ['nothing', 'X-Forwarded-For:\r\n', '127.0.0.1'],
    ['an address, then none', 'X-Forwarded-For: 203.0.113.7, unknown\r\n', '127.0.0.1'],
    ['a line end, encoded', 'X-Forwarded-For: 203.0.113.7%0d%0aX-Evil: 1\r\n', '127.0.0.1'],
    ['a spelling that is not believed', 'X_Forwarded_For: 203.0.113.7\r\n', '127.0.0.1'],
    ['another spelling that is not believed', 'X.Forwarded.For: 203.0.113.7\r\n', '127.0.0.1'],
    ['fields that are not believed', 'Forwarded: for=203.0.113.7\r\nX-Real-IP: 203.0.113.7\r\n', '127.0.0.1'],
  ] as const
).map(
  ([name, line, client]): WireCase => ({
    ...row('C6', ['R-166'], name, get('/api/public/x', HOST + line), toPublic({ client })),
    world: 'trusting',
  }),
)

/** Section C, towards the upstream. */
export const REQUEST_HEADER_CASES: readonly WireCase[] = [
  ...CREDENTIALS,
  ...NAMED_BY_CONNECTION,
  ...INJECTED,
  ...inEverySpelling('C5', IDENTITY_FIELDS, ['R-166']),
  ...NO_EFFECT,
  ...TRUSTED_PROXY,
  ...inEverySpelling('C13', OTHER_PROXIES_FIELDS, ['R-166']),
]
