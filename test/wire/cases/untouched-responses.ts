import { get, HOST, type Outcome, request, type WireCase } from '../wire-case.ts'

const AT = '/api/public/up'
const OK = 'HTTP/1.1 200 OK\r\n'

function exact(
  name: string,
  reply: string,
  expect: Partial<Outcome['answers'][number]>,
  rules: string[],
  method = 'GET',
): WireCase {
  return {
    ...{ id: 'B9', name, rules, send: request(method, AT), script: [AT, { reply }] },
    expect: {
      answers: [{ status: 200, code: null, ...expect }],
      requests: [{ line: `${method} ${AT} HTTP/1.1` }],
      connection: 'open',
    },
  }
}
const GZIP = '\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\x07\0\x86\xa6\x106\x05\0\0\0'

/** What passes as it is. */
// biome-ignore format: a row is a line
const UNTOUCHED: readonly WireCase[] = [
  exact('fields of many kinds', `${OK}Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nETag: W/"a"\r\nVary: Accept, Accept\r\nX-B: 2\r\nx-a: caf\xe9\r\nX-B: 3\r\nServer: x\r\nContent-Length: 2\r\n\r\nok`, { body: 'ok', fields: { date: 'Sat, 21 Nov 2026 10:00:00 GMT', etag: 'W/"a"', vary: 'Accept, Accept, Origin', 'x-b': '2, 3', 'x-a': 'caf\xe9', server: 'x' } }, ['R-171']),
  exact('a compressed body', `${OK}Content-Encoding: gzip\r\nContent-Length: ${GZIP.length}\r\n\r\n${GZIP}`, { body: GZIP, fields: { 'content-encoding': 'gzip', 'content-length': String(GZIP.length) } }, ['R-184']),
  exact('a body that is not what its coding says', `${OK}Content-Encoding: br\r\nContent-Length: 4\r\n\r\n\0\xff\x80\n`, { body: '\0\xff\x80\n', fields: { 'content-encoding': 'br' } }, ['R-184']),
  exact('one range', 'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nok', { status: 206, body: 'ok', fields: { 'content-range': 'bytes 0-1/9' } }, ['R-184']),
  exact('several ranges', 'HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 9\r\n\r\n--x\r\n\r\nok', { status: 206, body: '--x\r\n\r\nok', fields: { 'content-type': 'multipart/byteranges; boundary=x' } }, ['R-184']),
  exact('a range that is none', 'HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n', { status: 416, body: '', fields: { 'content-range': 'bytes */9' } }, ['R-184']),
  exact('a condition that does not hold', 'HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n', { status: 412, body: '' }, ['R-184']),
  exact('what has not changed', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nCache-Control: max-age=5\r\n\r\n', { status: 304, body: '', fields: { etag: '"a"', 'cache-control': 'max-age=5', 'transfer-encoding': null } }, ['R-183']),
  exact('no content', 'HTTP/1.1 204 No Content\r\n\r\n', { status: 204, body: '', fields: { 'transfer-encoding': null, 'content-length': null } }, ['R-183']),
  exact('the length of a HEAD', `${OK}Content-Length: 12345\r\nETag: "a"\r\n\r\n`, { body: '', fields: { 'content-length': '12345', etag: '"a"' } }, ['R-183'], 'HEAD'),
  exact('a HEAD of what would be chunks', `${OK}Transfer-Encoding: chunked\r\n\r\n`, { body: '' }, ['R-183'], 'HEAD'),
  exact('an empty body', `${OK}Content-Length: 0\r\n\r\n`, { body: '', fields: { 'content-length': '0' } }, ['R-183']),
  exact('chunks, their extensions and trailers', `${OK}Trailer: X-Evil\r\nTransfer-Encoding: chunked\r\n\r\n2;evil=1\r\nok\r\n0\r\nX-Evil: 1\r\nSet-Cookie: __Host-Http-cloakroom=evil\r\n\r\n`, { body: 'ok', fields: { trailer: null, 'x-evil': null, 'set-cookie': null } }, ['R-182']),
  exact('a body of one byte in each chunk', `${OK}Transfer-Encoding: chunked\r\n\r\n${'1\r\nx\r\n'.repeat(300)}0\r\n\r\n`, { body: 'x'.repeat(300) }, ['R-175']),
  exact('a status that nobody knows', 'HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok', { status: 299, body: 'ok' }, ['R-171']),
  { ...exact('chunks for a client of HTTP/1.0', `${OK}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n`, {}, ['R-175']), send: `GET ${AT} HTTP/1.0\r\n${HOST}\r\n`, expect: { answers: [{ status: 200, body: 'ok', fields: { 'transfer-encoding': null } }], requests: [{ line: `GET ${AT} HTTP/1.1` }], connection: 'closed' } },
  {
    ...{
      id: 'I7',
      name: 'an event stream begins at once, and each event comes as it is written',
      rules: ['R-195'],
      script: [AT, { reply: `${OK}Content-Type: text/event-stream\r\n\r\n` }],
    },
    send: [
      get(AT, `${HOST}Accept-Encoding: gzip\r\n`),
      { until: 'text/event-stream' },
      { upstream: ': hello\n\n' },
      { until: ': hello\n\n' },
      { upstream: 'data: 1\n\n' },
      { until: 'data: 1\n\n' },
      { upstreamLeaves: 'end' },
    ],
    expect: {
      answers: [{ status: 200, body: ': hello\n\ndata: 1\n\n', fields: { 'content-encoding': null } }],
      requests: [{ line: `GET ${AT} HTTP/1.1` }],
    },
  },
]

/** What of an answer passes as it is. */
export const UNTOUCHED_RESPONSE_CASES: readonly WireCase[] = [...UNTOUCHED]
