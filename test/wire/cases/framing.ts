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
  SMUGGLED,
  type WireCase,
} from '../wire-case.ts'

const POST = 'POST /api/public/x'
const HELLO = forwarded(POST, { body: 'hello', framing: 'length', fields: { 'content-length': '5' } })
const HELLO_IN_CHUNKS = forwarded(POST, { body: 'hello', framing: 'chunked' })
const CHUNKED_HELLO = '5\r\nhello\r\n0\r\n\r\n'

type Row = [name: string, send: string, expect?: Outcome | readonly Outcome[]]

function rows(id: string, rules: string[], table: readonly Row[]): WireCase[] {
  return table.map(([name, send, expect = MALFORMED]) => ({
    ...{ id, name, send, expect, rules },
  }))
}

const DATA_LIKE_A_REQUEST = 'GET /api/admin/smuggled HTTP/1.1\r\nHost: app.example.test\r\n\r\n'

const CL5 = 'Content-Length: 5\r\n'
const TE = 'Transfer-Encoding: chunked\r\n'

/** B1: two ways to tell a body's end. */
// biome-ignore format: a row is a line
const BOTH_FRAMINGS = rows(
  'B1',
  ['R-173'],
  [
    ['Content-Length, then chunked', post(CL5 + TE, CHUNKED_HELLO)],
    ['chunked, then Content-Length', post(TE + CL5, CHUNKED_HELLO)],
    ['Content-Length of the chunks, then chunked', post(`Content-Length: 15\r\n${TE}`, CHUNKED_HELLO)],
    ['a request behind the length', post(CL5 + TE, `0\r\n\r\n${SMUGGLED}`)],
    ['a request behind the chunks', post(`Content-Length: ${5 + SMUGGLED.length}\r\n${TE}`, `0\r\n\r\n${SMUGGLED}`)],
    ['an empty length and chunks', post(`Content-Length: 0\r\n${TE}`, CHUNKED_HELLO)],
    ['both in other letter case', post('cOnTeNt-LeNgTh: 5\r\ntRaNsFeR-eNcOdInG: ChUnKeD\r\n', CHUNKED_HELLO)],
    ['both on a GET', request('GET', '/api/public/x', HOST + CL5 + TE, `0\r\n\r\n${SMUGGLED}`)],
    ['both, and Connection names the one', post(`Connection: Content-Length\r\n${CL5}${TE}`, CHUNKED_HELLO)],
    ['both, and Connection names the other', post(`Connection: Transfer-Encoding\r\n${CL5}${TE}`, CHUNKED_HELLO)],
  ],
)

/** B2: a length that two readers may read differently. */
// biome-ignore format: a row is a line
const LENGTHS = rows(
  'B2',
  ['R-173', 'R-174'],
  [
    ['two equal ones', post(CL5 + CL5, 'hello')],
    ['two that differ', post(`${CL5}Content-Length: 6\r\n`, 'hello!')],
    ['two in different letter case', post(`${CL5}content-length: 0\r\n`, 'hello')],
    ['nothing, then a length', post(`Content-Length: 0\r\n${CL5}`, 'hello')],
    ['a list of equals', post('Content-Length: 5, 5\r\n', 'hello')],
    ['a list of different ones', post('Content-Length: 5, 0\r\n', 'hello')],
    ['a plus sign', post('Content-Length: +5\r\n', 'hello')],
    ['a minus sign', post('Content-Length: -5\r\n', 'hello')],
    ['hexadecimal', post('Content-Length: 0x5\r\n', 'hello')],
    ['a fraction', post('Content-Length: 5.0\r\n', 'hello')],
    ['an exponent', post('Content-Length: 5e0\r\n', 'hello')],
    ['an underscore', post('Content-Length: 0_5\r\n', 'hello')],
    ['quotes', post('Content-Length: "5"\r\n', 'hello')],
    ['two numbers', post('Content-Length: 5 5\r\n', 'hello')],
    ['no number', post('Content-Length: five\r\n', 'hello')],
    ['nothing at all', post('Content-Length:\r\n', 'hello')],
    ['more than 2^64', post('Content-Length: 18446744073709551621\r\n', 'hello')],
    ['twenty nines', post('Content-Length: 99999999999999999999\r\n', 'hello')],
    ['more than can be counted exactly', post('Content-Length: 9007199254740993\r\n', 'hello')],
    ['a vertical tab before it', post('Content-Length: \x0b5\r\n', 'hello')],
    ['a NUL behind it', post('Content-Length: 5\0\r\n', 'hello')],
    ['a no-break space before it', post('Content-Length: \xa05\r\n', 'hello')],
    ['a blank before the name', post(' Content-Length: 5\r\n', 'hello')],
    ['a blank before the name of the first field', request('POST', '/api/public/x', ` Content-Length: 5\r\n${HOST}`, 'hello')],
    ['a blank before the colon', post('Content-Length : 5\r\n', 'hello')],
    ['a tab before the colon', post('Content-Length\t: 5\r\n', 'hello')],
    ['a folded line', post('Content-Length:\r\n 5\r\n', 'hello')],
    ['leading zeros', post('Content-Length: 005\r\n', 'hello'), MALFORMED],
    ['leading zeros that would be octal', post('Content-Length: 010\r\n', 'helloworld'), MALFORMED],
    ['two zeros', post('Content-Length: 00\r\n', ''), MALFORMED],
    ['an underscore for the hyphen', post('Content_Length: 5\r\n', ''), MALFORMED],
    ['an underscore beside the true one', post(`Content_Length: 0\r\n${CL5}`, 'hello'), MALFORMED],
    ['blanks around the number are no fault', post('Content-Length: \t5 \r\n', 'hello'), HELLO],
  ],
)

