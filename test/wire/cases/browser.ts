import {
  ALICE,
  forwarded,
  get,
  HOST,
  type Outcome,
  refused,
  request,
  row,
  type WireCase,
} from '../wire-case.ts'

/** A user's browser, without what only the application's own script can add. */
const COOKIE = `${HOST}Cookie: {{cookie}}\r\n`
const NO_HEADER = refused(403, 'csrf_required', 'either')
const FOREIGN = refused(403, 'origin_forbidden', 'either')
const ADMIN = forwarded('GET /api/admin/x', { token: 'alice' })
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND']

/** D1: every method needs the header. */
// biome-ignore format: a row is a line
const HEADER: readonly WireCase[] = [
  ...METHODS.map((method) =>
    row('D1', [], `${method} without X-CSRF`, request(method, '/api/admin/x', COOKIE), method === 'HEAD' ? { answers: [{ status: 403, body: '' }], requests: [] } : NO_HEADER),
  ),
  ...['0', 'true', '', '1, 1', '11', 'yes'].map((value) =>
    row('D1', [], `X-CSRF: ${JSON.stringify(value)}`, get('/api/admin/x', `${COOKIE}X-CSRF: ${value}\r\n`), NO_HEADER),
  ),
  row('D1', [], 'X_CSRF', get('/api/admin/x', `${COOKIE}X_CSRF: 1\r\n`), NO_HEADER),
  row('D1', [], 'X-CSRF in the query', get('/api/admin/x?X-CSRF=1', COOKIE), NO_HEADER),
  row('D1', [], 'an event stream of no browser', get('/api/admin/x', `${COOKIE}Accept: text/event-stream\r\n`), NO_HEADER),
  row('D1', [], 'an event stream by POST', request('POST', '/api/admin/x', `${COOKIE}Accept: text/event-stream\r\nSec-Fetch-Site: same-origin\r\n`), NO_HEADER),
  row('D1', [], 'a client that is no browser, with the header', get('/api/admin/x', ALICE), ADMIN),
  row('D1', [], 'before the session is looked up', get('/api/admin/x', HOST), NO_HEADER),
  row('D1', [], 'our own endpoint', get('/bff/user', COOKIE), NO_HEADER),
  row('D1', [], 'sign-out by POST', request('POST', '/bff/logout', `${COOKIE}Content-Length: 0\r\n`), NO_HEADER),
]

const form = (type: string, body: string, fields = '') =>
  request(
    'POST',
    '/api/admin/x',
    `${COOKIE}${fields}Content-Type: ${type}\r\nContent-Length: ${body.length}\r\n`,
    body,
  )

/** D2: what a form of another site can send. */
// biome-ignore format: a row is a line
const FORMS: readonly WireCase[] = [
  row('D2', [], 'text/plain', form('text/plain', 'a=1', 'Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n'), FOREIGN),
  row('D2', [], 'multipart', form('multipart/form-data; boundary=x', '--x--', 'Origin: https://evil.example\r\n'), FOREIGN),
  row('D2', [], 'urlencoded', form('application/x-www-form-urlencoded', 'a=1', 'Origin: https://evil.example\r\n'), FOREIGN),
  row('D2', [], 'of a browser that says nothing of where it comes from', form('text/plain', 'a=1'), NO_HEADER),
  row('D2', [], 'to a route for downloads', request('POST', '/download/x', `${COOKIE}Content-Length: 3\r\n`, 'a=1'), NO_HEADER),
  row('D2', [], 'to a route for downloads, from another site', request('POST', '/download/x', `${COOKIE}Origin: https://evil.example\r\nContent-Length: 3\r\n`, 'a=1'), FOREIGN),
]

/** D3: origins that are not ours, with everything else in order. */
// biome-ignore format: a row is a line
const ORIGINS = [
  ...[
    'null',
    'https://app.example.test.evil.example',
    'https://evilapp.example.test',
    'http://app.example.test',
  ],
  ...[
    'https://app.example.test:8443',
    'https://app.example.test/',
    'https://app.example.test, https://evil.example',
  ],
  ...[
    'https://evil.example',
    'https://example.test',
    'https://sub.app.example.test',
    'https://app.example.test.',
  ],
  ...[
    'https://user@app.example.test',
    'app.example.test',
    '*',
    'file://',
    'https://partner.example.test.evil.example',
  ],
].flatMap((origin) => [
  row('D3', [], `Origin: ${origin}`, get('/api/admin/x', `${ALICE}Origin: ${origin}\r\n`), FOREIGN),
  row('D3', [], `Origin: ${origin}, by POST`, request('POST', '/api/admin/x', `${ALICE}Origin: ${origin}\r\nContent-Length: 0\r\n`), FOREIGN),
])
// biome-ignore format: a row is a line
const MORE_ORIGINS: readonly WireCase[] = [
  row('D3', [], 'two fields, ours first', get('/api/admin/x', `${ALICE}Origin: https://app.example.test\r\nOrigin: https://evil.example\r\n`), [FOREIGN, refused(400)]),
  row('D3', [], 'two fields, ours last', get('/api/admin/x', `${ALICE}Origin: https://evil.example\r\nOrigin: https://app.example.test\r\n`), [FOREIGN, refused(400)]),
  row('D3', [], 'our own', get('/api/admin/x', `${ALICE}Origin: https://app.example.test\r\n`), ADMIN),
  row('D3', [], 'one that is allowed', get('/api/admin/x', `${ALICE}Origin: https://partner.example.test\r\nSec-Fetch-Site: same-site\r\n`), forwarded('GET /api/admin/x', { token: 'alice' }, { fields: { 'access-control-allow-origin': 'https://partner.example.test', 'access-control-allow-credentials': 'true', vary: /Origin/i } })),
]

