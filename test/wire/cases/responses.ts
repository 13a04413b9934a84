import { ALICE, forwarded, get, HOST, type Outcome, type Text, type WireCase } from '../wire-case.ts'

const AT = '/api/public/up'
const SIGNED_IN = '/api/admin/up'
const head = (fields: string, status = '200 OK') =>
  `HTTP/1.1 ${status}\r\n${fields}Content-Length: 2\r\n\r\nok`

type Fields = Readonly<Record<string, Text | null>>

function outcome(fields: Fields, status = 200, body = 'ok'): Outcome {
  return {
    answers: [{ status, code: null, body, fields }],
    requests: [{ line: `GET ${AT} HTTP/1.1` }],
    connection: 'open',
  }
}

/** What the upstream's fields become on an anonymous route. */
function row(
  id: string,
  rules: string[],
  name: string,
  lines: string,
  fields: Fields,
  status = '200 OK',
): WireCase {
  return {
    id,
    name,
    rules,
    send: get(AT),
    script: [AT, { reply: head(lines, status) }],
    expect: outcome(fields, Number.parseInt(status, 10)),
  }
}

/** The same for a signed-in user. */
function signedIn(one: WireCase): WireCase {
  const expect = one.expect as Outcome
  return {
    ...one,
    ...{ name: `${one.name}, for a user`, send: get(SIGNED_IN, ALICE), script: [SIGNED_IN, one.script![1]] },
    expect: { ...expect, requests: [{ line: `GET ${SIGNED_IN} HTTP/1.1`, token: 'alice' }] },
  }
}

const cookie = (name: string, line: string, arrives: string | null) =>
  row('C8', ['R-169'], `Set-Cookie: ${name}`, `Set-Cookie: ${line}\r\n`, { 'set-cookie': arrives })

/** C8: no upstream gives out a cookie of ours. */
// biome-ignore format: a row is a line
const SET_COOKIES: readonly WireCase[] = [
  cookie('our session cookie', '__Host-Http-cloakroom=evil; Secure; Path=/; HttpOnly', null),
  cookie('our session cookie deleted', '__Host-Http-cloakroom=; Max-Age=0; Secure; Path=/', null),
  cookie('our session cookie in capitals', '__HOST-HTTP-CLOAKROOM=evil; Secure; Path=/', null),
  cookie('our session cookie behind blanks', ' \t__Host-Http-cloakroom =evil', null),
  cookie('our session cookie as a value without a name', '=__Host-Http-cloakroom=evil', null),
  cookie('our session cookie as a bare value', '__Host-Http-cloakroom', null),
  cookie('our session cookie of another domain', '__Host-Http-cloakroom=evil; Domain=example.test', null),
  cookie('that of a sign-in', '__Host-Http-cloakroom-login-x=evil; Secure; Path=/', null),
  cookie('another', 'a="x y"; Path=/api; SameSite=Lax; Evil=\xe9', 'a="x y"; Path=/api; SameSite=Lax; Evil=\xe9'),
  cookie('another with our name as its value', 'a=__Host-Http-cloakroom=1', 'a=__Host-Http-cloakroom=1'),
  row('C8', ['R-169', 'R-171'], 'Set-Cookie: ours among others', 'Set-Cookie: a=1\r\nSet-Cookie: __Host-Http-cloakroom=evil\r\nset-cookie: b=2; Expires=Sat, 21 Nov 2026 10:00:00 GMT\r\n', { 'set-cookie': 'a=1, b=2; Expires=Sat, 21 Nov 2026 10:00:00 GMT' }),
].flatMap((one) => [one, signedIn(one)])

