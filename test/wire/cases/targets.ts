import {
  ALICE,
  BAD_PATH,
  denied,
  forwarded,
  get,
  HOST,
  type Outcome,
  refused,
  request,
  type WireCase,
} from '../wire-case.ts'

const MISDIRECTED = refused(421, 'misdirected_request')
const NO_HOST = refused(400, 'bad_request')

function target(name: string, line: string, expect: Outcome | Outcome[]): WireCase {
  return {
    id: 'A13',
    name,
    send: `${line} HTTP/1.1\r\n${HOST}\r\n`,
    expect,
    rules: ['R-165'],
  }
}

/** A request with these lines in place of its `Host`. */
function host(name: string, lines: string, expect: Outcome | Outcome[]): WireCase {
  return {
    id: 'A15',
    name,
    send: get('/api/public/x', lines),
    expect,
    rules: ['R-164'],
  }
}

const OK = forwarded('GET /api/public/x')
/** Ours, in absolute-form: refused, or read as the path that it names (RFC 9112 §3.2.2). */
const OWN_ABSOLUTE = [BAD_PATH, OK]
const NOT_OURS = refused([400, 421], ['path_rejected', 'bad_request', 'misdirected_request'], 'either')
const NOT_ALLOWED = refused([400, 405, 501], ['path_rejected', 'bad_request', 'method_not_allowed'], 'either')

/** A13: where a request goes is never in the request. */
// biome-ignore format: a row is a line
export const TARGET_CASES: readonly WireCase[] = [
  target('absolute-form of a link-local address', 'GET http://169.254.169.254/', NOT_OURS),
  target('absolute-form of somebody who would be seen', 'GET http://{{decoy}}/api/public/x', NOT_OURS),
  target('absolute-form of the upstream', 'GET http://{{upstream}}/api/public/x', NOT_OURS),
  target('absolute-form with our name as user', 'GET http://app.example.test@{{decoy}}/api/public/x', NOT_OURS),
  target('absolute-form of our own origin', 'GET https://app.example.test/api/public/x', OWN_ABSOLUTE),
  target('absolute-form of our host with another scheme', 'GET http://app.example.test/api/public/x', OWN_ABSOLUTE),
  target('absolute-form without a host', 'GET http:///api/public/x', BAD_PATH),
  target('absolute-form of one slash', 'GET http:/api/public/x', BAD_PATH),
  target('a file URL', 'GET file:///etc/passwd', NOT_OURS),
  target('an authority after two slashes', 'GET //{{decoy}}/x', BAD_PATH),
  target('an authority after a slash and a backslash', 'GET /\\{{decoy}}/x', BAD_PATH),
  target('authority-form without CONNECT', 'GET {{decoy}}', BAD_PATH),
  target('a relative path', 'GET api/public/x', BAD_PATH),
  target('a query alone', 'GET ?x=1', BAD_PATH),
  target('asterisk-form without OPTIONS', 'GET *', BAD_PATH),
  target('asterisk-form', 'OPTIONS *', NOT_ALLOWED),
  target('no target', 'GET ', refused(400, 'bad_request')),
  target('CONNECT to somebody else', 'CONNECT {{decoy}}', NOT_ALLOWED),
  target('CONNECT to ourselves', 'CONNECT app.example.test:443', NOT_ALLOWED),
  target('CONNECT with a path', 'CONNECT /api/public/x', NOT_ALLOWED),
  target('TRACE', 'TRACE /api/public/x', refused(405, 'method_not_allowed', 'either')),
  { ...target('TRACE with a cookie', 'TRACE /api/admin/x', refused(405, 'method_not_allowed', 'either')), send: request('TRACE', '/api/admin/x', ALICE), rules: ['R-163'] },
]

