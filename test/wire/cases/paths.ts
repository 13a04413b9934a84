import { ALICE, BAD_PATH, denied, forwarded, get, HOST, type Outcome, type WireCase } from '../wire-case.ts'

const NOT_FOUND = denied(404, 'route_not_found')

/** The same target from somebody unknown and from somebody signed in: neither must gain by its spelling. */
function bothWays(id: string, name: string, target: string, expect: Outcome, signedIn = expect): WireCase[] {
  const who: [string, string, Outcome][] = [
    ['a stranger', `${HOST}X-CSRF: 1\r\n`, expect],
    ['a user', ALICE, signedIn],
  ]
  return who.map(([one, fields, outcome]) => ({
    ...{ id, name: `${name}, from ${one}`, send: get(target, fields), expect: outcome },
  }))
}

/** Targets that are refused whoever asks. */
function rejected(id: string, targets: Record<string, string>): WireCase[] {
  return Object.entries(targets).flatMap(([name, target]) =>
    bothWays(id, `${name} (${show(target)})`, target, BAD_PATH),
  )
}

/** Targets below the public route that arrive byte for byte. */
function untouched(id: string, targets: Record<string, string>): WireCase[] {
  return Object.entries(targets).flatMap(([name, target]) =>
    bothWays(id, `${name} (${show(target)})`, target, forwarded(`GET ${target}`)),
  )
}

/** Targets that look like a route and are none. */
function unknown(id: string, targets: Record<string, string>): WireCase[] {
  return Object.entries(targets).flatMap(([name, target]) =>
    bothWays(id, `${name} (${show(target)})`, target, NOT_FOUND),
  )
}

function show(target: string): string {
  return JSON.stringify(target.length > 60 ? `${target.slice(0, 60)}…` : target).slice(1, -1)
}

const toAdmin = (id: string, name: string, target: string, canonical: string) =>
  bothWays(
    id,
    `${name} (${show(target)})`,
    target,
    denied(401, 'session_required'),
    forwarded(`GET ${canonical}`, { token: 'alice' }),
  )

