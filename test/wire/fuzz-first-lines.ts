import type { SeededRandom } from '../chaos/seeded-random.ts'
import { HOST } from './hostile-bytes.ts'

const METHODS = ['GET', 'GET', 'GET', 'POST', 'POST', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS']
const ODD_METHODS = [
  ...[
    'TRACE',
    'CONNECT',
    'PRI',
    'get',
    'Post',
    'PROPFIND',
    'M-SEARCH',
    'QUERY',
    'PURGE',
    'TRACK',
    'G@T',
    '',
    'GE T',
  ],
  ...['GET\0', 'X'.repeat(40), 'SOURCE', 'BREW', 'G\xe9T', 'LINK', 'SEARCH', '\tGET', 'GET/', 'DESCRIBE'],
]
const TARGETS = [
  '/a',
  '/',
  '/a/b?x=1',
  '/api/x',
  '/api/x',
  '/api/y?a=b&c',
  '/rewritten/x',
  '/rewritten',
  '/small/x',
  '/socket',
  ...['/bff/user', '/bff/login?returnUrl=/a', '/bff/callback', '/bff/x', '/download', '/early'],
]
const SEGMENTS = [
  ...[
    'a',
    'api',
    'rewritten',
    '..',
    '.',
    '',
    '%2e%2e',
    '.%2E',
    '%2f',
    '%5c',
    '\\',
    ';',
    ';x=1',
    '..;',
    '%00',
    '%0d%0a',
    'b;c',
  ],
  ...[
    '%252e%252e',
    '%252f',
    '%2500',
    '%c3%a9',
    '%c0%ae',
    '%ff',
    '\xe9',
    '%41%70%69',
    '%61pi',
    '...',
    '*',
    '@',
    ':80',
    '%',
    '%zz',
  ],
  ...[
    '%4',
    'a b',
    '\t',
    '#',
    '#/api',
    '?',
    '?/../',
    '%3f',
    '%23',
    '%25',
    '"',
    '<>',
    '^`{|}',
    '~',
    '\x7f',
    '\0',
    'bff',
    'user',
    'login',
  ],
  ...[
    'Api',
    'API',
    'a+b',
    "!$&'()*,=",
    '%20',
    '%7e',
    '%ed%a0%80',
    'http:',
    'evil.test',
    '%E2%82%AC',
    '&',
    '=',
    'api%20',
    'rewritten%2f',
    '..%3b',
    'a%253b',
    '%2561pi',
  ],
]
const ORIGINS = [
  ...[
    `http://${HOST}`,
    `https://${HOST}`,
    `HTTPS://${HOST.toUpperCase()}`,
    `https://${HOST}:443`,
    'http://evil.test',
    'https://evil.test',
  ],
  ...[
    `https://u@${HOST}`,
    `https:/${HOST}`,
    `https:${HOST}`,
    `//${HOST}`,
    '//evil.test',
    `ftp://${HOST}`,
    'https://',
    `wss://${HOST}`,
  ],
  ...[
    `https://${HOST}#`,
    `https://${HOST}\\`,
    `https://${HOST}:`,
    `https://${HOST}?`,
    'https://[::1]',
    `https://${HOST}@evil.test`,
  ],
]
const ODD_TARGETS = [
  '*',
  '',
  HOST,
  `${HOST}:443`,
  'evil.test:80',
  'a',
  '?x',
  '#',
  '../a',
  '.',
  ';',
  '%2fapi/x',
  '\\api',
]
const VERSIONS = [
  ...[
    'HTTP/1.0',
    'HTTP/1.0',
    'HTTP/1.0',
    'HTTP/1.2',
    'HTTP/2.0',
    'HTTP/0.9',
    'HTTP/1',
    'HTTP/1.1 ',
    'http/1.1',
    'HTTP/1.10',
    'HTTP/01.1',
  ],
  ...[
    'HTTP/1,1',
    'HTTP /1.1',
    'HTTP/1.1 HTTP/1.1',
    '',
    'RTSP/1.0',
    'ICE/1.0',
    'HTTP/1.1\0',
    'HTTP/9.9',
    'HTTPS/1.1',
    'HTTP/1.1\t',
    'HTTP/-1.1',
  ],
]
/** A method, mostly one that everybody knows. */
export function fuzzMethod(random: SeededRandom): string {
  return random.chance(0.05) ? random.pick(ODD_METHODS) : random.pick(METHODS)
}

/** A request line without its end. */
export function firstLine(random: SeededRandom, method: string): string {
  const gap = () =>
    random.chance(0.01) ? random.pick(['  ', '\t', '', ' \t', '\x0b', '\xa0', '\0', '\r']) : ' '
  const version = random.chance(0.06) ? random.pick(VERSIONS) : 'HTTP/1.1'
  return `${method}${gap()}${fuzzTarget(random)}${gap()}${version}`
}

function fuzzTarget(random: SeededRandom): string {
  const kind = random.between(0, 100)
  if (kind < 75) return random.pick(TARGETS)
  if (kind < 92) return path(random)
  if (kind < 96) return random.pick(ORIGINS) + (random.chance(0.5) ? random.pick(TARGETS) : path(random))
  if (kind < 96.4) return `/${'a'.repeat(17_000)}`
  return random.pick(ODD_TARGETS)
}

function path(random: SeededRandom): string {
  let target = random.chance(0.3) ? random.pick(['/api', '/rewritten', '/small', '']) : ''
  const count = 1 + Math.floor(random.between(0, 4))
  for (let i = 0; i < count; i += 1) target += random.pick(['/', '/', '/', '/', '']) + random.pick(SEGMENTS)
  if (random.chance(0.3)) target += `?${random.pick(SEGMENTS)}=${random.pick(SEGMENTS)}`
  return target
}