const rewritten = (name: string, from: string, to: string): WireCase => ({
  ...{
    id: 'A14',
    name,
    send: get(from, `${HOST}X-Forwarded-Prefix: /evil\r\nx_forwarded_prefix: /evil\r\n`),
  },
  expect: forwarded(`GET ${to}`, { fields: { 'x-forwarded-prefix': /^\/api\/rewrite$|^\/strip$/ } }),
})
const lost = (name: string, from: string, expect: Outcome): WireCase => ({
  id: 'A14',
  name,
  send: get(from),
  expect,
})
const NO_ROUTE = denied(404, 'route_not_found')

/** A14: rewriting joins texts; it never makes another host of them. */
export const REWRITE_CASES: readonly WireCase[] = [
  rewritten('an authority behind an at sign', '/api/rewrite/@{{decoy}}', '/v1/@{{decoy}}'),
  rewritten('a port and an authority', '/api/rewrite/:80@evil.example', '/v1/:80@evil.example'),
  rewritten('a URL as a segment', '/api/rewrite/http:evil.example', '/v1/http:evil.example'),
  rewritten('the prefix alone', '/api/rewrite?x=1', '/v1?x=1'),
  rewritten('a prefix that is taken away', '/strip/x', '/x'),
  rewritten('a prefix of which nothing remains', '/strip', '/'),
  rewritten('a query of which nothing remains before', '/strip?@evil.example', '/?@evil.example'),
  rewritten('an at sign where the prefix was', '/strip/@{{decoy}}/x', '/@{{decoy}}/x'),
  lost('no boundary before an at sign', '/api/rewrite@evil.example', NO_ROUTE),
  lost('no boundary before a port', '/strip:80@evil.example', NO_ROUTE),
  lost('an authority where the prefix was', '/strip//{{decoy}}/x', BAD_PATH),
  lost('an encoded slash where the prefix was', '/strip/%2f{{decoy}}/x', BAD_PATH),
  lost('a backslash where the prefix was', '/strip/\\{{decoy}}/x', BAD_PATH),
  lost('dots where the prefix was', '/strip/../api/admin', BAD_PATH),
]

/** A15: one valid Host, and one that is ours. */
// biome-ignore format: a row is a line
export const HOST_CASES: readonly WireCase[] = [
  host('another host', 'Host: evil.example\r\n', MISDIRECTED),
  host('another host that begins with ours', 'Host: app.example.test.evil.example\r\n', MISDIRECTED),
  host('another host that ends with ours', 'Host: evilapp.example.test\r\n', MISDIRECTED),
  host('another host of the same domain', 'Host: evil.example.test\r\n', MISDIRECTED),
  host('our host on another port', 'Host: app.example.test:8080\r\n', MISDIRECTED),
  host('an address of this machine, from this machine', 'Host: {{listen}}\r\n', OK),
  host('a name with another before it', 'Host: evillocalhost:3000\r\n', MISDIRECTED),
  host('another host on a route of ours', 'Host: evil.example\r\n', MISDIRECTED),
  host('a list', 'Host: app.example.test, evil.example\r\n', NO_HOST),
  host('two fields that differ', `${HOST}Host: evil.example\r\n`, NO_HOST),
  host('two fields that differ, ours last', `Host: evil.example\r\n${HOST}`, NO_HOST),
  host('two equal fields', `${HOST}${HOST}`, NO_HOST),
  host('two fields in different letter case', `${HOST}hOST: app.example.test\r\n`, NO_HOST),
  host('none', 'X-None: 1\r\n', NO_HOST),
  host('an empty one', 'Host:\r\n', NO_HOST),
  host('a user before it', 'Host: evil@app.example.test\r\n', NO_HOST),
  host('ours as a user', 'Host: app.example.test@evil.example\r\n', NO_HOST),
  host('a path behind it', 'Host: app.example.test/evil\r\n', NO_HOST),
  host('a query behind it', 'Host: app.example.test?evil\r\n', NO_HOST),
  host('a fragment behind it', 'Host: app.example.test#evil\r\n', NO_HOST),
  host('a backslash behind it', 'Host: app.example.test\\evil\r\n', NO_HOST),
  host('a space within it', 'Host: app.example.test evil\r\n', NO_HOST),
  host('a port that is no number', 'Host: app.example.test:evil\r\n', NO_HOST),
  host('a port past the last', 'Host: app.example.test:99999\r\n', refused([400, 421])),
  host('Latin-1 bytes', 'Host: app.example.test\xe9\r\n', NO_HOST),
  host('a NUL', 'Host: app.example.test\0\r\n', NO_HOST),
  host('a blank before the colon', 'Host : app.example.test\r\n', NO_HOST),
  host('a folded line', 'Host: app.example.test\r\n evil.example\r\n', NO_HOST),
  host('an underscore for the only one', 'H_ost: app.example.test\r\n', NO_HOST),
  host('ours in other letter case', 'hOsT: APP.Example.Test\r\n', OK),
  host('ours with the port of its scheme', 'Host: app.example.test:443\r\n', [OK, MISDIRECTED]),
  host('one that is configured', 'Host: app.internal:8080\r\n', OK),
  host('one that is configured, without its port', 'Host: app.internal\r\n', MISDIRECTED),
  host('blanks around it', 'Host: \t app.example.test \t\r\n', OK),
  { ...host('none in HTTP/1.0', '', refused([400, 421])), send: 'GET /api/public/x HTTP/1.0\r\n\r\n' },
  { ...host('another in HTTP/1.0', '', MISDIRECTED), send: 'GET /api/public/x HTTP/1.0\r\nHost: evil.example\r\n\r\n' },
  { ...host('another host for the sign-in: no redirect URI is made of it', '', MISDIRECTED), send: get('/bff/login', 'Host: evil.example\r\nX-Forwarded-Host: evil.example\r\n') },
  { ...host('another host in absolute-form, ours as the field', '', NOT_OURS), send: get('https://evil.example/api/public/x') },
  { ...host('another host as the field, ours in absolute-form', '', NOT_OURS), send: get('https://app.example.test/api/public/x', 'Host: evil.example\r\n') },
]

