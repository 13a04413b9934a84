import {
  CHUNKED,
  get,
  HOST,
  type HostileRequest,
  lines,
  ONE_CHUNK,
  post,
  SECOND,
  SECOND_IN_CHUNKS,
  SITE,
  signedIn,
} from './hostile-bytes.ts'
import { HOSTILE_FIELDS } from './hostile-fields.ts'
import { HOSTILE_FRAMING } from './hostile-framing.ts'
import { HOSTILE_FIRST_LINES } from './hostile-targets.ts'

const WHOLE: readonly HostileRequest[] = [
  { name: 'a blank line first', bytes: `\r\n${get('/a')}`, isFair: true },
  { name: 'three blank lines first', bytes: `\r\n\r\n\r\n${get('/a')}`, isFair: true },
  { name: 'bare LFs first', bytes: `\n\n${get('/a')}` },
  { name: 'bare LFs throughout', bytes: get('/a').replaceAll('\r\n', '\n') },
  { name: 'a bare LF at the end of the head', bytes: `GET /a HTTP/1.1\r\nHost: ${HOST}\r\nX-Probe: 1\r\n\n` },
  {
    name: 'a blank first in the head',
    bytes: `GET /a HTTP/1.1\r\n Host: evil.test\r\nHost: ${HOST}\r\n\r\n`,
  },
  { name: 'no host', bytes: 'GET /a HTTP/1.1\r\nX-Request-Id: {id}\r\n\r\n' },
  { name: 'HTTP/1.0 without a host', bytes: 'GET /a HTTP/1.0\r\nX-Request-Id: {id}\r\n\r\n' },
  { name: 'HTTP/1.0', bytes: lines('GET /a HTTP/1.0', ...SITE, 'Connection: keep-alive'), isFair: true },
  {
    name: 'HTTP/1.0 with chunks',
    bytes: lines('POST /a HTTP/1.0', ...SITE, 'Connection: keep-alive', CHUNKED) + ONE_CHUNK,
  },
  { name: 'a GET with a body', bytes: `${get('/a', 'Content-Length: 5')}hello`, isFair: true },
  {
    name: 'a GET with a request for a body',
    bytes: get('/a', `Content-Length: ${SECOND.length}`) + SECOND,
    isFair: true,
  },
  { name: 'a GET with chunks', bytes: get('/a', CHUNKED) + ONE_CHUNK, isFair: true },
  {
    name: 'a HEAD with a body',
    bytes: `${lines('HEAD /a HTTP/1.1', ...SITE, 'Content-Length: 5')}hello`,
    isFair: true,
  },
  {
    name: 'a DELETE with chunks',
    bytes: lines('DELETE /a HTTP/1.1', ...SITE, CHUNKED) + ONE_CHUNK,
    isFair: true,
  },
  {
    name: 'an OPTIONS with chunks that Connection names',
    bytes: lines('OPTIONS /a HTTP/1.1', ...SITE, CHUNKED, 'Connection: Transfer-Encoding, close') + ONE_CHUNK,
  },
  { name: 'a POST without a length', bytes: post([], ''), isFair: true },
  {
    name: 'a POST of length 0 and a request',
    bytes: post(['Content-Length: 0'], SECOND),
    isFair: true,
    isPair: true,
  },
  { name: 'a length with leading zeros', bytes: post(['Content-Length: 005'], 'hello') },
  { name: 'a length of 00', bytes: post(['Content-Length: 00'], '') },
  { name: 'two requests in one write', bytes: get('/a') + SECOND, isFair: true, isPair: true },
  { name: 'a refused path and a request', bytes: get('/a/../b') + SECOND, isPair: true },
  {
    name: 'a refused path with a body',
    bytes: post([`Content-Length: ${SECOND.length}`], SECOND, '/a/../b'),
  },
  {
    name: 'a refused path with chunks',
    bytes: post([CHUNKED], SECOND_IN_CHUNKS, '/a//b'),
  },
  { name: 'two bytes after a body', bytes: `${post(['Content-Length: 5'], 'hello')}\r\n`, isFair: true },
  {
    name: 'an expectation that is met',
    bytes: post(['Expect: 100-continue', 'Content-Length: 5'], 'hello'),
    isFair: true,
  },
  { name: 'more than the route allows', bytes: post(['Content-Length: 50'], 'x'.repeat(50), '/small') },
  {
    name: 'more chunks than the route allows',
    bytes: post([CHUNKED], `32\r\n${'x'.repeat(50)}\r\n0\r\n\r\n`, '/small'),
  },
  { name: 'a body shorter than its length', bytes: post(['Content-Length: 50'], 'hello'), leaves: true },
  { name: 'chunks without an end', bytes: post([CHUNKED], '5\r\nhello\r\n'), leaves: true },
  { name: 'half a head', bytes: `GET /a HTTP/1.1\r\nHost: ${HOST}\r\nX-Probe: 1`, leaves: true },
  { name: 'a TLS handshake', bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', leaves: true },
  {
    name: 'the preface of HTTP/2',
    bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00',
    leaves: true,
  },
]

const SIGNED_IN: readonly [name: string, bytes: string][] = [
  ['nothing else', signedIn('GET /api/x HTTP/1.1')],
  ['an encoded prefix', signedIn('GET /%61%70i/x HTTP/1.1')],
  [
    'another Authorization',
    signedIn('GET /api/x HTTP/1.1', 'Authorization: Bearer evil', 'AUTHORIZATION: Basic ZXZpbA=='),
  ],
  [
    'Connection that names ours',
    signedIn('GET /api/x HTTP/1.1', 'Connection: Authorization, X-User-Id, Forwarded'),
  ],
  [
    'another user',
    signedIn(
      'GET /api/x HTTP/1.1',
      'X-User-Id: evil',
      'x_user_id: evil',
      'X-User_Id: evil',
      'X-USER-ID: evil',
    ),
  ],
  ['another cookie', signedIn('GET /api/x HTTP/1.1', 'Cookie: a=1; b="2"; c')],
  ['a body', `${signedIn('POST /api/x?y=%2f HTTP/1.1', 'Content-Length: 5')}hello`],
  ['chunks', signedIn('POST /api/x HTTP/1.1', CHUNKED) + ONE_CHUNK],
  [
    'trailers',
    signedIn('POST /api/x HTTP/1.1', CHUNKED) +
      '5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\nX-User-Id: evil\r\n\r\n',
  ],
  [
    'a GET with a request for a body',
    signedIn('GET /api/x HTTP/1.1', `Content-Length: ${SECOND.length}`) + SECOND,
  ],
]

const SIGNED_IN_HOSTILE: readonly [name: string, bytes: string][] = [
  ['a way out of the prefix', signedIn('GET /api/../a HTTP/1.1')],
  ['a way into the prefix', signedIn('GET /rewritten/..%2fapi/x HTTP/1.1')],
  ['a path parameter', signedIn('GET /api;a/x HTTP/1.1')],
  ['both framings', signedIn('POST /api/x HTTP/1.1', 'Content-Length: 4', CHUNKED) + ONE_CHUNK],
  ['no guard header', lines('GET /api/x HTTP/1.1', ...SITE, 'Cookie: {cookie}', 'X_CSRF: 1')],
  ['a foreign origin', signedIn('POST /api/x HTTP/1.1', 'Origin: https://evil.test', 'Content-Length: 0')],
]

/** Every hostile request. */
export const HOSTILE_REQUESTS: readonly HostileRequest[] = [
  ...HOSTILE_FIRST_LINES,
  ...HOSTILE_FRAMING,
  ...HOSTILE_FIELDS,
  ...WHOLE,
  ...SIGNED_IN.map(([name, bytes]) => ({ name: `signed in, with ${name}`, bytes, isFair: true })),
  ...SIGNED_IN_HOSTILE.map(([name, bytes]) => ({ name: `signed in, with ${name}`, bytes })),
]
