import type { Script } from '../recording-upstream.ts'
import { ALICE, forwarded, get, HOST, type Outcome, post, request, type WireCase } from '../wire-case.ts'

const AT = '/api/public/up'
const LINE = `GET ${AT} HTTP/1.1`

function row(
  id: string,
  rules: string[],
  name: string,
  script: Script | string,
  expect: WireCase['expect'],
  send: WireCase['send'] = get(AT),
): WireCase {
  return {
    id,
    name,
    rules,
    send,
    expect,
    script: [AT, typeof script === 'string' ? { reply: script } : script],
  }
}

/** The answer is none: the client is told, and the connection is nobody's any more. */
const UNUSABLE: Outcome = {
  answers: [{ status: 502, code: 'upstream_unreachable' }],
  requests: [{ line: LINE }],
  connection: 'open',
  isUpstreamReused: false,
}
/** The answer is one, as far as it goes; what follows on the connection is nobody's. */
const good = (body: string, more: Partial<Outcome> = {}): Outcome => ({
  answers: [{ status: 200, code: null, body }],
  requests: [{ line: LINE }],
  connection: 'open',
  ...more,
})
const LAST = good('hello', { isUpstreamReused: false })
const PART: Outcome = {
  answers: [{ status: 200, isCut: true }],
  requests: [{ line: LINE }],
  connection: 'closed',
  isUpstreamReused: false,
}

const head = (fields: string, status = '200 OK') => `HTTP/1.1 ${status}\r\n${fields}\r\n`
const HELLO = `${head('Content-Length: 5\r\n')}hello`
const POISON = `${head('Content-Length: 6\r\n')}poison`

