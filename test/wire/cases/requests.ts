import {
  ALICE,
  denied,
  forwarded,
  get,
  HOST,
  post,
  type RequestRule,
  refused,
  request,
  row,
  spellings,
  type WireCase,
} from '../wire-case.ts'

const toPublic = (rule: Omit<RequestRule, 'line'>) => forwarded('GET /api/public/x', rule)
const UNKNOWN = denied(401, 'session_required')

const OVERRIDES = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override']

// biome-ignore format: a row is a line
const cookies = (name: string, sent: string, arrives: string | null) =>
  row('C7', ['R-168'], name, get('/api/public/x', `${HOST}Cookie: ${sent}\r\n`), toPublic({ fields: { cookie: arrives } }))

/** C7: our cookies stay here, every other goes on byte for byte. */
// biome-ignore format: a row is a line
const COOKIES: readonly WireCase[] = [
  cookies('ours alone', '{{cookie}}', null),
  cookies('ours in front', '{{cookie}}; a=1', 'a=1'),
  cookies('ours behind', 'a=1; {{cookie}}', 'a=1'),
  cookies('ours in the middle', 'a=1; {{cookie}}; b=2', 'a=1; b=2'),
  cookies('ours without a blank', 'a=1;{{cookie}};b=2', 'a=1;b=2'),
  cookies('ours with more blanks', 'a=1;  {{cookie}}  ; b=2', 'a=1; b=2'),
  cookies('ours twice', '{{cookie}}; a=1; __Host-Http-cloakroom=evil', 'a=1'),
  cookies('ours in capitals', '__HOST-HTTP-CLOAKROOM=evil; a=1', 'a=1'),
  cookies('ours without a value', '__Host-Http-cloakroom; a=1', 'a=1'),
  cookies('those of sign-ins under way', '__Host-Http-cloakroom-login-x=evil; a=1; __Host-Http-cloakroom-login-y=evil', 'a=1'),
  cookies('names that only begin like ours', '__Host-Http-cloakroo=1; cloakroom=2', '__Host-Http-cloakroo=1; cloakroom=2'),
  cookies('others in quotes, with odd bytes', 'a="x y, z"; b=\xe9\xff; c==; d', 'a="x y, z"; b=\xe9\xff; c==; d'),
  cookies('malformed', ';;=;a', ';;=;a'),
  cookies('a value that holds our name', 'a=__Host-Httpcloakroom=1', 'a=__Host-Httpcloakroom=1'),
  cookies('fifty others', Array.from({ length: 50 }, (_, n) => `c${n}=${n}`).join('; '), Array.from({ length: 50 }, (_, n) => `c${n}=${n}`).join('; ')),
  row('C7', ['R-168', 'R-171'], 'two fields', get('/api/public/x', `${HOST}Cookie: a=1; {{cookie}}\r\nCookie: b=2\r\n`), toPublic({ fields: { cookie: /^a=1(; |)b=2$/ } })),
  row('C7', ['R-168'], 'ours under an underscore', get('/api/admin/x', `${ALICE}COOK_IE: {{bob}}\r\n`), forwarded('GET /api/admin/x', { token: 'alice', harmless: ['cook_ie'] })),
]

/** C9: a claim never ends the field that it is put into. */
// biome-ignore format: a row is a line
const CLAIMS: readonly WireCase[] = [
  row('C9', ['R-172'], 'line ends, a NUL, characters past Latin-1, a comma in a list, 64 KB', get('/api/me', ALICE), forwarded('GET /api/me', { fields: { 'x-user-id': 'alice', 'x-nickname': 'a%0D%0AX-Wicked: 1%0D%0A%0D%0AGET /wicked HTTP/1.1', 'x-name': 'Zo%C3%AB %F0%9F%92%A5%00', 'x-picture': null, 'x-groups': 'a%2Cadmin,b', 'x-tier': 'gold' } })),
]

/** C11: the method is the one of the request line. */
// biome-ignore format: a row is a line
const METHODS: readonly WireCase[] = [
  ...OVERRIDES.map((name) =>
    row('C11', ['R-189'], `${name} in every spelling`, post(spellings(name).replaceAll('evil', 'DELETE'), '', '/api/limited/x'), forwarded('POST /api/limited/x', { fields: { [name.toLowerCase()]: null } })),
  ),
  row('C11', ['R-189'], 'a method that the route does not have', request('DELETE', '/api/limited/x', HOST), { answers: [{ status: 405, code: 'method_not_allowed', fields: { allow: 'GET, POST' } }], requests: [] }),
  row('C11', ['R-189'], 'an override does not open the route', request('DELETE', '/api/limited/x', `${HOST}X-HTTP-Method-Override: GET\r\n`), { answers: [{ status: 405, code: 'method_not_allowed', fields: { allow: 'GET, POST' } }], requests: [] }),
  ...['HEAD', 'OPTIONS', 'PUT', 'PATCH', 'PROPFIND', 'QUERY'].map((method) =>
    row('C11', ['R-189'], `${method} is not among the methods of the route`, request(method, '/api/limited/x'), { answers: [{ status: 405, fields: { allow: 'GET, POST' } }], requests: [], connection: 'open' }),
  ),
  ...['PROPFIND', 'MKCOL', 'LOCK', 'REPORT', 'M-SEARCH', 'PURGE', 'LINK'].map((method) =>
    row('C11', ['R-189'], `${method} goes on as it is where every method may`, request(method, '/api/public/x'), forwarded(`${method} /api/public/x`)),
  ),
]

