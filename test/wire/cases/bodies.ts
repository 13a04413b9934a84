import {
  ALICE,
  forwarded,
  get,
  HOST,
  MALFORMED,
  type Outcome,
  post,
  refused,
  request,
  row,
  SMUGGLED,
  type WireCase,
} from '../wire-case.ts'

const POST = 'POST /api/public/x'
const TE = 'Transfer-Encoding: chunked\r\n'
/** A body that a careless server would take for the next request. */
const INNER = 'GET /api/admin/secret HTTP/1.1\r\nHost: app.example.test\r\n\r\n'
const INNER_CL = `Content-Length: ${INNER.length}\r\n`
const INNER_CHUNKED = `${INNER.length.toString(16)}\r\n${INNER}\r\n0\r\n\r\n`

/** B5: `Connection` names what frames the message (CVE-2026-29057). */
// biome-ignore format: a row is a line
const NAMED_FRAMING = ['DELETE', 'OPTIONS', 'PUT', 'POST', 'PATCH', 'GET'].flatMap((method): WireCase[] => [
  row('B5', ['R-161', 'R-175'], `${method} in chunks, and Connection names Transfer-Encoding`, request(method, '/api/public/x', `${HOST}${TE}Connection: Transfer-Encoding, upgrade\r\n`, INNER_CHUNKED), [forwarded(`${method} /api/public/x`, { body: INNER, framing: 'chunked' }), refused([400, 501])]),
  row('B5', ['R-161', 'R-175'], `${method} with a length, and Connection names Content-Length`, request(method, '/api/public/x', `${HOST}${INNER_CL}Connection: Content-Length, Host\r\n`, INNER), [forwarded(`${method} /api/public/x`, { body: INNER, framing: 'length' }), refused([400, 501])]),
])

/** B6: a body where few expect one is carried, framed as one. */
// biome-ignore format: a row is a line
const UNUSUAL_BODIES = ['GET', 'HEAD', 'DELETE', 'OPTIONS', 'PROPFIND'].flatMap((method): WireCase[] => [
  row('B6', ['R-176'], `${method} with a body that looks like a request`, request(method, '/api/public/x', HOST + INNER_CL, INNER), [forwarded(`${method} /api/public/x`, { body: INNER, framing: 'length' }), refused([400, 501])]),
  row('B6', ['R-176'], `${method} with such a body in chunks`, request(method, '/api/public/x', HOST + TE, INNER_CHUNKED), [forwarded(`${method} /api/public/x`, { body: INNER, framing: 'chunked' }), refused([400, 501])]),
])

const pair = (first: string, second: string): Outcome => ({
  answers: [
    { status: 200, code: null, echoes: first },
    { status: 200, code: null, echoes: second },
  ],
  requests: [{ line: `${first} HTTP/1.1` }, { line: `${second} HTTP/1.1` }],
  connection: 'open',
})
const two = (first: string, second: string): Outcome => pair(`GET ${first}`, `GET ${second}`)

/** The broken request behind a good one never takes the good one's answer (RFC 9112 §9.3.2). */
function thenBroken(first: string): Outcome[] {
  const requests = [{ line: `${first} HTTP/1.1` }]
  const own = { status: 200, code: null, echoes: first }
  return [
    { answers: [own, { status: 400, code: 'bad_request' }], requests, connection: 'closed' },
    { answers: [own], requests, connection: 'closed' },
    { answers: [], requests, connection: 'closed' },
  ]
}