/** C8: what speaks of the whole origin is ours to say, and what is of one connection ends with it. */
// biome-ignore format: a row is a line
const REMOVED: readonly WireCase[] = [
  row('C8', [], 'Clear-Site-Data', 'Clear-Site-Data: "*"\r\n', { 'clear-site-data': null }),
  row('C8', [], 'Strict-Transport-Security', 'Strict-Transport-Security: max-age=0\r\n', { 'strict-transport-security': null }),
  row('C8', [], 'Alt-Svc', 'Alt-Svc: h3="evil.example:443"; ma=86400; persist=1\r\n', { 'alt-svc': null }),
  row('C8', [], 'Access-Control-*', 'Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Evil: 1\r\n', { 'access-control-allow-origin': null, 'access-control-allow-credentials': null, 'access-control-evil': null }),
  row('C8', ['R-190'], 'Cloakroom-Error', 'Cloakroom-Error: session_required\r\n', { 'cloakroom-error': null }),
  row('C8', ['R-160'], 'hop-by-hop fields', 'Keep-Alive: timeout=999\r\nProxy-Connection: close\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\nTE: trailers\r\nProxy-Evil: 1\r\n', { 'keep-alive': /^(?!.*999)/, 'proxy-connection': null, 'proxy-authenticate': null, upgrade: null, trailer: null, te: null, 'proxy-evil': null }),
  row('C8', ['R-160'], 'fields that Connection names', 'Connection: X-Hop, x_other\r\nX-Hop: 1\r\nX-Other: 1\r\nX-Stays: 1\r\n', { connection: 'keep-alive', 'x-hop': null, 'x-other': null, 'x-stays': '1' }),
  row('C8', ['R-161'], 'our own fields that Connection names', 'Connection: Cache-Control, Date\r\nCache-Control: public\r\n', { 'cache-control': null }),
].flatMap((one) => [
  one,
  signedIn({ ...one, ...(one.name.startsWith('our own') ? { expect: outcome({ 'cache-control': 'private' }) } : {}) }),
])

/** C10: an upstream's refusal is an answer of its own, and opens no dialog of the browser's. */
// biome-ignore format: a row is a line
const CHALLENGES: readonly WireCase[] = [
  ...[
    'Basic realm="x"',
    'basic',
    'Digest realm="x", nonce="y"',
    'Negotiate',
    'NTLM',
    'Bearer, Basic realm="x"',
    '  NEGOTIATE  abc',
  ].map((value) =>
    row('C10', [], `WWW-Authenticate: ${value}`, `WWW-Authenticate: ${value}\r\n`, { 'www-authenticate': null, 'x-upstream-www-authenticate': value.trim() }, '401 Unauthorized'),
  ),
  row('C10', [], 'WWW-Authenticate: Bearer', 'WWW-Authenticate: Bearer realm="x"\r\n', { 'www-authenticate': 'Bearer realm="x"', location: null }, '401 Unauthorized'),
  signedIn(row('C10', [], 'WWW-Authenticate: Bearer', 'WWW-Authenticate: Bearer\r\n', { 'www-authenticate': 'Bearer', location: null }, '401 Unauthorized')),
  signedIn(row('C10', [], 'WWW-Authenticate: Basic', 'WWW-Authenticate: Basic\r\n', { 'www-authenticate': null, location: null }, '401 Unauthorized')),
  row('C10', [], 'two fields, one of them opens a dialog', 'WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic realm="x"\r\n', { 'www-authenticate': 'Bearer', 'x-upstream-www-authenticate': 'Basic realm="x"' }, '401 Unauthorized'),
  row('C10', [], 'our header on its own error', 'Cloakroom-Error: session_required\r\nContent-Type: application/problem+json\r\n', { 'cloakroom-error': null, 'content-type': 'application/problem+json' }, '401 Unauthorized'),
  {
    ...{
      id: 'C10',
      rules: ['R-188'],
      name: 'a token that is refused is renewed once, and the request sent once more',
    },
    ...{
      send: get(SIGNED_IN, ALICE),
      script: [
        SIGNED_IN,
        { reply: head('WWW-Authenticate: Bearer error="invalid_token"\r\n', '401 Unauthorized') },
      ],
    },
    expect: {
      ...forwarded(`GET ${SIGNED_IN}`),
      requests: [
        { line: `GET ${SIGNED_IN} HTTP/1.1`, token: 'alice' },
        { line: `GET ${SIGNED_IN} HTTP/1.1`, token: 'alice' },
      ],
    },
  },
  ...[
    '302 Found',
    '303 See Other',
    '307 Temporary Redirect',
    '401 Unauthorized',
    '403 Forbidden',
    '404 Not Found',
    '421 Misdirected Request',
    '429 Too Many Requests',
    '500 Internal Server Error',
    '502 Bad Gateway',
    '503 Service Unavailable',
  ].map((status) =>
    row('C10', ['R-190'], `${status} of the upstream's own`, 'Retry-After: 7\r\n', { 'retry-after': '7', 'cloakroom-error': null }, status),
  ),
]