/** B3: a transfer coding that somebody would not see. */
// biome-ignore format: a row is a line
const CODINGS = rows(
  'B3',
  ['R-173', 'R-174'],
  [
    ['an unknown one', post('Transfer-Encoding: xchunked\r\n', CHUNKED_HELLO)],
    ['chunked, then another', post('Transfer-Encoding: chunked, identity\r\n', CHUNKED_HELLO)],
    ['chunked twice', post('Transfer-Encoding: chunked, chunked\r\n', CHUNKED_HELLO)],
    ['gzip, then chunked', post('Transfer-Encoding: gzip, chunked\r\n', CHUNKED_HELLO), refused([400, 501], 'bad_request')],
    ['identity', post('Transfer-Encoding: identity\r\n', 'hello')],
    ['identity and a length', post(`Transfer-Encoding: identity\r\n${CL5}`, 'hello')],
    ['gzip alone', post('Transfer-Encoding: gzip\r\n', 'hello')],
    ['a parameter', post('Transfer-Encoding: chunked;x=y\r\n', CHUNKED_HELLO)],
    ['quotes', post('Transfer-Encoding: "chunked"\r\n', CHUNKED_HELLO)],
    ['a vertical tab before it', post('Transfer-Encoding: \x0bchunked\r\n', CHUNKED_HELLO)],
    ['a form feed behind it', post('Transfer-Encoding: chunked\x0c\r\n', CHUNKED_HELLO)],
    ['a NUL behind it', post('Transfer-Encoding: chunked\0\r\n', CHUNKED_HELLO)],
    ['a comma before it', post('Transfer-Encoding: ,chunked\r\n', CHUNKED_HELLO), MALFORMED],
    ['a comma behind it', post('Transfer-Encoding: chunked,\r\n', CHUNKED_HELLO), MALFORMED],
    ['a folded line', post('Transfer-Encoding:\r\n chunked\r\n', CHUNKED_HELLO)],
    ['a folded second line', post('Transfer-Encoding: chunked\r\n , identity\r\n', CHUNKED_HELLO)],
    ['a blank before the colon', post('Transfer-Encoding : chunked\r\n', CHUNKED_HELLO)],
    ['a blank before the name', post(' Transfer-Encoding: chunked\r\n', CHUNKED_HELLO)],
    ['a bare LF before the name', post(`X: y\nTransfer-Encoding: chunked\r\n`, CHUNKED_HELLO)],
    ['a bare CR before the name', post(`X: y\rTransfer-Encoding: chunked\r\n`, CHUNKED_HELLO)],
    ['two fields, identity first', post(`Transfer-Encoding: identity\r\n${TE}`, CHUNKED_HELLO), MALFORMED],
    ['two fields, chunked first', post(`${TE}Transfer-Encoding: identity\r\n`, CHUNKED_HELLO)],
    ['two equal fields', post(TE + TE, CHUNKED_HELLO)],
    ['nothing at all', post('Transfer-Encoding:\r\n', ''), MALFORMED],
    ['nothing at all beside a length', post(`Transfer-Encoding:\r\n${CL5}`, 'hello'), MALFORMED],
    ['in HTTP/1.0', `POST /api/public/x HTTP/1.0\r\n${HOST}${TE}\r\n${CHUNKED_HELLO}`, MALFORMED],
    ['in HTTP/1.0 that keeps its connection', `POST /api/public/x HTTP/1.0\r\n${HOST}${TE}Connection: keep-alive\r\n\r\n${CHUNKED_HELLO}`],
    ['an underscore for the hyphen', post('Transfer_Encoding: chunked\r\n', ''), MALFORMED],
    ['an underscore for the hyphen beside a length', post(`Transfer_Encoding: chunked\r\n${CL5}`, 'hello'), MALFORMED],
    ['capitals', post('TRANSFER-ENCODING: CHUNKED\r\n', CHUNKED_HELLO), HELLO_IN_CHUNKS],
    ['no blank behind the colon', post('Transfer-Encoding:chunked\r\n', CHUNKED_HELLO), HELLO_IN_CHUNKS],
    ['blanks around it', post('Transfer-Encoding: \tchunked \r\n', CHUNKED_HELLO), HELLO_IN_CHUNKS],
    ['another field that says so is data', post(`Content-Encoding: chunked\r\n${CL5}`, 'hello'), HELLO],
  ],
)

