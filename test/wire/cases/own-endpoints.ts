import { ALICE, denied, forwarded, get, HOST, refused, request, row, type WireCase } from '../wire-case.ts'

/** A user's browser, without what only the application's own script can add. */
const COOKIE = `${HOST}Cookie: {{cookie}}\r\n`

const STILL_IN = forwarded('GET /api/admin/x', { token: 'alice' })
const stillSignedIn = (
  send: string,
  status: number,
  code: string,
): Pick<WireCase, 'send' | 'expect' | 'methods'> => ({
  send: send + get('/api/admin/x', ALICE),
  methods: ['GET', 'GET'],
  expect: { ...STILL_IN, answers: [{ status, code }, ...STILL_IN.answers] },
})

// biome-ignore format: a row is a line
const unasked = (name: string, fields: string) =>
  row('D10', [], name, get('/download/x', HOST + fields), { answers: [{ status: [401, 403], fields: { 'content-type': 'application/problem+json', 'set-cookie': null, location: null } }], requests: [] })

/** D6, D7, D12: our own endpoints, called from elsewhere. */
// biome-ignore format: a row is a line
const OWN_ENDPOINTS: readonly WireCase[] = [
  { ...row('D6', [], 'sign-out without a handle leaves the session', '', []), ...stillSignedIn(get('/bff/logout', COOKIE), 400, 'bad_request') },
  { ...row('D6', [], "sign-out with another's handle leaves the session", '', []), ...stillSignedIn(get('{{bobsLogout}}', COOKIE), 400, 'bad_request') },
  { ...row('D6', [], 'sign-out with two handles leaves the session', '', []), ...stillSignedIn(get('/bff/logout?sid=a&sid=b', COOKIE), 400, 'bad_request') },
  { ...row('D6', [], 'sign-out to another site leaves the session', '', []), ...stillSignedIn(get('/bff/logout?sid=a&returnUrl=//evil.example', COOKIE), 400, 'invalid_return_url') },
  row('D6', [], 'a sign-out without a session clears no cookie', get('/bff/logout?sid=a&returnUrl=/bye', HOST), { answers: [{ status: 302, fields: { location: '/bye', 'set-cookie': null, 'clear-site-data': '"cache"' } }], requests: [], connection: 'open' }),
  ...['Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image', 'Sec-Fetch-Mode: cors', 'Sec-Fetch-Mode: navigate, cors', 'Sec-Fetch-Mode: Navigate', 'Sec-Fetch-Mode: navigate\r\nSec-Purpose: prefetch', 'Sec-Fetch-Mode: navigate\r\nSec-Purpose: prefetch;prerender', 'Sec-Fetch-Mode: navigate\r\nPurpose: prefetch', 'Purpose: Prefetch', 'X-Moz: prefetch'].flatMap((fields): WireCase[] => [
    { ...row('D6', [], `sign-out that is no navigation leaves the session: ${fields.replace('\r\n', ', ')}`, '', []), ...stillSignedIn(get('{{alicesLogout}}', `${COOKIE}${fields}\r\n`), 403, 'origin_forbidden') },
    row('D10', [], `sign-in that is no navigation begins nothing: ${fields.replace('\r\n', ', ')}`, get('/bff/login?returnUrl=/a', `${HOST}${fields}\r\n`), { answers: [{ status: 403, code: 'origin_forbidden', fields: { 'set-cookie': null, location: null } }], requests: [], connection: 'open' }),
  ]),
  row('D6', [], 'HEAD signs nobody out', request('HEAD', '/bff/logout?sid=a', COOKIE), { answers: [{ status: 405 }], requests: [] }),
  row('D7', [], "another's code and state", get('/bff/callback?code=evil&state=evil&iss={{issuer}}', HOST), { answers: [{ status: 400, code: 'invalid_callback', fields: { 'set-cookie': null } }], requests: [] }),
  row('D7', [], "another's code and state, in a signed-in browser", get('/bff/callback?code=evil&state=evil', COOKIE), { answers: [{ status: 400, code: 'invalid_callback', fields: { 'set-cookie': null } }], requests: [] }),
  row('D7', [], 'a cookie of a sign-in that never was', get('/bff/callback?code=evil&state=evil', `${HOST}Cookie: __Host-Http-cloakroom-login-evil=evil\r\n`), refused(400, 'invalid_callback', 'either')),
  row(
    'D12',
    [],
    'a login URL chooses nothing but prompt and login hint',
    get(
      '/bff/login?scope=evil&claims=%7B%22evil%22%3A1%7D&redirect_uri=https://evil.example&client_id=evil&resource=evil&response_type=evil&nonce=evil&state=evil&acr_values=evil&prompt=evil&request=evil&request_uri=evil',
      `${HOST}Sec-Fetch-Site: cross-site\r\n`,
    ),
    { answers: [{ status: 302, fields: { location: /^(?!.*evil)/ } }], requests: [], connection: 'open' },
  ),
  row('D12', [], 'a login URL that is repeated', get('/bff/login?returnUrl=/a&returnUrl=//evil.example', HOST), refused([302, 400], undefined, 'either')),
]