/** A16: long targets are refused at once. */
// biome-ignore format: a row is a line
export const LONG_TARGET_CASES: readonly WireCase[] = [
  { ...{ id: 'A16', name: 'a target of 8000 characters is served', rules: ['R-179'] }, send: get(`/api/public/${'x'.repeat(8000)}`), expect: forwarded(`GET /api/public/${'x'.repeat(8000)}`) },
  { ...{ id: 'A16', name: 'a target longer than the limit', rules: ['R-179'] }, send: get(`/api/public/${'x'.repeat(16_400)}`), expect: refused(414) },
  { ...{ id: 'A16', name: 'a query longer than the limit', rules: ['R-179'] }, send: get(`/api/public?${'x'.repeat(16_400)}`), expect: refused(414) },
  { ...{ id: 'A16', name: 'ten thousand segments' }, send: get(`/api/public${'/x'.repeat(10_000)}`), expect: refused([400, 414]) },
  { ...{ id: 'A16', name: 'eight thousand slashes' }, send: get('/'.repeat(8000)), expect: BAD_PATH },
  { ...{ id: 'A16', name: 'a megabyte of slashes' }, send: get('/'.repeat(1_048_576)), expect: refused([400, 414, 431]) },
  { ...{ id: 'A16', name: 'five thousand encoded letters' }, send: get(`/api/public/${'%61'.repeat(5000)}`), expect: forwarded(`GET /api/public/${'a'.repeat(5000)}`) },
  { ...{ id: 'A16', name: 'the configured limit: one more', rules: ['R-179'], world: 'tight' }, send: get(`/api/public/${'x'.repeat(1024 - 11)}`), expect: refused(414) },
  { ...{ id: 'A16', name: 'the configured limit: as many', rules: ['R-179'], world: 'tight' }, send: get(`/api/public/${'x'.repeat(1024 - 12)}`), expect: forwarded(`GET /api/public/${'x'.repeat(1024 - 12)}`) },
]
