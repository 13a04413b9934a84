import { forwarded, get, HOST, type Outcome, post, refused, type WireCase } from '../wire-case.ts'

const TOO_LARGE = refused(431)
const OK = forwarded('GET /api/public/x')
const fields = (count: number, value = '1') =>
  Array.from({ length: count }, (_, n) => `X-${n}: ${value}\r\n`).join('')

function row(
  name: string,
  send: WireCase['send'],
  expect: WireCase['expect'],
  world: WireCase['world'] = 'usual',
): WireCase {
  return { id: 'B11', name, send, expect, world, rules: ['R-179'] }
}

const LATE = refused(408)
/** A client that stops in the middle of its body is told, or cut. */
const STALLED: readonly Outcome[] = [
  { ...LATE, isAbandoned: true },
  { answers: [], requests: [], isAbandoned: true, connection: 'closed' },
]

const TRICKLED: Outcome = { ...LATE, isAbandoned: true }

/** B11: more than anybody means, and slower. */
// biome-ignore format: a row is a line
export const LIMIT_CASES: readonly WireCase[] = [
  row('ten thousand fields', get('/api/public/x', HOST + fields(10_000)), TOO_LARGE),
  row('a hundred fields are served', get('/api/public/x', HOST + fields(99)), OK),
  row('a hundred and one fields', get('/api/public/x', HOST + fields(100)), TOO_LARGE),
  row('a thousand fields of one name', get('/api/public/x', HOST + 'X-Same: 1\r\n'.repeat(1000)), TOO_LARGE),
  row('a cookie of 64 KB', get('/api/public/x', `${HOST}Cookie: a=${'x'.repeat(65_536)}\r\n`), TOO_LARGE),
  row('a field of a megabyte', get('/api/public/x', `${HOST}X: ${'x'.repeat(1_048_576)}\r\n`), TOO_LARGE),
  row('a name of 64 KB', get('/api/public/x', `${HOST}${'X'.repeat(65_536)}: 1\r\n`), TOO_LARGE),
  row('a head of 30 KB is served', get('/api/public/x', `${HOST}X: ${'x'.repeat(30_000)}\r\n`), forwarded('GET /api/public/x', { fields: { x: /^x{30000}$/ } })),
  row('a head of 33 KB', get('/api/public/x', `${HOST}X: ${'x'.repeat(33_000)}\r\n`), TOO_LARGE),
  row('a method without end', 'G'.repeat(65_536), refused([400, 414, 431])),
  row('trailers of a megabyte', post('Transfer-Encoding: chunked\r\n', `0\r\nX: ${'x'.repeat(1_048_576)}\r\n\r\n`), [refused([400, 413, 431]), { ...refused([400, 413, 431]), isAbandoned: true }]),
  row('empty lines without end before a request', '\r\n'.repeat(50_000) + get('/api/public/x'), [OK, refused([400, 431])]),
  row('the configured number of fields', get('/api/public/x', HOST + fields(19)), OK, 'tight'),
  row('one field more than configured', get('/api/public/x', HOST + fields(20)), TOO_LARGE, 'tight'),
  row('nearly the configured size of the head', get('/api/public/x', `${HOST}X: ${'x'.repeat(7_900)}\r\n`), OK, 'tight'),
  row('more than the configured size of the head', get('/api/public/x', `${HOST}X: ${'x'.repeat(8_300)}\r\n`), TOO_LARGE, 'tight'),
  row('slowloris: a head that stops in the middle', 'GET /api/public/x HTTP/1.1\r\nHost: app', LATE, 'tight'),
  row('slowloris: a head that lacks its last line', 'GET /api/public/x HTTP/1.1\r\nHost: app.example.test\r\n', LATE, 'tight'),
  row('slowloris: a request line of HTTP/0.9', 'GET /api/public/x\r\n', LATE, 'tight'),
  row('slowloris: the second request of a connection', [get('/api/public/1'), { until: '"target"' }, 'GET /api/public/2 HTTP/1.1\r\n'], { answers: [{ status: 200, echoes: 'GET /api/public/1' }, { status: 408 }], requests: [{ line: 'GET /api/public/1 HTTP/1.1' }], connection: 'closed' }, 'tight'),
  row('slowloris: a connection that says nothing', [''], [LATE, { answers: [], requests: [], connection: 'closed' }], 'tight'),
  row('slowloris: a body that stops in the middle', [post('Content-Length: 10\r\n', 'hello', '/api/hasty')], STALLED),
  row('slowloris: a body that trickles', [post('Content-Length: 600\r\n', 'h'), { until: 'bad_request' }], TRICKLED, 'tight'),
  row('slowloris: chunks that trickle', [post('Transfer-Encoding: chunked\r\n', '1\r\nh\r\n'), { until: 'bad_request' }], TRICKLED, 'tight'),
  row('slowloris: chunks that stop in the middle', [post('Transfer-Encoding: chunked\r\n', '5\r\nhel', '/api/hasty')], STALLED),
]