// biome-ignore format: a row is a line
const MORE_UNUSUAL_BODIES: readonly WireCase[] = [
  row('B6', ['R-176'], 'GET with a small body', request('GET', '/api/public/x', `${HOST}Content-Length: 5\r\n`, 'hello'), forwarded('GET /api/public/x', { body: 'hello' })),
  row('B6', ['R-176'], 'GET of length nought', request('GET', '/api/public/x', `${HOST}Content-Length: 0\r\n`), forwarded('GET /api/public/x', { body: '' })),
  row('B6', ['R-176'], 'POST of length nought', post('Content-Length: 0\r\n', ''), forwarded(POST, { body: '', framing: 'length' })),
  row('B6', ['R-176'], 'POST without either', post('', ''), forwarded(POST, { body: '' })),
  row('B6', ['R-176'], 'an empty body in chunks', post(TE, '0\r\n\r\n'), forwarded(POST, { body: '' })),
  row('B6', ['R-176'], 'GET with a body that a session is refused: the body is no second request', request('GET', '/api/admin/x', `${HOST}X-CSRF: 1\r\n${INNER_CL}`, INNER), refused(401, 'session_required', 'either')),
  row('B6', ['R-176'], 'GET with a body to no route', request('GET', '/nowhere', HOST + INNER_CL, INNER), refused(404, 'route_not_found', 'either')),
  row('B6', ['R-176'], 'GET with a body to our own endpoint', request('GET', '/bff/user', `${HOST}X-CSRF: 1\r\n${INNER_CL}`, INNER), refused(401, 'session_required', 'either')),
  row('B6', ['R-176'], 'POST with a body to a method that is not allowed', request('PUT', '/api/limited/x', HOST + INNER_CL, INNER), refused(405, 'method_not_allowed', 'either')),
  row('B6', ['R-176'], 'a refused request whose body never comes', request('POST', '/api/admin/x', `${HOST}${INNER_CL}`, ''), refused(403, 'csrf_required')),
  row('B6', ['R-176'], 'bytes behind a length of nought are the next request', `${post('Content-Length: 0\r\n', '')}${get('/api/public/y')}`, pair(POST, 'GET /api/public/y')),
  row('B6', ['R-176'], 'bytes behind a length of nought that are no request', `${post('Content-Length: 0\r\n', '')}evil`, thenBroken(POST)),
]

/** B7: what comes behind the chunks goes nowhere. */
// biome-ignore format: a row is a line
const TRAILERS = [
  ['Authorization', 'Authorization: Bearer evil'],
  ['Host', 'Host: evil.example'],
  ['Transfer-Encoding', 'Transfer-Encoding: identity'],
  ['Cookie', 'Cookie: {{cookie}}; evil=1'],
  ['X-Forwarded-For', 'X-Forwarded-For: 6.6.6.6'],
  ['X-User-Id', 'X-User-Id: evil'],
  ['X-CSRF', 'X-CSRF: 1'],
  ['a field of no meaning', 'X-Evil: evil'],
  ['two fields', 'X-Evil: evil\r\nAuthorization: Bearer evil'],
].map(([name, line]) =>
  row('B7', ['R-167', 'R-182'], `a trailer: ${name}`, post(`${TE}Trailer: Authorization, X-Evil\r\n`, `5\r\nhello\r\n0\r\n${line}\r\n\r\n`), [forwarded(POST, { body: 'hello', framing: 'chunked' }), MALFORMED, { ...MALFORMED, isAbandoned: true }]),
)
// biome-ignore format: a row is a line
const MORE_TRAILERS: readonly WireCase[] = [
  row('B7', ['R-173', 'R-182'], 'a trailer that frames', post(TE, '5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n'), [MALFORMED, { ...MALFORMED, isAbandoned: true }, forwarded(POST, { body: 'hello', framing: 'chunked' })]),
  row('B7', ['R-182'], 'a trailer does not make a session', request('POST', '/api/admin/x', `${HOST}X-CSRF: 1\r\n${TE}`, '5\r\nhello\r\n0\r\nCookie: {{cookie}}\r\n\r\n'), refused(401, 'session_required', 'either')),
  row('B7', ['R-182'], 'a trailer with a bare LF', post(TE, '5\r\nhello\r\n0\r\nX: a\nX-Evil: evil\r\n\r\n'), [MALFORMED, { ...MALFORMED, isAbandoned: true }]),
  row('B7', ['R-160', 'R-182'], 'TE: trailers asks for none of the upstream', get('/api/public/x', `${HOST}TE: trailers\r\nConnection: TE\r\n`), forwarded('GET /api/public/x')),
]

const EXPECT = 'Expect: 100-continue\r\n'
const CL5 = 'Content-Length: 5\r\n'