/** D4: what the browser says of the page that asks. */
// biome-ignore format: a row is a line
const SITES: readonly WireCase[] = [
  ...['cross-site', 'same-site', 'none', 'evil', '', 'same-origin, cross-site'].map((site) =>
    row('D4', [], `Sec-Fetch-Site: ${JSON.stringify(site)}`, get('/api/admin/x', `${ALICE}Sec-Fetch-Site: ${site}\r\n`), FOREIGN),
  ),
  row('D4', [], 'two fields', get('/api/admin/x', `${ALICE}Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n`), FOREIGN),
  row('D4', [], 'same-origin', get('/api/admin/x', `${ALICE}Sec-Fetch-Site: same-origin\r\n`), ADMIN),
  row('D4', [], 'same-origin, from a foreign origin', get('/api/admin/x', `${ALICE}Sec-Fetch-Site: same-origin\r\nOrigin: https://evil.example\r\n`), FOREIGN),
  row('D4', [], 'cross-site on a route for downloads', get('/download/x', `${COOKIE}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n`), FOREIGN),
  row('D4', [], 'same-origin on a route for downloads', get('/download/x', `${COOKIE}Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n`), forwarded('GET /download/x', { token: 'alice' })),
  row('D4', [], 'cross-site on our own endpoint', get('/bff/user', `${ALICE}Sec-Fetch-Site: cross-site\r\n`), FOREIGN),
]

const preflight = (origin: string, target = '/api/admin/x') =>
  request(
    'OPTIONS',
    target,
    `${HOST}Origin: ${origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-csrf, content-type\r\n`,
  )
const NO_CORS = { 'access-control-allow-origin': null, 'access-control-allow-credentials': null } as const
const NOT_ALLOWED: Outcome = {
  answers: [{ status: 403, code: 'origin_forbidden', fields: NO_CORS }],
  requests: [],
}

const differs = (status: number) => ({
  answers: [{ status, fields: { vary: /^Origin/, 'access-control-allow-origin': null } }],
  requests: [],
})

/** D5: without an `Origin` the answer is another than with one, and a cache must know. */
// biome-ignore format: a row is a line
const WITHOUT_ORIGIN: readonly WireCase[] = [
  row('D5', [], 'no Origin, on an anonymous route', get('/api/public/x'), forwarded('GET /api/public/x', {}, { fields: { vary: 'Origin' } })),
  row('D5', [], 'no Origin, from a user', get('/api/admin/x', ALICE), forwarded('GET /api/admin/x', { token: 'alice' }, { fields: { vary: 'Cookie, Origin' } })),
  row('D5', [], 'our own Origin', get('/api/public/x', `${HOST}Origin: https://app.example.test\r\n`), forwarded('GET /api/public/x', {}, { fields: { vary: 'Origin', 'access-control-allow-origin': null } })),
  row('D5', [], 'no Origin, a refusal', get('/api/admin/x', `${HOST}X-CSRF: 1\r\n`), differs(401)),
  row('D5', [], 'no Origin, our own endpoint', get('/bff/user', `${HOST}X-CSRF: 1\r\n`), differs(401)),
  row('D5', [], 'no Origin, no route', get('/evil'), differs(404)),
  row('D5', [], 'no Origin, the login redirect', get('/bff/login'), differs(302)),
  row('D5', [], 'no Origin, a page without a session', get('/download/x', `${HOST}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n`), { answers: [{ status: 302, fields: { vary: 'Origin, Cookie, sec-fetch-mode, sec-fetch-dest' } }], requests: [] }),
]

/** D5: cross-origin requests, answered by us alone. */
// biome-ignore format: a row is a line
const PREFLIGHTS: readonly WireCase[] = [
  ...[
    'https://evil.example',
    'null',
    'https://partner.example.test.evil.example',
    'http://partner.example.test',
  ].map((origin) => row('D5', [], `a preflight from ${origin}`, preflight(origin), NOT_ALLOWED)),
  row('D5', [], 'a foreign preflight to an anonymous route', preflight('https://evil.example', '/api/public/x'), NOT_ALLOWED),
  row('D5', [], 'a preflight from an allowed origin, without a session', preflight('https://partner.example.test'), { answers: [{ status: 204, body: '', fields: { 'access-control-allow-origin': 'https://partner.example.test', 'access-control-allow-credentials': 'true', 'access-control-allow-headers': /x-csrf/, vary: /Origin/i } }], requests: [], connection: 'open' }),
  row('D5', [], 'a foreign request gets no permission to read the refusal', get('/api/admin/x', `${ALICE}Origin: https://evil.example\r\n`), NOT_ALLOWED),
  {
    ...row(
      'D5',
      [],
      'the permissions of the upstream do not cross',
      get('/api/public/cors', HOST),
      forwarded(
        'GET /api/public/cors',
        {},
        { echoes: undefined, body: 'ok', fields: { ...NO_CORS, 'access-control-expose-headers': null } },
      ),
    ),
    script: [
      '/api/public/cors',
      {
        reply:
          'HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nACCESS-CONTROL-ALLOW-CREDENTIALS: true\r\nAccess-Control-Expose-Headers: *\r\nContent-Length: 2\r\n\r\nok',
      },
    ],
  },
]

/** Section D. */
export const BROWSER_CASES: readonly WireCase[] = [
  ...HEADER,
  ...FORMS,
  ...ORIGINS,
  ...MORE_ORIGINS,
  ...SITES,
  ...WITHOUT_ORIGIN,
  ...PREFLIGHTS,
]