const chunks = (body: string) => post(TE, body)
/** The fault is found when the head has already gone on: the upstream never sees the end. */
const LATE: readonly Outcome[] = [MALFORMED, { ...MALFORMED, isAbandoned: true }]

/** B4: chunks that two readers may cut differently. */
// biome-ignore format: a row is a line
const CHUNKS = rows(
  'B4',
  ['R-173'],
  [
    ['a size with a plus sign', chunks('+5\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size with a minus sign', chunks('-5\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size with a prefix', chunks('0x5\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size with an underscore', chunks('0_5\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size with a blank before it', chunks(' 5\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size with a blank behind it', chunks('5 \r\nhello\r\n0\r\n\r\n'), LATE],
    ['no size', chunks('\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size that is no number', chunks('five\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size of seventeen digits', chunks('10000000000000005\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a size of 2^64 - 1', chunks('ffffffffffffffff1\r\nhello\r\n0\r\n\r\n'), LATE],
    ['an extension without a name', chunks('5;\r\nhello\r\n0\r\n\r\n'), LATE],
    ['an extension with a bare LF', chunks('5;a\nhello\r\n0\r\n\r\n'), LATE],
    ['an extension with a bare CR', chunks('5;a\rb\r\nhello\r\n0\r\n\r\n'), LATE],
    ['an extension with a NUL', chunks('5;a=\0\r\nhello\r\n0\r\n\r\n'), LATE],
    ['an extension that hides a request', chunks(`5;a="\r\n0\r\n\r\n${SMUGGLED}`), LATE],
    ['a bare LF behind the size', chunks('5\nhello\r\n0\r\n\r\n'), LATE],
    ['a bare CR behind the size', chunks('5\rhello\r\n0\r\n\r\n'), LATE],
    ['a bare LF behind the data', chunks('5\r\nhello\n0\r\n\r\n'), LATE],
    ['nothing behind the data', chunks('5\r\nhello0\r\n\r\n'), LATE],
    ['more data than the size', chunks('5\r\nhello world\r\n0\r\n\r\n'), LATE],
    ['bare LFs in all chunks', chunks('5\nhello\n0\n\n'), LATE],
    ['CR CR LF behind the size', chunks('5\r\r\nhello\r\n0\r\n\r\n'), LATE],
    ['a bare LF behind the last chunk', chunks('5\r\nhello\r\n0\n\r\n'), LATE],
    ['a last chunk with a minus sign', chunks(`5\r\nhello\r\n-0\r\n\r\n`), LATE],
    ['many extensions of one chunk', chunks(`5${';a=b'.repeat(16_000)}\r\nhello\r\n0\r\n\r\n`), [refused([400, 413]), { ...refused([400, 413]), isAbandoned: true }]],
    ['an extension goes no further', chunks('5;evil=evil\r\nhello\r\n0;evil\r\n\r\n'), HELLO_IN_CHUNKS],
    ['many small chunks', chunks(`${'1\r\nx\r\n'.repeat(5)}0\r\n\r\n`), forwarded(POST, { body: 'xxxxx', framing: 'chunked' })],
    ['a size with leading zeros', chunks('0005\r\nhello\r\n000\r\n\r\n'), HELLO_IN_CHUNKS],
    ['a request within the data is data', chunks(`${DATA_LIKE_A_REQUEST.length.toString(16)}\r\n${DATA_LIKE_A_REQUEST}\r\n0\r\n\r\n`), forwarded(POST, { body: DATA_LIKE_A_REQUEST, framing: 'chunked' })],
  ],
)

const BAD_VERSION = refused([400, 505], 'bad_request')
/** Node reads past it (RFC 9112 §3 allows that); what is forwarded is written anew. */
const FORWARDED = forwarded('GET /api/public/x')

/** B4: lines that two readers may end differently. */
// biome-ignore format: a row is a line
const LINES = rows(
  'B4',
  ['R-173', 'R-178'],
  [
    ['a bare LF within a value', get('/api/public/x', `${HOST}X: a\nX-Smuggled: evil\r\n`)],
    ['a bare CR within a value', get('/api/public/x', `${HOST}X: a\rX-Smuggled: evil\r\n`)],
    ['a NUL within a value', get('/api/public/x', `${HOST}X: a\0b\r\n`)],
    ['a NUL within a name', get('/api/public/x', `${HOST}X\0Y: a\r\n`)],
    ['bare LFs everywhere', 'GET /api/public/x HTTP/1.1\nHost: app.example.test\n\n', BAD_VERSION],
    ['a bare LF behind the request line', `GET /api/public/x HTTP/1.1\n${HOST}\r\n`, BAD_VERSION],
    ['a bare CR behind the request line', `GET /api/public/x HTTP/1.1\r${HOST}\r\n`],
    ['CR CR LF', `GET /api/public/x HTTP/1.1\r\n${HOST}X: a\r\r\n\r\n`],
    ['a folded line', get('/api/public/x', `${HOST}X: a\r\n X-Smuggled: evil\r\n`)],
    ['a folded line by a tab', get('/api/public/x', `${HOST}X: a\r\n\tevil\r\n`)],
    ['a field without a colon', get('/api/public/x', `${HOST}evil\r\n`)],
    ['a field without a name', get('/api/public/x', `${HOST}: evil\r\n`)],
    ['a blank within a name', get('/api/public/x', `${HOST}X Y: evil\r\n`)],
    ['a bracket within a name', get('/api/public/x', `${HOST}X(Y: evil\r\n`)],
    ['a Latin-1 byte within a name', get('/api/public/x', `${HOST}X\xe9: evil\r\n`)],
    ['a blank before the request line', ` GET /api/public/x HTTP/1.1\r\n${HOST}\r\n`],
    ['two blanks behind the method', `GET  /api/public/x HTTP/1.1\r\n${HOST}\r\n`, FORWARDED],
    ['two blanks before the version', `GET /api/public/x  HTTP/1.1\r\n${HOST}\r\n`, FORWARDED],
    ['a blank behind the version', `GET /api/public/x HTTP/1.1 \r\n${HOST}\r\n`, BAD_VERSION],
    ['a tab behind the method', `GET\t/api/public/x HTTP/1.1\r\n${HOST}\r\n`],
    ['a method in small letters', `get /api/public/x HTTP/1.1\r\n${HOST}\r\n`],
    ['a method that nobody knows', `EVIL /api/public/x HTTP/1.1\r\n${HOST}\r\n`],
    ['no version', `GET /api/public/x\r\n${HOST}\r\n`, BAD_VERSION],
    ['HTTP/0.9', 'GET /api/public/x\r\n\r\n', BAD_VERSION],
    ['HTTP/1.2', `GET /api/public/x HTTP/1.2\r\n${HOST}\r\n`, BAD_VERSION],
    ['HTTP/2.0', `GET /api/public/x HTTP/2.0\r\n${HOST}\r\n`, BAD_VERSION],
    ['HTTP/11', `GET /api/public/x HTTP/11\r\n${HOST}\r\n`, BAD_VERSION],
    ['a protocol in small letters', `GET /api/public/x http/1.1\r\n${HOST}\r\n`, BAD_VERSION],
    ['another protocol', `GET /api/public/x RTSP/1.0\r\n${HOST}\r\n`, [BAD_VERSION, { ...forwarded('GET /api/public/x'), connection: 'closed' }]],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', BAD_VERSION],
    ['the beginning of TLS', '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03evil\r\n\r\n', refused(400)],
    ['a control byte within a value', get('/api/public/x', `${HOST}X: a\x01b\r\n`)],
    ['a DEL within a value', get('/api/public/x', `${HOST}X: a\x7fb\r\n`)],
    ['an escape within a value', get('/api/public/x', `${HOST}X: a\x1bb\r\n`), MALFORMED],
    ['empty lines before the request are no fault', `\r\n\r\n${get('/api/public/x')}`, forwarded('GET /api/public/x')],
    ['HTTP/1.0 is served', `GET /api/public/x HTTP/1.0\r\n${HOST}\r\n`, { ...forwarded('GET /api/public/x'), connection: 'closed' }],
  ],
)

/** The same, on a route where somebody would gain: nothing is forwarded with a token that was not whole. */
// biome-ignore format: a row is a line
const SIGNED_IN = rows(
  'B2',
  ['R-173'],
  [['two lengths with a session', request('POST', '/api/admin/x', `${ALICE}${CL5}Content-Length: 0\r\n`, 'hello')], ['a length and chunks with a session', request('POST', '/api/admin/x', `${ALICE}${CL5}${TE}`, CHUNKED_HELLO)]],
)

const ONE_OF_TWO = { ...forwarded('GET /api/public/x'), connection: 'closed' } as const
const answeredOnce = (status: number): Outcome => ({
  answers: [{ status }],
  requests: [],
  connection: 'closed',
})
const BROKEN_CHUNKS = '5\r\nhelloXX\r\n'

/** Found by random messages. */
// biome-ignore format: a row is a line
const FOUND = [
  ...rows('B7', ['R-178'], [
    ['an expectation that nobody knows, behind a coding in capitals', post('Expect: 2\r\nTransfer-Encoding: Chunked\r\n', CHUNKED_HELLO), refused(417)],
    ['an empty expectation behind a coding in capitals', post('Expect:\r\nTransfer-Encoding: CHUNKED\r\n', CHUNKED_HELLO), refused(417)],
  ]),
  ...rows('B5', ['R-173'], [
    ['HTTP/1.0 that closes and keeps: what follows is not read', `GET /api/public/x HTTP/1.0\r\n${HOST}Connection: close, keep-alive\r\n\r\n${SMUGGLED}`, ONE_OF_TWO],
    ['the same the other way round, in two fields', `GET /api/public/x HTTP/1.0\r\n${HOST}Connection: keep-alive\r\nConnection: close\r\n\r\n${SMUGGLED}`, ONE_OF_TWO],
    ['a whole request before one whose chunks break gets its answer', get('/api/public/x') + chunks('zz\r\n'), ONE_OF_TWO],
    ['two whole requests before one whose chunks break get theirs', get('/api/public/x') + get('/api/public/y') + chunks('zz\r\n'), { ...forwarded('GET /api/public/x'), ...{ answers: [{ status: 200 }, { status: 200 }], requests: [{ line: 'GET /api/public/x HTTP/1.1' }, { line: 'GET /api/public/y HTTP/1.1' }] }, connection: 'closed' }],
    ['one answer to OPTIONS whose chunks break after it', request('OPTIONS', '/api/public/x', `${HOST}Max-Forwards: 0\r\n${TE}`, BROKEN_CHUNKS), answeredOnce(204)],
    ['one answer to a request of an endpoint of ours whose chunks break after it', request('GET', '/bff/user', `${HOST}X-CSRF: 1\r\n${TE}`, BROKEN_CHUNKS), answeredOnce(401)],
  ]),
]

/** A HEAD that is refused has no body in its answer, whatever is wrong with the body it brought (RFC 9110 §9.3.2). */
const HEADS: readonly WireCase[] = [
  {
    id: 'B4',
    name: 'chunks of a HEAD that are none',
    rules: ['R-175'],
    send: request('HEAD', '/api/public/x', HOST + TE, 'zz\r\n'),
    methods: ['HEAD'],
    expect: LATE.map((outcome) => ({ ...outcome, answers: [{ status: 400 }] })),
  },
]

/** Sections B1 to B4. */
export const FRAMING_CASES: readonly WireCase[] = [
  ...BOTH_FRAMINGS,
  ...LENGTHS,
  ...CODINGS,
  ...CHUNKS,
  ...LINES,
  ...SIGNED_IN,
  ...FOUND,
  ...HEADS,
]