/** B8: `Expect`. */
// biome-ignore format: a row is a line
const EXPECTATIONS: readonly WireCase[] = [
  row('B8', ['R-180'], 'the body is asked for, and then comes', [post(EXPECT + CL5, ''), { until: 'HTTP/1.1 100 Continue\r\n\r\n' }, 'hello'], { ...forwarded(POST, { body: 'hello', framing: 'length' }), interim: [100] }),
  row('B8', ['R-180'], 'the body in chunks is asked for, and then comes', [post(EXPECT + TE, ''), { until: 'HTTP/1.1 100 Continue\r\n\r\n' }, '5\r\nhello\r\n0\r\n\r\n'], { ...forwarded(POST, { body: 'hello', framing: 'chunked' }), interim: [100] }),
  row('B8', ['R-180'], 'a user of a route with a token', [request('POST', '/api/admin/x', ALICE + EXPECT + CL5), { until: 'HTTP/1.1 100 Continue\r\n\r\n' }, 'hello'], { ...forwarded('POST /api/admin/x', { body: 'hello', token: 'alice' }), interim: [100] }),
  row('B8', ['R-180'], 'the body comes unasked', post(EXPECT + CL5, 'hello'), { ...forwarded(POST, { body: 'hello' }), interim: [100] }),
  row('B8', ['R-180'], 'capitals', [post(`EXPECT: 100-CONTINUE\r\n${CL5}`, ''), { until: 'HTTP/1.1 100 Continue\r\n\r\n' }, 'hello'], { ...forwarded(POST, { body: 'hello' }), interim: [100] }),
  row('B8', ['R-180'], 'refused for want of a session, without asking', request('POST', '/api/admin/x', `${HOST}X-CSRF: 1\r\n${EXPECT}${CL5}`), refused(401, 'session_required')),
  row('B8', ['R-180'], 'refused for want of the header, without asking', request('POST', '/api/admin/x', `${HOST}Cookie: {{cookie}}\r\n${EXPECT}${CL5}`), refused(403, 'csrf_required')),
  row('B8', ['R-180'], 'refused for its path, without asking', request('POST', '/api/public/../x', HOST + EXPECT + CL5), refused(400, 'path_rejected')),
  row('B8', ['R-180'], 'refused for want of a route, without asking', request('POST', '/nowhere', HOST + EXPECT + CL5), refused(404, 'route_not_found')),
  row('B8', ['R-180'], 'refused for its method, without asking', request('PUT', '/api/limited/x', HOST + EXPECT + CL5), refused(405, 'method_not_allowed')),
  row('B8', ['R-180'], 'refused for its size, without asking', request('POST', '/api/small', `${HOST}${EXPECT}Content-Length: 9\r\n`), refused(413, 'body_too_large')),
  row('B8', ['R-180'], 'refused for its framing, without asking', post(`${EXPECT}${CL5}${TE}`, ''), MALFORMED),
  row('B8', ['R-180'], 'refused, and the body that comes all the same is no request', request('POST', '/api/admin/x', `${HOST}X-CSRF: 1\r\n${EXPECT}${INNER_CL}`, INNER), refused(401, 'session_required')),
  row('B8', ['R-180'], 'an expectation that nobody knows', post(`Expect: evil\r\n${CL5}`, 'hello'), refused(417)),
  row('B8', ['R-180'], 'one that is known and one that is not', post(`Expect: 100-continue, evil\r\n${CL5}`, 'hello'), refused(417)),
  row('B8', ['R-180'], 'two fields, one unknown', post(`${EXPECT}Expect: evil\r\n${CL5}`, 'hello'), refused(417)),
  row('B8', ['R-180'], 'of a request without a body', get('/api/public/x', HOST + EXPECT), [forwarded('GET /api/public/x'), { ...forwarded('GET /api/public/x'), connection: 'closed' }]),
  row('B8', ['R-180'], 'a GET whose body is a request', [request('GET', '/api/public/x', HOST + EXPECT + INNER_CL), { until: 'HTTP/1.1 100 Continue\r\n\r\n' }, INNER], { ...forwarded('GET /api/public/x', { body: INNER }), interim: [100] }),
  row('B8', ['R-180', 'R-181'], 'in HTTP/1.0 there is none', `POST /api/public/x HTTP/1.0\r\n${HOST}${EXPECT}${CL5}\r\nhello`, { ...forwarded(POST, { body: 'hello' }), connection: 'closed' }),
  row('B8', ['R-180'], 'to our own endpoint', request('POST', '/bff/logout', `${HOST}X-CSRF: 1\r\n${EXPECT}${CL5}`), refused([200, 401, 403])),
]

const REFUSAL = 'HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno'