/** C12: nobody is let in for the name of a program. */
// biome-ignore format: a row is a line
const PROGRAMS = ['GoogleHC/1.0', 'kube-probe/1.31', 'ELB-HealthChecker/2.0', 'Envoy/HC'].map((agent) =>
  row('C12', [], `User-Agent: ${agent}`, get('/api/admin/x', `${HOST}X-CSRF: 1\r\nUser-Agent: ${agent}\r\n`), UNKNOWN),
)

/** What is nobody's but the client's and the upstream's arrives as it was. */
// biome-ignore format: a row is a line
const UNTOUCHED: readonly WireCase[] = [
  row('C7', ['R-171'], 'unknown fields, their letter case and order, and repeated ones', get('/api/public/x', `${HOST}X-B: 2\r\nx-a: 1\r\nX-B: 3\r\nX-b:4\r\n`), { ...toPublic({ fields: { 'x-b': '2, 3, 4', 'x-a': '1' } }) }),
  row('C7', ['R-171'], 'bytes past ASCII in a value', get('/api/public/x', `${HOST}X-Label: caf\xe9 \xc3\xa9 \x80\xff\r\n`), toPublic({ fields: { 'x-label': 'caf\xe9 \xc3\xa9 \x80\xff' } })),
  row(
    'C7',
    ['R-184'],
    'conditions, ranges and codings',
    get(
      '/api/public/x',
      `${HOST}If-None-Match: "a", W/"b"\r\nIf-Modified-Since: Sat, 21 Nov 2026 10:00:00 GMT\r\nIf-Range: "a"\r\nRange: bytes=0-9,20-\r\nAccept-Encoding: gzip, br;q=0.5, zstd\r\n`,
    ),
    toPublic({
      fields: {
        'if-none-match': '"a", W/"b"',
        'if-modified-since': 'Sat, 21 Nov 2026 10:00:00 GMT',
        'if-range': '"a"',
        range: 'bytes=0-9,20-',
        'accept-encoding': 'gzip, br;q=0.5, zstd',
      },
    }),
  ),
  row('C7', ['R-195'], 'what an EventSource says', get('/api/admin/x', `${HOST}Cookie: {{cookie}}\r\nAccept: text/event-stream\r\nSec-Fetch-Site: same-origin\r\nLast-Event-ID: 42\r\n`), forwarded('GET /api/admin/x', { token: 'alice', fields: { 'last-event-id': '42', accept: 'text/event-stream' } })),
  row('C7', ['R-171'], 'an empty value', get('/api/public/x', `${HOST}X-Empty:\r\n`), toPublic({ fields: { 'x-empty': '' } })),
]

/** Hops are counted, and told (RFC 9110 §7.6.2, §7.6.3). */
// biome-ignore format: a row is a line
const HOPS: readonly WireCase[] = [
  row('C5', ['R-162'], 'the Via of others stays in front of ours', get('/api/public/x', `${HOST}Via: 1.0 fred, 1.1 p.example.net\r\n`), toPublic({ fields: { via: '1.0 fred, 1.1 p.example.net, 1.1 cloakroom-5b8c7308' } })),
  row('C5', ['R-162'], 'our own pseudonym has come round in a circle', get('/api/public/x', `${HOST}Via: 1.1 cloakroom-5b8c7308\r\n`), refused([502, 508], undefined, 'either')),
  row('C5', ['R-163'], 'OPTIONS that may go no further', request('OPTIONS', '/api/public/x', `${HOST}Max-Forwards: 0\r\n`), { answers: [{ status: [200, 204] }], requests: [], connection: 'open' }),
  row('C5', ['R-163'], 'OPTIONS that may go five hops', request('OPTIONS', '/api/public/x', `${HOST}Max-Forwards: 5\r\n`), forwarded('OPTIONS /api/public/x', { fields: { 'max-forwards': '4' } })),
  row('C5', ['R-163'], 'OPTIONS whose hops are no number', request('OPTIONS', '/api/public/x', `${HOST}Max-Forwards: evil\r\n`), refused(400, 'bad_request', 'either')),
  row('C5', ['R-163'], 'TRACE that may go no further', request('TRACE', '/api/public/x', `${HOST}Max-Forwards: 0\r\n`), refused(405, 'method_not_allowed', 'either')),
]

/** Sections C7, C9, C11 and C12, and what a request keeps. */
export const REQUEST_CASES: readonly WireCase[] = [
  ...COOKIES,
  ...CLAIMS,
  ...METHODS,
  ...PROGRAMS,
  ...UNTOUCHED,
  ...HOPS,
]
