import type { Script } from '../recording-upstream.ts'
import { ALICE, forwarded, get, HOST, type Outcome, refused, type Step, type WireCase } from '../wire-case.ts'

/** RFC 6455 §1.3. */
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

type Fields = Readonly<Record<string, string | null>>

const USUAL: Fields = {
  Host: 'app.example.test',
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  Origin: 'https://app.example.test',
  Cookie: '{{cookie}}',
  'Sec-WebSocket-Key': KEY,
  'Sec-WebSocket-Version': '13',
}

/** An opening handshake; a field that is null is left out. */
function handshake(changes: Fields = {}, line = 'GET /ws/x HTTP/1.1'): string {
  const fields = Object.entries({ ...USUAL, ...changes }).filter(([, value]) => value !== null)
  return `${line}\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n\r\n`
/** A close frame with status 1000, unmasked and masked with nought. */
const BYE_DOWN = '\x88\x02\x03\xe8'
const BYE_UP = '\x88\x82\0\0\0\0\x03\xe8'

function row(
  id: string,
  rules: string[],
  name: string,
  send: WireCase['send'],
  expect: WireCase['expect'],
  script?: Script,
): WireCase {
  return { id, name, rules, send, expect, ...(script ? { script: ['/ws/x', script] } : {}) }
}

const NOT_A_HANDSHAKE = refused([400, 426, 501], ['bad_request', 'path_rejected'])
const FOREIGN = refused(403, 'origin_forbidden')

/** I1, D8: who may open a tunnel. */
// biome-ignore format: a row is a line
const ADMISSION: readonly WireCase[] = [
  row('I1', ['R-191'], 'without a session', handshake({ Cookie: null }), { ...refused(401, 'session_required'), answers: [{ status: 401, code: 'session_required', fields: { vary: 'Cookie' } }] }),
  row('I1', ['R-191'], 'with a session that was never issued', handshake({ Cookie: '__Host-Http-cloakroom=s%3Aevil.evil' }), refused(401, 'session_required')),
  row('I1', ['R-191'], 'with a token instead of a session', handshake({ Cookie: null, Authorization: 'Bearer evil' }), refused(401, 'session_required')),
  row('I1', ['R-191'], 'to a route that has none', handshake({}, 'GET /api/admin/x HTTP/1.1'), NOT_A_HANDSHAKE),
  row('I1', ['R-191'], 'to no route', handshake({}, 'GET /nowhere HTTP/1.1'), refused(404, 'route_not_found')),
  row('I1', ['R-191'], 'to a path that is refused', handshake({}, 'GET /api/../ws/x HTTP/1.1'), refused(400, 'path_rejected')),
  row('I1', ['R-191'], 'to a stricter route, in capitals', handshake({}, 'GET /ws-open/INNER/x HTTP/1.1'), refused(400, 'path_rejected')),
  row('I1', ['R-191'], 'to a stricter route, by an encoded semicolon', handshake({}, 'GET /ws-open/..%3b/ws/x HTTP/1.1'), refused(400, 'path_rejected')),
  row('I1', ['R-191'], 'to a path with an encoded slash', handshake({}, 'GET /ws-open/a%2Fb HTTP/1.1'), refused(400, 'path_rejected')),
  row('I1', ['R-191'], 'to our own endpoint', handshake({}, 'GET /bff/user HTTP/1.1'), refused([400, 404])),
  row('I1', ['R-164'], 'to another host', handshake({ Host: 'evil.example' }), refused(421, 'misdirected_request')),
  row('I1', ['R-164'], 'to two hosts', handshake({ host: 'evil.example' }), refused(400, 'bad_request')),
  row('I1', ['R-165'], 'in absolute-form of another host', handshake({}, 'GET http://{{decoy}}/ws/x HTTP/1.1'), refused([400, 421])),
  ...[
    null,
    '',
    'null',
    'https://evil.example',
    'https://app.example.test.evil.example',
    'http://app.example.test',
    'https://APP.example.test:443/',
  ].map((origin) =>
    row('D8', ['R-191'], origin === null ? 'no Origin' : `Origin: ${JSON.stringify(origin)}`, handshake({ Origin: origin }), FOREIGN),
  ),
  row('D8', ['R-191'], 'the CSRF header is no Origin', handshake({ Origin: null, 'X-CSRF': '1', 'Sec-Fetch-Site': 'same-origin' }), FOREIGN),
  row('D8', ['R-191'], 'two Origins', handshake({ origin: 'https://evil.example' }), [FOREIGN, NOT_A_HANDSHAKE]),
  row('D8', ['R-191'], 'a foreign Origin on an anonymous route', handshake({ Origin: 'https://evil.example' }, 'GET /ws-open/x HTTP/1.1'), FOREIGN),
]

/** I3: what is no WebSocket is no tunnel. */
// biome-ignore format: a row is a line
const OTHER_PROTOCOLS: readonly WireCase[] = [
  row('I3', ['R-191'], 'h2c', handshake({ Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABk', Connection: 'Upgrade, HTTP2-Settings' }), NOT_A_HANDSHAKE),
  row('I3', ['R-174'], 'h2c on a route for requests', get('/api/public/x', `${HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n`), [NOT_A_HANDSHAKE, forwarded('GET /api/public/x')]),
  row('I3', ['R-174'], 'h2c with a body', get('/api/public/x', `${HOST}Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n`).concat('hello'), [NOT_A_HANDSHAKE, forwarded('GET /api/public/x', { body: 'hello' })]),
  row('I3', ['R-174'], 'WebSocket on a route for requests', handshake({ Cookie: null }, 'GET /api/public/x HTTP/1.1'), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'WebSocket and h2c', handshake({ Upgrade: 'websocket, h2c' }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'TLS', handshake({ Upgrade: 'TLS/1.0' }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'nothing', handshake({ Upgrade: '' }), [NOT_A_HANDSHAKE, refused(403, 'csrf_required', 'either')]),
  row('I3', ['R-191'], 'WebSocket 8', handshake({ 'Sec-WebSocket-Version': '8' }), { ...NOT_A_HANDSHAKE, answers: [{ status: [400, 426], fields: { 'sec-websocket-version': '13' } }] }),
  row('I3', ['R-191'], 'WebSocket 13 and 8', handshake({ 'Sec-WebSocket-Version': '13, 8' }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'no version', handshake({ 'Sec-WebSocket-Version': null }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'no key', handshake({ 'Sec-WebSocket-Key': null }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'a key that is too short', handshake({ 'Sec-WebSocket-Key': 'ZXZpbA==' }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'a key that is no base64', handshake({ 'Sec-WebSocket-Key': '!!!!!!!!!!!!!!!!!!!!!!==' }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'two keys', handshake({ 'sec-websocket-key': KEY }), NOT_A_HANDSHAKE),
  row('I3', ['R-161'], 'Connection names a field of the handshake', handshake({ Connection: 'Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version' }), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'by POST', handshake({ 'Content-Length': '0' }, 'POST /ws/x HTTP/1.1'), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'by HEAD', handshake({}, 'HEAD /ws/x HTTP/1.1'), { answers: [{ status: 400 }], requests: [], connection: 'closed' }),
  row('I3', ['R-191'], 'in HTTP/1.0', handshake({}, 'GET /ws/x HTTP/1.0'), [NOT_A_HANDSHAKE, refused(403)]),
  row('I3', ['R-191'], 'with a length', handshake({ 'Content-Length': '5' }).concat('hello'), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'with chunks', handshake({ 'Transfer-Encoding': 'chunked' }).concat('0\r\n\r\n'), NOT_A_HANDSHAKE),
  row('I3', ['R-191'], 'Connection without Upgrade: a request like any other', handshake({ Connection: 'keep-alive', 'X-CSRF': '1' }), [forwarded('GET /ws/x', { token: 'alice' }), NOT_A_HANDSHAKE]),
  row('I3', ['R-191'], 'Upgrade without Connection is not passed on', handshake({ Connection: null, 'X-CSRF': '1' }), [forwarded('GET /ws/x', { token: 'alice', fields: { upgrade: null } }), NOT_A_HANDSHAKE]),
]

const LINE = 'GET /ws/x HTTP/1.1'
// biome-ignore format: a row is a line
const tunnel = (down: string, up: string, more: Partial<Outcome> = {}): Outcome => ({
  answers: [
    { status: 101, fields: { upgrade: /^websocket$/i, connection: /^upgrade$/i, 'sec-websocket-accept': ACCEPT } },
  ],
  requests: [
    { line: LINE, token: 'alice', fields: { upgrade: /^websocket$/i, connection: /^upgrade$/i, 'sec-websocket-key': KEY, 'sec-websocket-version': '13', cookie: null } },
  ],
  connection: 'closed',
  tunnel: { down, up },
  ...more,
})
/** Both close, the client first. */
const CLOSING: readonly Step[] = [
  BYE_UP,
  { seen: BYE_UP },
  { upstream: BYE_DOWN },
  { until: BYE_DOWN },
  { upstreamLeaves: 'end' },
]
const TEXT_UP = '\x81\x85\0\0\0\0hello'
const TEXT_DOWN = '\x81\x05world'

/** A compressed text frame of nought after nought. */
const BOMB_BODY = `\xec\xc1\x01\r\0\0\0\xc2\xa0${'\0'.repeat(90)}`
const BOMB = `\xc1${String.fromCharCode(0x80 | BOMB_BODY.length)}\0\0\0\0${BOMB_BODY}`

/** What passes through a tunnel, byte for byte. */
// biome-ignore format: a row is a line
const TUNNELS: readonly WireCase[] = [
  row('I1', ['R-191', 'R-192'], 'a tunnel, its token, and no cookie of ours', [handshake(), { until: ACCEPT }, TEXT_UP, { seen: TEXT_UP }, { upstream: TEXT_DOWN }, { until: TEXT_DOWN }, ...CLOSING], tunnel(TEXT_DOWN + BYE_DOWN, TEXT_UP + BYE_UP), { reply: SWITCHED }),
  row('I1', ['R-194'], 'frames in the same packet as the handshake arrive once', [handshake() + TEXT_UP + TEXT_UP, { until: ACCEPT }, { seen: TEXT_UP + TEXT_UP }, ...CLOSING], tunnel(BYE_DOWN, TEXT_UP + TEXT_UP + BYE_UP), { reply: SWITCHED }),
  row('I1', ['R-194'], "frames in the same packet as the upstream's 101 arrive once", [handshake(), { until: TEXT_DOWN + TEXT_DOWN }, ...CLOSING], tunnel(TEXT_DOWN + TEXT_DOWN + BYE_DOWN, BYE_UP), { reply: SWITCHED + TEXT_DOWN + TEXT_DOWN }),
  row('I1', ['R-167'], "the client's credentials and forwarding fields", [handshake({ Authorization: 'Bearer evil', 'X-Forwarded-For': '6.6.6.6', X_User_Id: 'evil', 'x.tier': 'evil', 'Remote-User': 'evil', 'X-MS-Client-Principal': 'evil', Cookie: 'a=1; {{cookie}}; b=2' }), { until: ACCEPT }, ...CLOSING], tunnel(BYE_DOWN, BYE_UP, { requests: [{ line: LINE, token: 'alice', fields: { cookie: 'a=1; b=2', upgrade: 'websocket' } }] }), { reply: SWITCHED }),
  row('I1', ['R-172'], 'headers that another route adds, on an anonymous one', [handshake({ X_User_Id: 'evil', 'X-Tier': 'evil', 'x~nickname': 'evil' }, 'GET /ws-open/x HTTP/1.1')], { answers: [{ status: 200 }], requests: [{ line: 'GET /ws-open/x HTTP/1.1', fields: { host: 'app.example.test' } }] }),
  row('I1', ['R-161'], 'Connection names our Authorization', [handshake({ Connection: 'Upgrade, Authorization, X-Forwarded-For' }), { until: ACCEPT }, ...CLOSING], [tunnel(BYE_DOWN, BYE_UP, { requests: [{ line: LINE, token: 'alice', fields: { upgrade: 'websocket', connection: /^upgrade$/i } }] })], { reply: SWITCHED }),
  row('I1', ['R-163'], 'Max-Forwards stays here', [handshake({ 'Max-Forwards': '0' }), { until: ACCEPT }, ...CLOSING], tunnel(BYE_DOWN, BYE_UP, { requests: [{ line: LINE, token: 'alice', fields: { 'max-forwards': null } }] }), { reply: SWITCHED }),
  row('I1', ['R-167'], 'names that only look like those of a handshake', [handshake({ Sec_WebSocket_Protocol: 'evil', Up_grade: 'evil' }), { until: ACCEPT }, ...CLOSING], tunnel(BYE_DOWN, BYE_UP, { requests: [{ line: LINE, token: 'alice', fields: { sec_websocket_protocol: null, up_grade: null } }] }), { reply: SWITCHED }),
  row(
    'I1',
    ['R-191'],
    'what the handshake asks for is passed on',
    [handshake({ 'Sec-WebSocket-Protocol': 'chat, superchat', 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' }), { until: ACCEPT }, ...CLOSING],
    tunnel(BYE_DOWN, BYE_UP, {
      requests: [
        {
          line: LINE,
          token: 'alice',
          fields: {
            upgrade: 'websocket',
            'sec-websocket-protocol': 'chat, superchat',
            'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits',
          },
        },
      ],
    }),
    { reply: SWITCHED },
  ),
  row('I2', ['R-169'], 'a cookie of ours with the 101 does not cross', [handshake(), { until: ACCEPT }, ...CLOSING], tunnel(BYE_DOWN, BYE_UP, { answers: [{ status: 101, fields: { 'set-cookie': 'a=1', 'clear-site-data': null } }] }), { reply: SWITCHED.replace('\r\n\r\n', '\r\nSet-Cookie: a=1\r\nSet-Cookie: __Host-Http-cloakroom=evil\r\nClear-Site-Data: "*"\r\n\r\n') }),
  row('I9', [], 'a frame that would unfold without end is passed on as it is', [handshake({ 'Sec-WebSocket-Extensions': 'permessage-deflate' }), { until: ACCEPT }, BOMB, { seen: BOMB }, ...CLOSING], tunnel(BYE_DOWN, BOMB + BYE_UP), { reply: SWITCHED }),
  row('I9', [], 'frames that no WebSocket has end nothing but their tunnel', [handshake(), { until: ACCEPT }, { upstream: '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff' }, { upstreamLeaves: 'end' }], [tunnel('\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff', ''), tunnel('', '')], { reply: SWITCHED }),
  row('I5', ['R-193'], 'a client that resets takes the upstream with it', [handshake(), { until: ACCEPT }, { leave: 'reset' }, { upstreamClosed: true }], tunnel('', ''), { reply: SWITCHED }),
  row('I5', ['R-193'], 'an upstream that resets takes the client with it', [handshake(), { until: ACCEPT }, { upstreamLeaves: 'reset' }], tunnel('', ''), { reply: SWITCHED }),
]

const SECOND = get('/api/admin/second', `${ALICE}X-Smuggled: evil\r\n`)
const relayed = (status: number, body: string): Outcome => ({
  answers: [{ status, body, code: null, fields: { connection: 'close' } }],
  requests: [{ line: LINE, token: 'alice', fields: { upgrade: 'websocket' } }],
  connection: 'closed',
})
const answerOf = (status: string, fields = '') => `HTTP/1.1 ${status}\r\n${fields}Content-Length: 2\r\n\r\nno`
const FAILED: Outcome = { ...relayed(502, ''), answers: [{ status: 502, code: 'upstream_unreachable' }] }

const HALF_REPLY = 'HTTP/1.1 403 No\r\n\r\nhalf'
const HALF: Outcome = { ...relayed(403, 'half'), answers: [{ status: 403, isCut: true }] }

/** I2: the upstream does not upgrade; the socket carries no second request. */
// biome-ignore format: a row is a line
const REFUSED_BY_UPSTREAM: readonly WireCase[] = [
  ...[
    '200 OK',
    '302 Found',
    '401 Unauthorized',
    '403 Forbidden',
    '426 Upgrade Required',
    '500 Internal Server Error',
  ].map((status) =>
    row('I2', ['R-191'], `${status} to a handshake with a second request behind it`, handshake() + SECOND, relayed(Number.parseInt(status, 10), 'no'), { reply: answerOf(status) }),
  ),
  row('I2', ['R-191'], '200, then a second request', [handshake(), { until: '\r\n\r\nno' }, SECOND], relayed(200, 'no'), { reply: answerOf('200 OK') }),
  row('I2', ['R-191'], '200 in chunks', handshake(), relayed(200, 'no'), { reply: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n' }),
  row('I2', ['R-191'], '204', handshake(), relayed(204, ''), { reply: 'HTTP/1.1 204 No Content\r\n\r\n' }),
  row('I2', ['R-169'], 'a cookie of ours with the refusal does not cross', handshake(), { ...relayed(401, 'no'), answers: [{ status: 401, fields: { 'set-cookie': null, 'www-authenticate': null, 'cloakroom-error': null } }] }, { reply: answerOf('401 Unauthorized', 'Set-Cookie: __Host-Http-cloakroom=evil\r\nWWW-Authenticate: Basic\r\nCloakroom-Error: evil\r\n') }),
  row('I2', ['R-170'], 'a refusal that a cache may keep is for this cookie alone', handshake(), { ...relayed(403, 'no'), answers: [{ status: 403, fields: { vary: 'Accept, Cookie' } }] }, { reply: answerOf('403 No', 'Vary: Accept\r\n') }),
  row('I2', ['R-191'], "its origin in the refusal's Location is ours", handshake(), { ...relayed(302, 'no'), answers: [{ status: 302, fields: { location: 'https://app.example.test/y' } }] }, { reply: answerOf('302 Found', 'Location: http://{{upstream}}/y\r\n') }),
  row('I2', ['R-191'], '101 with the wrong Accept', handshake(), FAILED, { reply: SWITCHED.replace(ACCEPT, 'AAAAAAAAAAAAAAAAAAAAAAAAAAA=') }),
  row('I2', ['R-191'], '101 without an Accept', handshake(), FAILED, { reply: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n' }),
  row('I2', ['R-191'], '101 to another protocol', handshake(), FAILED, { reply: SWITCHED.replace('websocket', 'h2c') }),
  row('I2', ['R-177'], 'a coding that is not decoded', handshake(), FAILED, { reply: 'HTTP/1.1 403 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n' }),
  row('I2', ['R-177'], '204 with a length', handshake(), { ...relayed(204, ''), answers: [{ status: 204, fields: { 'content-length': null } }] }, { reply: answerOf('204 No Content') }),
  row('I2', ['R-177'], 'a thousand interim answers', handshake(), FAILED, { reply: 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(1000) + answerOf('403 No') }),
  row('I2', ['R-186'], 'a refusal that a reset breaks off', [handshake(), { until: 'half' }, { upstreamLeaves: 'reset' }], HALF, { reply: HALF_REPLY }),
  row('I2', ['R-186'], 'a refusal whose chunks break off', [handshake(), { until: 'half' }, { upstream: 'zz\r\n' }], HALF, { reply: HALF_REPLY.replace('\r\n\r\n', '\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n').concat('\r\n') }),
  row('I2', ['R-177'], 'no HTTP', handshake(), FAILED, { reply: 'evil evil\r\n\r\n' }),
  row('I2', ['R-177'], 'status 999', handshake(), FAILED, { reply: answerOf('999 Evil') }),
  row('I2', ['R-177'], 'an end instead of an answer', handshake(), FAILED, { after: 'end' }),
  row('I2', ['R-177'], 'a reset instead of an answer', handshake(), FAILED, { after: 'reset' }),
]

/** I6: a token of the client's own, and one in the URL. */
// biome-ignore format: a row is a line
const TOKENS: readonly WireCase[] = [
  row('I6', ['R-192'], 'a token as a subprotocol', handshake({ 'Sec-WebSocket-Protocol': 'bearer, eyJhbGciOiJub25lIn0.e30.' }), NOT_A_HANDSHAKE),
  row('I6', ['R-192'], 'a token as a subprotocol, by another name', handshake({ 'Sec-WebSocket-Protocol': 'access_token, eyJhbGciOiJub25lIn0.e30.' }), NOT_A_HANDSHAKE),
]

/** Sections I and D8. */
export const UPGRADE_CASES: readonly WireCase[] = [
  ...ADMISSION,
  ...OTHER_PROTOCOLS,
  ...TUNNELS,
  ...REFUSED_BY_UPSTREAM,
  ...TOKENS,
]