/** B8: the upstream answers before it has the body. */
// biome-ignore format: a row is a line
const EARLY_ANSWERS: readonly WireCase[] = [
  { ...row('B8', ['R-177', 'R-180'], 'an answer before the body: neither connection serves another request', [post('Content-Length: 1000\r\n', 'begun'), { until: '\r\n\r\nno' }], { answers: [{ status: 401, body: 'no', code: null }], requests: [], isAbandoned: true, connection: 'closed' }), script: ['/api/public/x', { reply: REFUSAL, early: true }] },
  { ...row('B8', ['R-177', 'R-180'], 'an answer before the body in chunks', [post(TE, '5\r\nhello\r\n'), { until: '\r\n\r\nno' }], { answers: [{ status: 401, body: 'no', code: null }], requests: [], isAbandoned: true, connection: 'closed' }), script: ['/api/public/x', { reply: REFUSAL, early: true }] },
  { ...row('B8', ['R-177', 'R-180'], 'an answer before the body, which is a request', [post(`Content-Length: ${1000 + INNER.length}\r\n`, 'x'.repeat(1000)), { until: '\r\n\r\nno' }, INNER], { answers: [{ status: 401, body: 'no', code: null }], requests: [], isAbandoned: true, connection: 'closed' }), script: ['/api/public/x', { reply: REFUSAL, early: true }] },
]

/** R-175: a body that is not as long as it says. */
// biome-ignore format: a row is a line
const CUT_BODIES: readonly WireCase[] = [
  row('B4', ['R-175', 'R-186'], 'a client that leaves in the middle of a body', [post('Content-Length: 10\r\n', 'hello'), { seen: 'hello' }, { leave: 'reset' }], { answers: [], requests: [], isAbandoned: true, connection: 'closed' }),
  row('B4', ['R-175', 'R-186'], 'a client that ends in the middle of a body', [post('Content-Length: 10\r\n', 'hello'), { seen: 'hello' }, { leave: 'end' }], [{ answers: [], requests: [], isAbandoned: true, connection: 'closed' }, { ...MALFORMED, isAbandoned: true }]),
  row('B4', ['R-175', 'R-186'], 'a client that ends before the last chunk', [post(TE, '5\r\nhello\r\n'), { seen: 'hello' }, { leave: 'end' }], [{ answers: [], requests: [], isAbandoned: true, connection: 'closed' }, { ...MALFORMED, isAbandoned: true }]),
  row('B4', ['R-175'], 'a fault in a later chunk', [post(TE, '5\r\nhello\r\n'), { seen: 'hello' }, 'x\r\n'], { ...MALFORMED, isAbandoned: true }),
  row('B2', ['R-175'], 'more than the length says is the next request, and must be one', post('Content-Length: 5\r\n', `hello${SMUGGLED}`), { answers: [{ status: 200, echoes: POST }, { status: 200, echoes: 'GET /api/admin/smuggled' }], requests: [{ line: `${POST} HTTP/1.1`, body: 'hello' }, { line: 'GET /api/admin/smuggled HTTP/1.1', token: 'alice', harmless: ['x-smuggled'] }], connection: 'open' }),
]

/** Each of two POSTs in one burst has the body that it came with, whether one packet holds both or not. */
const BODIES_IN_ONE_BURST = [1, 200, 900].map((times): WireCase => {
  const [first, second] = [INNER.repeat(times), INNER.toLowerCase().repeat(times)]
  const burst =
    post(`Content-Length: ${first.length}\r\n`, first) +
    post(`Content-Length: ${second.length}\r\n`, second, '/api/public/2')
  const requests = [
    { line: `${POST} HTTP/1.1`, body: first },
    { line: 'POST /api/public/2 HTTP/1.1', body: second },
  ]
  const outcome: Outcome = { ...pair(POST, 'POST /api/public/2'), requests }
  return row('B1', ['R-176'], `two bodies of ${first.length} bytes in one burst`, burst, outcome)
})