/** D9, D11: what every answer of our own says: it is not framed, and not kept. */
const PROTECTED = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'content-security-policy':
    /^default-src 'none';base-uri 'none';form-action '(?:none|self)'[^;]*;frame-ancestors 'none'/,
  'strict-transport-security': /^max-age=31536000\b/,
  'referrer-policy': 'no-referrer',
} as const
const own = (id: 'D9' | 'D11', name: string, send: string, status: number) =>
  row(id, ['R-190'], name, send, { answers: [{ status, fields: PROTECTED }], requests: [] })
// biome-ignore format: a row is a line
const OWN_ANSWERS: readonly WireCase[] = [
  own('D11', 'the login redirect', get('/bff/login'), 302),
  own('D9', 'a failed callback', get('/bff/callback'), 400),
  own('D9', 'a failed callback as a page', get('/bff/callback', `${HOST}Accept: text/html\r\n`), 400),
  own('D9', 'the user', get('/bff/user', ALICE), 200),
  own('D11', 'nobody', get('/bff/user', `${HOST}X-CSRF: 1\r\n`), 401),
  own('D9', 'a refused sign-out', get('/bff/logout', COOKIE), 400),
  own('D9', 'a sign-out without a session', get('/bff/logout'), 302),
  own('D9', 'the way back from a sign-out', get('/bff/logged-out?state=evil'), 302),
  own('D9', 'an end of session that is none', get('/bff/end-session?handle=evil'), 302),
  own('D9', 'a landing of nobody', get('/bff/landing?state=evil'), 400),
  own('D9', 'an endpoint that is none', get('/bff/evil'), 404),
  own('D9', 'an endpoint by another method', request('PUT', '/bff/user'), 405),
  own('D11', 'a route without a session', get('/api/admin/x', `${HOST}X-CSRF: 1\r\n`), 401),
  own('D11', 'a route without the header', get('/api/admin/x'), 403),
  own('D11', 'no route', get('/evil'), 404),
  own('D11', 'a path that is refused', get('/api/public/../x'), 400),
  own('D11', 'a host that is refused', get('/api/public/x', 'Host: evil.example\r\n'), 421),
  own('D11', 'no HTTP', 'evil\r\n\r\n', 400),
  own('D11', 'a page without a session', get('/download/x', `${HOST}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n`), 302),
  own(
    'D9',
    'a refused upgrade',
    get(
      '/ws/x',
      `${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://app.example.test\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n`,
    ),
    401,
  ),
]

/** D10: what no person has opened is refused, and leaves nothing behind. */
// biome-ignore format: a row is a line
const NO_NAVIGATION: readonly WireCase[] = [
  unasked('a script', 'Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-origin\r\n'),
  unasked('an image', 'Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\nSec-Fetch-Site: same-origin\r\n'),
  unasked('a manifest', 'Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: manifest\r\nSec-Fetch-Site: same-origin\r\n'),
  unasked('a prefetched page', 'Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: same-origin\r\nSec-Purpose: prefetch\r\n'),
  unasked('a prerendered page', 'Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: same-origin\r\nSec-Purpose: prefetch;prerender\r\n'),
  unasked('a frame', 'Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\nSec-Fetch-Site: cross-site\r\n'),
  unasked('XMLHttpRequest of an old library', 'X-Requested-With: XMLHttpRequest\r\nSec-Fetch-Site: same-origin\r\n'),
  row('D10', [], 'a person, who is sent to sign in', get('/download/x?y=1', `${HOST}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: cross-site\r\n`), { answers: [{ status: 302, fields: { location: '/bff/login?returnUrl=%2Fdownload%2Fx%3Fy%3D1', 'set-cookie': null } }], requests: [], connection: 'open' }),
  row('D10', [], 'a person at a route of scripts is told as a script is', get('/api/admin/x', `${HOST}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n`), refused(403, undefined, 'either')),
  row('D10', [], 'a person by POST', request('POST', '/download/x', `${HOST}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n`), refused(403, undefined, 'either')),
  row('D10', [], 'a stranger is told where to sign in', get('/api/admin/x', `${HOST}X-CSRF: 1\r\n`), { answers: [{ status: 401, code: 'session_required', body: /"login_url":"\/bff\/login"/ }], requests: [], connection: 'open' }),
]

/** A session cookie that is not as it was given out. */
// biome-ignore format: a row is a line
const COOKIE_CASES: readonly WireCase[] = [
  row('C7', ['R-168'], 'a session cookie that nobody gave out', get('/api/admin/x', `${HOST}X-CSRF: 1\r\nCookie: __Host-Http-cloakroom=s%3Aevil.evil\r\n`), denied(401, 'session_required')),
  row('C7', ['R-168'], 'a session cookie in capitals', get('/api/admin/x', `${HOST}X-CSRF: 1\r\nCookie: __HOST-HTTP-CLOAKROOM=s%3Aevil.evil\r\n`), denied(401, 'session_required')),
  row('C7', ['R-168'], 'two session cookies are none', get('/api/admin/x', `${HOST}X-CSRF: 1\r\nCookie: {{cookie}}; {{bob}}\r\n`), refused([400, 401], undefined, 'either')),
]

/** Sections D6, D7, D9 to D12: what is answered here. */
export const OWN_ENDPOINT_CASES: readonly WireCase[] = [
  ...OWN_ENDPOINTS,
  ...OWN_ANSWERS,
  ...NO_NAVIGATION,
  ...COOKIE_CASES,
]