/** Section A of the list of cases: what is matched is what is forwarded. */
// biome-ignore format: a row is a line
export const PATH_CASES: readonly WireCase[] = [
  ...rejected('A1', {
    'a dot segment out of the public part': '/api/public/../admin/x',
    'two dot segments': '/api/public/x/../../admin/x',
    'a dot segment at the end': '/api/public/..',
    'a dot segment at the front': '/../api/admin/x',
    'a single dot': '/api/./admin/x',
  }),
  ...rejected('A2', {
    'encoded dots': '/api/public/%2e%2e/admin/x',
    'encoded dots in capitals': '/api/public/%2E%2E/admin/x',
    'the second dot encoded': '/api/public/.%2e/admin/x',
    'the first dot encoded': '/api/public/%2e./admin/x',
    'a single encoded dot': '/api/%2e/admin/x',
  }),
  ...rejected('A3', {
    'an encoded slash after dots': '/api/public/..%2fadmin/x',
    'encoded dots and slash': '/api/public/%2e%2e%2fadmin/x',
    'an encoded backslash after dots': '/api/public/..%5cadmin/x',
    'a backslash after dots': '/api/public/..\\admin',
    'a backslash between segments': '/api\\admin/x',
    'an encoded slash between segments': '/api%2fadmin/x',
    'an encoded slash in capitals': '/api/public%2Fx',
  }),
  ...rejected('A4', {
    'doubly encoded dots': '/api/public/%252e%252e/admin',
    'a doubly encoded slash': '/api/public/..%252fadmin',
    'a doubly encoded backslash': '/api/public/..%255cadmin',
    'trebly encoded dots': '/api/public/%25252e%25252e/admin',
    'double encoding hidden by encoded digits': '/api/public/%25%32%65%25%32%65/admin',
    'a broken encoding that decodes to dots at the second try': '/api/public/%2%65%2%65/admin',
  }),
  ...untouched('A4', { 'an encoded percent sign that hides nothing': '/api/public/100%25' }),
  ...rejected('A5', {
    'two slashes in front': '//api/admin/x',
    'two slashes in the middle': '/api//admin/x',
    'two slashes at the end': '/api/admin//',
    'nothing but slashes': '///',
    'two slashes below the public part': '/api/public//x',
  }),
  ...toAdmin('A6', 'encoded letters', '/%61pi/%61dmin/x', '/api/admin/x'),
  ...toAdmin('A6', 'one encoded letter', '/api/admi%6e/x', '/api/admin/x'),
  ...bothWays('A6', 'encoded letters of the public route', '/api/publi%63/%7ex', forwarded('GET /api/public/~x')),
  ...rejected('A7', {
    'a path parameter before a segment': '/api/admin;x/y',
    'a path parameter after dots': '/api/public/..;/admin',
    'a path parameter at the end': '/api/public/x;y=1',
    'an empty path parameter': '/api;/admin/x',
  }),
  ...rejected('A7', {
    'an encoded semicolon': '/api/admin%3bx/y',
    'an encoded semicolon after dots (servlets)': '/api/public/..%3b/admin/x',
    'an encoded semicolon in capitals': '/api/public/..%3B/admin/x',
    'an encoded semicolon at the end': '/api/public/x%3By=1',
    'a doubly encoded semicolon': '/api/public/..%253b/admin/x',
    'a trebly encoded semicolon': '/api/public/..%25253B/admin/x',
    'double encoding hidden by an encoded digit': '/api/public/..%25%33b/admin/x',
  }),
  ...rejected('A8', {
    'a fragment': '/api/public/x#y',
    'a fragment that hides dots': '/api/public#/../admin',
    'an encoded number sign before dots': '/api/public%23/../admin',
    'a fragment in the query': '/api/public/x?a=1#b',
  }),
  ...unknown('A8', { 'an encoded number sign is part of its segment': '/api/admin%23/x' }),
  ...untouched('A8', {
    'an encoded number sign below the route': '/api/public/%23x',
    'an encoded question mark is no query': '/api/public/%3Fx=1',
  }),
  ...toAdmin('A9', 'a query that names the public route', '/api/admin?x=/api/public', '/api/admin?x=/api/public'),
  ...untouched('A9', {
    'a query full of path syntax': '/api/public/x?a=/../..%2f//evil&b=;c=%00%zz\\',
    'an empty query': '/api/public/x?',
    'a query of question marks': '/api/public??/api/admin',
  }),
  ...unknown('A10', {
    'a longer segment': '/api/publicity',
    'a longer segment by a hyphen': '/exposed-extra',
    'a longer segment by an encoded hyphen': '/api/public%2dx',
    'a suffix': '/api/public.json',
    'a shorter segment': '/api/publi',
    'a longer base path': '/bff-x/user',
  }),
  ...untouched('A10', { 'the prefix itself': '/api/public', 'the prefix and a slash': '/exposed/' }),
  ...unknown('A11', {
    'capitals in a route': '/API/Admin',
    'capitals in the public route': '/api/Public/x',
    'an encoded capital': '/%41pi/admin/x',
    'capitals in the base path': '/BFF/user',
  }),
  ...rejected('A11', {
    'capitals of a stricter route of the same upstream': '/exposed/INNER/x',
    'a capital of it': '/exposed/Inner',
    'an encoded capital of it': '/exposed/%49nner/x',
    'a doubly encoded letter of it': '/exposed/%2569nner/x',
    'a dotless i of it': '/exposed/%C4%B1nner/x',
    'a wide letter of it': '/exposed/%EF%BD%89nner/x',
    'a dot behind it (Windows)': '/exposed/inner./x',
    'a blank behind it (Windows)': '/exposed/inner%20/x',
    'a stream of it (NTFS)': '/exposed/inner::$DATA',
    'an encoded question mark behind it': '/exposed/inner%3Fx',
  }),
  ...untouched('A11', {
    'capitals that reach no stricter route': '/exposed/Innermost/X',
    'capitals below no stricter route': '/api/public/INNER/x',
  }),
  ...untouched('A13', {
    'an encoded slash where it passes': '/exposed/a%2Fb/c%2fd?x=%2F',
    'an encoded slash at the end where it passes': '/exposed/a%2F',
  }),
  ...rejected('A13', {
    'an encoded slash in front of the public part': '/exposed%2Fa',
    'an encoded slash that makes a dot segment': '/exposed/a%2F..%2Fb',
    'an encoded slash that makes a dot segment with encoded dots': '/exposed/a/%2e%2e%2Fb',
    'an encoded slash that makes an empty segment': '/exposed/a/%2Fb',
    'two encoded slashes': '/exposed/a%2F%2Fb',
    'an encoded slash that reaches a stricter route': '/exposed/inner%2Fx',
    'an encoded slash that reaches a stricter route in capitals': '/exposed/INNER%2fx',
    'an encoded slash below our own path': '/bff%2Fuser',
    'a doubly encoded slash where an encoded one passes': '/exposed/a%252Fb',
    'an encoded backslash where an encoded slash passes': '/exposed/a%5Cb',
  }),
  ...rejected('A12', {
    'an encoded NUL': '/api/public/%00',
    'an encoded CR and LF': '/api/public/%0d%0aX-Evil:1',
    'an encoded DEL': '/api/public/%7f',
    'no hexadecimal digits': '/api/public/%zz',
    'a percent sign at the end': '/api/public/%',
    'one hexadecimal digit': '/api/public/%4',
    'an overlong dot': '/api/public/%c0%ae%c0%ae/admin',
    'an overlong slash': '/api/public/%e0%80%af',
    'an encoded surrogate': '/api/public/%ed%a0%80',
    'a code point past the last': '/api/public/%f4%90%80%80',
    "IIS's encoding of a dot": '/api/public/%u002e%u002e/admin',
    'a raw byte 0x80': '/api/public/\x80',
    'a raw byte 0xff': '/api/public/\xff',
    'raw UTF-8': '/api/public/\xc3\xa9',
    'a raw NUL': '/api/public/\0',
    'a raw tab': '/api/public/\t',
    'a raw escape': '/api/public/\x1b',
    'a raw space': '/api/public/a b',
    'a raw byte in the query': '/api/public/x?a=\x80',
  }),
  ...untouched('A12', {
    'encoded UTF-8 of two bytes': '/api/public/%c3%a9',
    'encoded UTF-8 of four bytes, in capitals': '/api/public/%F0%9F%92%A5',
    'characters that need no encoding': "/api/public/a-._~!$&'()*+,=:@z",
  }),
]