/** Requests that come in one burst are answered in order, each by the rules for itself. */
// biome-ignore format: a row is a line
const PIPELINES: readonly WireCase[] = [
  row('B1', ['R-176'], 'two requests in one burst', get('/api/public/1') + get('/api/public/2'), two('/api/public/1', '/api/public/2')),
  row('B1', ['R-176'], 'a body and a request in one burst', post('Content-Length: 5\r\n', `hello${get('/api/public/2')}`), { ...pair(POST, 'GET /api/public/2'), requests: [{ line: `${POST} HTTP/1.1`, body: 'hello' }, { line: 'GET /api/public/2 HTTP/1.1' }] }),
  row('B1', ['R-176'], 'chunks and a request in one burst', post(TE, `5\r\nhello\r\n0\r\n\r\n${get('/api/public/2')}`), { ...pair(POST, 'GET /api/public/2'), requests: [{ line: `${POST} HTTP/1.1`, body: 'hello' }, { line: 'GET /api/public/2 HTTP/1.1' }] }),
  ...BODIES_IN_ONE_BURST,
  row('B1', ['R-167'], 'a user, then a stranger, on one connection', get('/api/admin/1', ALICE) + get('/api/admin/2', `${HOST}X-CSRF: 1\r\n`), { answers: [{ status: 200, echoes: 'GET /api/admin/1' }, { status: 401, code: 'session_required' }], requests: [{ line: 'GET /api/admin/1 HTTP/1.1', token: 'alice' }], connection: 'open' }),
  row('B1', ['R-167'], 'one user, then another, on one connection', get('/api/admin/1', ALICE) + get('/api/admin/2', `${HOST}Cookie: {{bob}}\r\nX-CSRF: 1\r\n`), { answers: [{ status: 200, echoes: 'GET /api/admin/1' }, { status: 200, echoes: 'GET /api/admin/2' }], requests: [{ line: 'GET /api/admin/1 HTTP/1.1', token: 'alice' }, { line: 'GET /api/admin/2 HTTP/1.1', token: 'bob' }], connection: 'open' }),
  row('B1', ['R-173'], 'behind a request of broken framing nothing is served', `${post(`Content-Length: 5\r\n${TE}`, '0\r\n\r\n')}${SMUGGLED}`, MALFORMED),
  row('B1', ['R-173'], 'behind a good request, one of broken framing', `${get('/api/public/1')}${post('Content-Length: +5\r\n', 'hello')}${SMUGGLED}`, thenBroken('GET /api/public/1')),
  row('B1', ['R-173'], 'behind a foreign Host nothing is served', `${get('/api/public/1', 'Host: evil.example\r\n')}${SMUGGLED}`, refused(421, 'misdirected_request')),
  row('B1', ['R-160'], 'behind Connection: close nothing is served', `${get('/api/public/1', `${HOST}Connection: close\r\n`)}${SMUGGLED}`, { ...forwarded('GET /api/public/1'), connection: 'closed' }),
  row('B1', ['R-173'], 'a request whose head comes byte by byte is one request', [...'GET /api/public/x HTTP/1.1\r\nHost: app.example.test\r\n\r\n'], forwarded('GET /api/public/x')),
]

const tooLarge = refused(413, 'body_too_large', 'either')
// biome-ignore format: a row is a line
const MAX_BODY: readonly WireCase[] = [
  row('B11', ['R-179'], 'a body of the size that the route takes', post('Content-Length: 8\r\n', '12345678', '/api/small'), forwarded('POST /api/small', { body: '12345678' })),
  row('B11', ['R-179'], 'a body of one byte more', post('Content-Length: 9\r\n', '123456789', '/api/small'), tooLarge),
  row('B11', ['R-179'], 'a body of one byte more, of which nothing has come', post('Content-Length: 9\r\n', '', '/api/small'), refused(413, 'body_too_large')),
  row('B11', ['R-179'], 'chunks of the size that the route takes', post(TE, '4\r\n1234\r\n4\r\n5678\r\n0\r\n\r\n', '/api/small'), forwarded('POST /api/small', { body: '12345678', framing: 'chunked' })),
  row('B11', ['R-179'], 'chunks of one byte more', post(TE, '4\r\n1234\r\n5\r\n56789\r\n0\r\n\r\n', '/api/small'), [tooLarge, { ...tooLarge, isAbandoned: true }]),
  row('B11', ['R-179'], 'chunks without end', [post(TE, '4\r\n1234\r\n', '/api/small'), { seen: '1234' }, '5\r\n56789\r\n'], { ...refused(413, 'body_too_large'), isAbandoned: true }),
  row('B11', ['R-179'], 'a GET of one byte more', request('GET', '/api/small', `${HOST}Content-Length: 9\r\n`, '123456789'), tooLarge),
  row('B11', ['R-179'], 'a body too large that is a request', post(INNER_CL, INNER, '/api/small'), tooLarge),
  row('B11', ['R-179'], 'a stranger is refused for that, whatever the size', request('POST', '/api/admin/x', `${HOST}X-CSRF: 1\r\nContent-Length: 9\r\n`, '123456789'), refused(401, 'session_required', 'either')),
]

/** Sections B5 to B8, pipelines, and sizes. */
export const BODY_CASES: readonly WireCase[] = [
  ...NAMED_FRAMING,
  ...UNUSUAL_BODIES,
  ...MORE_UNUSUAL_BODIES,
  ...TRAILERS,
  ...MORE_TRAILERS,
  ...EXPECTATIONS,
  ...EARLY_ANSWERS,
  ...CUT_BODIES,
  ...PIPELINES,
  ...MAX_BODY,
]