/** B9: answers that two readers would read differently, and such as are none. */
// biome-ignore format: a row is a line
const FAULTY_ANSWERS: readonly WireCase[] = [
  row('B9', ['R-177'], 'a length and chunks', `${head('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n')}5\r\nhello\r\n0\r\n\r\n`, UNUSABLE),
  row('B9', ['R-177'], 'chunks and a length', `${head('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n')}5\r\nhello\r\n0\r\n\r\n`, UNUSABLE),
  row('B9', ['R-177'], 'two lengths that differ', `${head('Content-Length: 5\r\nContent-Length: 6\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'two equal lengths', `${head('Content-Length: 5\r\nContent-Length: 5\r\n')}hello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-177'], 'a list of lengths', `${head('Content-Length: 5, 5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a negative length', `${head('Content-Length: -5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a length with a plus sign', `${head('Content-Length: +5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a length that is no number', `${head('Content-Length: evil\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'an empty length', `${head('Content-Length:\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a length of twenty nines', `${head('Content-Length: 99999999999999999999\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'an unknown coding', { reply: `${head('Transfer-Encoding: xchunked\r\n')}hello`, after: 'end' }, [UNUSABLE, LAST]),
  row('B9', ['R-177'], 'gzip, then chunked', `${head('Transfer-Encoding: gzip, chunked\r\n')}5\r\nhello\r\n0\r\n\r\n`, [UNUSABLE, PART]),
  row('B9', ['R-177'], 'chunked, then another', { reply: `${head('Transfer-Encoding: chunked, identity\r\n')}5\r\nhello\r\n0\r\n\r\n`, after: 'end' }, [UNUSABLE, PART]),
  row('B9', ['R-177'], 'a blank before the colon', `${head('Content-Length : 5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a folded line', `${head('X-A: 1\r\n Content-Length: 5\r\nContent-Length: 5\r\n')}hello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-172'], 'a bare CR within a value', `${head('X-A: 1\rX-Evil: 1\r\nContent-Length: 5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-172'], 'a bare LF within a value', `${head('X-A: 1\nX-Evil: 1\r\nContent-Length: 5\r\n')}hello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-172'], 'a NUL within a value', `${head('X-A: 1\0\r\nContent-Length: 5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-172'], 'a control byte within a value', `${head('X-A: 1\x01\r\nContent-Length: 5\r\n')}hello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-172'], 'a DEL within a value', `${head('X-A: 1\x7f\r\nContent-Length: 5\r\n')}hello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-172'], 'a blank within a name', `${head('X A: 1\r\nContent-Length: 5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-172'], 'a field without a colon', `${head('evil\r\nContent-Length: 5\r\n')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'status 999', `${head('Content-Length: 5\r\n', '999 Evil')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'status 600', `${head('Content-Length: 5\r\n', '600 Evil')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'status 000', `${head('Content-Length: 5\r\n', '000 Evil')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'status 099', `${head('Content-Length: 5\r\n', '099 Evil')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a status of two digits', `${head('Content-Length: 5\r\n', '20 Evil')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a status of four digits', `${head('Content-Length: 5\r\n', '2000 Evil')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'a status that is no number', `${head('Content-Length: 5\r\n', 'OK 200')}hello`, UNUSABLE),
  row('B9', ['R-177'], 'no reason', { reply: 'HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello' }, good('hello')),
  row('B9', ['R-172'], 'a reason past ASCII', `${head('Content-Length: 5\r\n', '200 Z\xfcrich \x80')}hello`, good('hello')),
  row('B9', ['R-172'], 'a reason with a bare CR', `${head('Content-Length: 5\r\n', '200 O\rK: evil')}hello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-177'], 'another protocol', 'SSH-2.0-OpenSSH_9.9\r\n\r\n', UNUSABLE),
  row('B9', ['R-177'], 'HTTP/2', '\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d', UNUSABLE),
  row('B9', ['R-177'], 'HTTP/0.9', { reply: '<html>hello</html>', after: 'end' }, UNUSABLE),
  row('B9', ['R-177'], 'HTTP/1.2', `HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello`, [UNUSABLE, good('hello')]),
  row('B9', ['R-177'], 'a request', get('/evil'), UNUSABLE),
  row('B9', ['R-177'], 'fields of 100 KB', `${head(`X-A: ${'x'.repeat(100_000)}\r\nContent-Length: 5\r\n`)}hello`, UNUSABLE),
  row('B9', ['R-177'], 'ten thousand fields', `${head(`${'X-A: 1\r\n'.repeat(10_000)}Content-Length: 5\r\n`)}hello`, [UNUSABLE, good('hello')]),
]

/** B9: interim answers. */
// biome-ignore format: a row is a line
const INTERIM: readonly WireCase[] = [
  ...['100 Continue', '102 Processing', '103 Early Hints', '199 Evil'].map((status) =>
    row('B9', ['R-181'], `${status} unasked, then an answer`, head('Link: </x>\r\n', status) + HELLO, [good('hello'), good('hello', { interim: [103] })]),
  ),
  row('B9', ['R-181'], '100 Continue unasked to a POST, then an answer', head('', '100 Continue') + HELLO, good('hello', { requests: [{ line: `POST ${AT} HTTP/1.1`, body: 'hello' }] }), post('Content-Length: 5\r\n', 'hello', AT)),
  row('B9', ['R-181'], 'to an HTTP/1.0 client none is passed on', head('', '103 Early Hints') + HELLO, good('hello', { connection: 'closed' }), `GET ${AT} HTTP/1.0\r\n${HOST}\r\n`),
  row('B9', ['R-177'], 'ten thousand of them', head('', '103 Early Hints').repeat(10_000) + HELLO, [UNUSABLE, good('hello')]),
  row('B9', ['R-177'], '101 that nobody asked for', `${head('Upgrade: websocket\r\nConnection: Upgrade\r\n', '101 Switching Protocols')}evil`, UNUSABLE),
  row('B9', ['R-177'], '101 to h2c that nobody asked for', head('Upgrade: h2c\r\nConnection: Upgrade\r\n', '101 Switching Protocols'), UNUSABLE),
  row('B9', ['R-181'], 'one with a length and a body', `${head('Content-Length: 6\r\n', '103 Early Hints')}poison${HELLO}`, UNUSABLE),
]

const BOB = `${HOST}Cookie: {{bob}}\r\nX-CSRF: 1\r\n`
/** Two users, one connection to the upstream: the second has an answer waiting that is not its own. */
const toBob = (
  first: string,
  script: string,
  more: readonly (string | { upstream: string } | { upstreamClosed: true })[] = [],
): Pick<WireCase, 'send' | 'script' | 'expect'> => ({
  send: [get('/api/admin/a', ALICE), { until: first }, ...more, get('/api/admin/b', BOB)],
  script: ['/api/admin/a', { reply: script }],
  expect: {
    answers: [
      { status: 200, body: first },
      { status: 200, echoes: 'GET /api/admin/b' },
    ],
    requests: [
      { line: 'GET /api/admin/a HTTP/1.1', token: 'alice' },
      { line: 'GET /api/admin/b HTTP/1.1', token: 'bob' },
    ],
    connection: 'open',
  },
})

/** B9: more than one answer to one request. */
// biome-ignore format: a row is a line
const EXTRA_BYTES: readonly WireCase[] = [
  row('B9', ['R-177'], 'a second answer behind the first', HELLO + POISON, LAST),
  row('B9', ['R-177'], 'bytes behind the answer', `${HELLO}evil`, LAST),
  row('B9', ['R-177'], 'line ends behind the answer', `${HELLO}\r\n\r\n`, good('hello')),
  row('B9', ['R-177'], 'a second answer behind the last chunk', `${head('Transfer-Encoding: chunked\r\n')}5\r\nhello\r\n0\r\n\r\n${POISON}`, LAST),
  row('B9', ['R-177', 'R-183'], 'a body behind 204', { reply: `${head('', '204 No Content')}${POISON}` }, { answers: [{ status: 204, body: '' }], requests: [{ line: LINE }], isUpstreamReused: false }),
  row('B9', ['R-177', 'R-183'], 'a body behind 304', `${head('ETag: "a"\r\nContent-Length: 6\r\n', '304 Not Modified')}poison`, { answers: [{ status: 304, body: '', fields: { etag: '"a"' } }], requests: [{ line: LINE }], isUpstreamReused: false }),
  row('B9', ['R-177', 'R-183'], 'a body behind an answer to HEAD', `${head('Content-Length: 6\r\n')}poison`, { answers: [{ status: 200, body: '', fields: { 'content-length': '6' } }], requests: [{ line: `HEAD ${AT} HTTP/1.1` }], isUpstreamReused: false }, request('HEAD', AT)),
  { ...row('B9', ['R-177'], 'a second answer is not the next user’s', '', []), ...toBob('hello', HELLO + POISON) },
  { ...row('B9', ['R-177'], 'a late second answer is not the next user’s', '', []), ...toBob('hello', HELLO, [{ upstream: POISON }, { upstreamClosed: true }]) },
  { ...row('B9', ['R-177'], 'a body behind 204 is not the next user’s', '', []), ...toBob('hello', `${HELLO}${head('', '204 No Content')}`) },
]

/** B9: none at all. */
// biome-ignore format: a row is a line
const NO_ANSWER: readonly WireCase[] = [
  row('B9', ['R-187'], 'it hangs up on a POST without an answer: it is not sent twice', { after: 'end' }, { ...UNUSABLE, requests: [{ line: `POST ${AT} HTTP/1.1`, body: 'hello' }] }, post('Content-Length: 5\r\n', 'hello', AT)),
  row('B9', ['R-188'], 'it resets a POST without an answer: it is not sent twice', { after: 'reset' }, { ...UNUSABLE, requests: [{ line: `POST ${AT} HTTP/1.1`, body: 'hello' }] }, post('Content-Length: 5\r\n', 'hello', AT)),
  row('B9', ['R-188'], 'it resets a DELETE without an answer: it is not sent twice', { after: 'reset' }, { ...UNUSABLE, requests: [{ line: `DELETE ${AT} HTTP/1.1` }] }, request('DELETE', AT)),
  row('B9', ['R-188'], 'it hangs up on a GET that had a kept connection: once more, on a new one', { after: 'end' }, { ...forwarded(`GET ${AT}`), requests: [{ line: LINE }, { line: LINE }] }),
  row('B9', ['R-188'], 'it hangs up in the middle of a head', { reply: 'HTTP/1.1 200 OK\r\nContent-Le', after: 'end' }, UNUSABLE),
  { ...row('B9', ['R-187'], 'it says nothing', {}, { answers: [{ status: 504, code: 'upstream_timeout' }], requests: [{ line: 'GET /api/hasty/up HTTP/1.1' }], isUpstreamReused: false }, get('/api/hasty/up')), script: ['/api/hasty/up', {}] },
  { ...row('B9', ['R-187'], 'it begins a head and says no more', {}, { answers: [{ status: 504, code: 'upstream_timeout' }], requests: [{ line: 'GET /api/hasty/up HTTP/1.1' }], isUpstreamReused: false }, get('/api/hasty/up')), script: ['/api/hasty/up', { reply: 'HTTP/1.1 200 OK\r\nX-A' }] },
]

// biome-ignore format: a row is a line
const cut = (reply: string, name: string, how: 'end' | 'reset', rule = PART, send = get(AT)): WireCase =>
  row('B10', ['R-186'], `${name}, by ${how === 'end' ? 'an end' : 'a reset'}`, reply, rule, [send, { until: 'part' }, { upstreamLeaves: how }])

/** B10: half an answer never looks whole. */
// biome-ignore format: a row is a line
const HALF_ANSWERS: readonly WireCase[] = [
  ...(['end', 'reset'] as const).flatMap((how) => [
    cut(`${head('Content-Length: 100\r\n')}part`, 'in the middle of a length', how),
    cut(`${head('Transfer-Encoding: chunked\r\n')}4\r\npart\r\n`, 'between two chunks', how),
    cut(`${head('Transfer-Encoding: chunked\r\n')}ff\r\npart`, 'in the middle of a chunk', how),
    cut(`${head('Transfer-Encoding: chunked\r\n')}4\r\npart\r\n0\r\n`, 'before the last line of the last chunk', how),
    cut(`${head('Transfer-Encoding: chunked\r\n')}4\r\npart\r\n`, 'between two chunks to an HTTP/1.0 client', how, PART, `GET ${AT} HTTP/1.0\r\n${HOST}\r\n`),
    cut(`${head('Content-Length: 100\r\n')}part`, 'in the middle of a length to an HTTP/1.0 client', how, PART, `GET ${AT} HTTP/1.0\r\n${HOST}\r\n`),
    cut(`${head('Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n')}4\r\npart\r\n`, 'in an event stream', how),
  ]),
  cut('HTTP/1.0 200 OK\r\n\r\npart', 'a body that only the end ends', 'reset'),
  row('B10', ['R-186'], 'a body that only the end ends is whole at its end', { reply: 'HTTP/1.0 200 OK\r\n\r\nhello', after: 'end' }, LAST),
  row('B10', ['R-186'], 'a broken chunk in the middle', `${head('Transfer-Encoding: chunked\r\n')}4\r\npart\r\n`, PART, [get(AT), { until: 'part' }, { upstream: 'evil\r\n' }]),
  row('B10', ['R-175'], 'more than a chunk says', `${head('Transfer-Encoding: chunked\r\n')}4\r\npart\r\n`, PART, [get(AT), { until: 'part' }, { upstream: '4\r\npartpart\r\n' }]),
  { ...row('B10', ['R-187'], 'an answer that stops', {}, { ...PART, requests: [{ line: 'GET /api/hasty/up HTTP/1.1' }] }, get('/api/hasty/up')), script: ['/api/hasty/up', { reply: `${head('Content-Length: 100\r\n')}part` }] },
  row('B10', ['R-186'], 'a client that leaves before the answer takes the request with it', {}, { answers: [], requests: [{ line: LINE }], connection: 'closed', isUpstreamReused: false }, [get(AT), { seen: LINE }, { leave: 'reset' }, { upstreamClosed: true }]),
  row('B10', ['R-186'], 'a client that leaves in the middle of the answer', `${head('Content-Length: 100\r\n')}part`, { ...PART, answers: [{ status: 200, isCut: true }] }, [get(AT), { until: 'part' }, { leave: 'reset' }, { upstreamClosed: true }]),
  row('B10', ['R-186'], 'a client that leaves an event stream', `${head('Content-Type: text/event-stream\r\n')}data: part\n\n`, { ...PART, answers: [{ status: 200, isCut: true }] }, [get(AT), { until: 'part' }, { leave: 'reset' }, { upstreamClosed: true }]),
]

/** Sections B9 and B10. */
export const UPSTREAM_CASES: readonly WireCase[] = [
  ...FAULTY_ANSWERS,
  ...INTERIM,
  ...EXTRA_BYTES,
  ...NO_ANSWER,
  ...HALF_ANSWERS,
]