function location(name: string, value: string, arrives: Text, at = AT, upstreamAt = AT): WireCase {
  const fields = at === upstreamAt ? {} : { fields: { 'x-forwarded-prefix': '/api/rewrite' } }
  return {
    ...{
      id: 'C8',
      rules: [],
      name: `Location: ${name}`,
      send: get(at),
      script: [upstreamAt, { reply: head(`Location: ${value}\r\n`, '302 Found') }],
    },
    expect: {
      ...outcome({ location: arrives }, 302),
      requests: [{ line: `GET ${upstreamAt} HTTP/1.1`, ...fields }],
    },
  }
}
const REWRITTEN = ['/api/rewrite/up', '/v1/up'] as const

/** Where the upstream sends the browser: its own origin is ours, and nothing else becomes ours. */
// biome-ignore format: a row is a line
const LOCATIONS: readonly WireCase[] = [
  location('its own origin', 'http://{{upstream}}/api/public/y?z=1#f', 'https://app.example.test/api/public/y?z=1#f'),
  location('its own origin in capitals', 'HTTP://{{upstream}}/y', 'https://app.example.test/y'),
  location('its own origin alone', 'http://{{upstream}}', 'https://app.example.test/'),
  location('its own origin without a scheme', '//{{upstream}}/y', 'https://app.example.test/y'),
  location('its own origin, behind the prefix that it sees', 'http://{{upstream}}/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('a path behind that prefix', '/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('a path that only begins like that prefix', '/v10/y', '/v10/y', ...REWRITTEN),
  location('two slashes behind that prefix', '/v1//evil.example', 'https://app.example.test/api/rewrite//evil.example', ...REWRITTEN),
  location('a path with the prefix of the route before it', '/api/rewrite/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('a path below the route already', '/api/rewrite/y', '/api/rewrite/y', ...REWRITTEN),
  location('of X-Forwarded-Host', 'https://app.example.test/v1/y?z#f', 'https://app.example.test/api/rewrite/y?z#f', ...REWRITTEN),
  location('of X-Forwarded-Host, without the scheme', '//app.example.test/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('of X-Forwarded-Host, with another scheme', 'http://app.example.test/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('of X-Forwarded-Host and X-Forwarded-Prefix', 'https://app.example.test/api/rewrite/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('of X-Forwarded-Host, below the route already', 'https://app.example.test/api/rewrite/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('its own host with the scheme it was told', 'https://{{upstream}}/v1/y', 'https://app.example.test/api/rewrite/y', ...REWRITTEN),
  location('the public host as the beginning of another', 'https://app.example.test.evil.example/v1/y', 'https://app.example.test.evil.example/v1/y', ...REWRITTEN),
  location('two slashes behind the origin', 'http://{{upstream}}//evil.example', 'https://app.example.test//evil.example'),
  location('its origin as a user of another host', 'http://{{upstream}}@evil.example/', 'http://{{upstream}}@evil.example/'),
  location('its origin as the beginning of another', 'http://{{upstream}}0/', 'http://{{upstream}}0/'),
  location('its origin with another scheme', 'https://{{upstream}}/', 'https://{{upstream}}/'),
  location('another origin', 'https://id.example.com/authorize?x=http://{{upstream}}/', 'https://id.example.com/authorize?x=http://{{upstream}}/'),
  location('another origin without a scheme', '//evil.example/', '//evil.example/'),
  location('a backslash', '/\\evil.example/', '/\\evil.example/'),
  location('a path', '/y?z=1', '/y?z=1'),
  location('a relative one', 'y', 'y'),
  location('nothing', '', ''),
]

const caching = (name: string, line: string, arrives: Text | null) =>
  row('C8', ['R-170'], name, line, { 'cache-control': arrives })

/** what is one user's is not another's. */
// biome-ignore format: a row is a line
const CACHING: readonly WireCase[] = [
  caching('no Cache-Control, for nobody in particular', '', null),
  signedIn(caching('no Cache-Control', '', 'private')),
  signedIn(caching('a Cache-Control of its own', 'Cache-Control: no-store, max-age=0\r\n', 'no-store, max-age=0')),
  ...[
    ['public, s-maxage=600', 'private'],
    ['Public, S-MaxAge=600, max-age=60, immutable', 'max-age=60, immutable, private'],
    ['max-age=600', 'max-age=600, private'],
    ['no-cache', 'no-cache, private'],
    ['private="x", max-age=60', 'max-age=60, private'],
    ['', 'private'],
    [' ,', 'private'],
  ].map(([said = '', arrives = '']) => signedIn(caching(`Cache-Control: ${said}`, `Cache-Control: ${said}\r\n`, arrives))),
  signedIn(caching('two of them', 'Cache-Control: max-age=5\r\nCache-Control: public\r\n', 'max-age=5, private')),
  signedIn(row('C8', ['R-170'], 'what shared caches obey instead', 'CDN-Cache-Control: max-age=600\r\nSurrogate-Control: max-age=600\r\nX-Accel-Expires: 600\r\n', { 'cdn-cache-control': null, 'surrogate-control': null, 'x-accel-expires': null, 'cache-control': 'private' })),
  caching('what anybody may keep, for nobody in particular', 'Cache-Control: public, s-maxage=600\r\nX-Accel-Expires: 600\r\n', 'public, s-maxage=600'),
  caching('an empty one, for nobody in particular', 'Cache-Control:\r\n', ''),
  signedIn(caching('a Cache-Control that is none', 'Cache_Control: public\r\n', 'private')),
  signedIn(caching('an old field', 'Pragma: no-cache\r\nExpires: 0\r\n', 'private')),
]

const varying = (name: string, line: string, arrives: Text, status = '200 OK') =>
  signedIn(row('C8', ['R-170'], name, line, { vary: arrives }, status))

/** what the browser keeps of one user is not shown to the next. */
// biome-ignore format: a row is a line
const VARYING: readonly WireCase[] = [
  varying('no Vary', '', 'Cookie, Origin'),
  varying('no Vary, kept for long', 'Cache-Control: private, max-age=600\r\n', 'Cookie, Origin'),
  varying('Vary: Authorization', 'Vary: Authorization\r\n', 'Authorization, Cookie, Origin'),
  varying('Vary: Cookie', 'Vary: Accept, COOKIE\r\n', 'Accept, COOKIE, Origin'),
  varying('Vary: *', 'Vary: *\r\n', '*'),
  varying('two Varys', 'Vary: Accept\r\nVary: Origin\r\n', 'Accept, Origin, Cookie'),
  {
    ...varying('a 304', '', 'Cookie, Origin'),
    script: [SIGNED_IN, { reply: 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n' }],
    expect: { answers: [{ status: 304, body: '', fields: { vary: 'Cookie, Origin', etag: '"a"' } }], requests: [{ line: `GET ${SIGNED_IN} HTTP/1.1`, token: 'alice' }] },
  },
  varying('a 404', '', 'Cookie, Origin', '404 Not Found'),
  ...[
    ['no session', '/api/admin/x', 'X-CSRF: 1\r\n', 401],
    ['no CSRF header', '/api/admin/x', '', 403],
    ['no CSRF header where a session is optional', '/api/optional/x', '', 403],
    ['a foreign origin', '/api/optional/x', 'X-CSRF: 1\r\nOrigin: https://evil.example\r\n', 403],
  ].map(([name, target, fields, status]): WireCase => ({
    ...{ id: 'C8', rules: ['R-170'], name: `Vary of our own refusal: ${name}`, send: get(String(target), HOST + fields) },
    expect: { answers: [{ status: Number(status), fields: { vary: 'Origin, Cookie', 'cache-control': 'no-store' } }], requests: [] },
  })),
  row('C8', ['R-170'], 'no Vary, for nobody in particular', '', { vary: 'Origin' }),
]

/** Sections C8 and C10, and what answers keep. */
export const RESPONSE_CASES: readonly WireCase[] = [
  ...SET_COOKIES,
  ...REMOVED,
  ...CHALLENGES,
  ...LOCATIONS,
  ...CACHING,
  ...VARYING,
]
