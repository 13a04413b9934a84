import type { SeededRandom } from '../chaos/seeded-random.ts'
import { HOST } from './hostile-bytes.ts'

/** Names that Cloakroom says itself or that would make the upstream believe somebody else, in one spelling of many. */
const SPOOFS = [
  ...[
    'Authorization',
    'Forwarded',
    'X-Forwarded',
    'X-Forwarded-For',
    'X-Forwarded-Host',
    'X-Forwarded-Proto',
  ],
  ...['X-Forwarded-Port', 'X-Forwarded-Prefix', 'X-Forwarded-Server', 'X-Real-IP', 'X-Client-IP'],
  ...['X-Cluster-Client-IP', 'True-Client-IP', 'CF-Connecting-IP', 'X-Original-URL', 'X-Original-Host'],
  ...[
    'X-Rewrite-URL',
    'X-HTTP-Method',
    'X-HTTP-Method-Override',
    'X-Method-Override',
    'X-MS-Client-Principal',
  ],
  ...['X-MS-Token-AAD-Access-Token', 'X-Amzn-Oidc-Data', 'X-Amzn-Oidc-Identity', 'X-Auth-Request-User'],
  ...[
    'Remote-User',
    'X-Remote-User',
    'Client-Cert',
    'Client-Cert-Chain',
    'X-Client-Cert',
    'X-SSL-Client-Verify',
  ],
  ...['Proxy-Authorization', 'Proxy-Connection', 'X-User-Id', 'X-Request-Id', 'HTTP2-Settings', 'X-CSRF'],
]
const SPOOFED = [
  'evil',
  '6.6.6.6',
  'Bearer evil',
  'for=6.6.6.6;host=evil.test',
  '',
  'Basic ZXZpbA==',
  '127.0.0.1',
]

const CONNECTION = [
  ...[
    'close',
    'keep-alive',
    'Keep-Alive, Close',
    'upgrade',
    'keep-alive, Upgrade',
    'TE',
    'x-probe',
    'X_Probe',
  ],
  ...['authorization', 'Host', 'cookie, x-user-id', 'x-forwarded-for, forwarded, via', 'Content-Length'],
  ...[
    'transfer-encoding',
    ',,close,,',
    '"close"',
    'close;x',
    'x-request-id, expect',
    'X-CSRF',
    ' , ',
    'clos e',
  ],
]

const HOSTS = [
  ...[HOST, HOST, HOST, HOST.toUpperCase(), `${HOST}:443`, `${HOST}:80`, `${HOST}.`, `${HOST}:`, ''],
  ...[
    'evil.test',
    `u@${HOST}`,
    `${HOST}/x`,
    `${HOST}, evil.test`,
    `${HOST} evil.test`,
    'localhost',
    '127.0.0.1:1',
  ],
  ...[
    '[::1]',
    '[::1',
    `${HOST}:99999`,
    `${HOST}:4_43`,
    `${HOST}\xa0`,
    `%61pp.example.test`,
    `${HOST}#`,
    `${HOST}?`,
  ],
]

const OTHERS: readonly (readonly [name: string, values: readonly string[]])[] = [
  [
    'Expect',
    [
      '100-continue',
      '100-Continue',
      '100-continue, x',
      'x',
      '',
      '200-ok',
      '100-continue;q=1',
      '100 -continue',
    ],
  ],
  ['Upgrade', ['websocket', 'h2c', 'WebSocket, h2c', 'TLS/1.0', '', 'websocket/13']],
  ['TE', ['trailers', 'chunked', 'trailers, deflate;q=0.5', '']],
  ['Trailer', ['Authorization', 'X-Probe', 'Content-Length, Host']],
  ['Keep-Alive', ['timeout=5', 'x']],
  ['Max-Forwards', ['0', '1', '10', '-1', 'x', '', '99999999999', '0, 0', ' 00']],
  ['Via', ['1.1 other', '1.0 a, 1.1 b (c)', '1.1 cloakroom-x', '']],
  ['Origin', ['https://app.example.test', 'https://partner.example.test', 'https://evil.test', 'null', '']],
  ['Sec-Fetch-Site', ['same-origin', 'cross-site', 'none', '']],
  ['Sec-Fetch-Mode', ['navigate', 'cors']],
  ['Sec-Fetch-Dest', ['document', 'empty']],
  ['Access-Control-Request-Method', ['POST', 'evil']],
  ['Accept', ['*/*', 'text/event-stream', 'text/html', 'evil']],
  ['Range', ['bytes=0-0', 'bytes=0-', 'x']],
  ['Content-Type', ['text/plain', 'application/json; charset=utf-8', 'multipart/form-data; boundary=x']],
  ['Content-Encoding', ['gzip', 'chunked', 'identity']],
  ['Content_Length', ['5', '0', '']],
  ['Transfer_Encoding', ['chunked', 'identity']],
  ['Sec-WebSocket-Key', ['dGhlIHNhbXBsZSBub25jZQ==', 'x', '']],
  ['Sec-WebSocket-Version', ['13', '8', '13, 8', '']],
  ['If-None-Match', ['*', '"x"', 'W/"x", "y"']],
  [
    'X-Probe',
    ['1', '', '\t1 \t 2\t', '\xe9\xff\x80', '\xe2\x82\xac', 'a'.repeat(2_000), 'x: y', '=?utf-8?q?x?='],
  ],
  ["X-!#$%&'*+-.^`|~", ['1']],
]

const COOKIES = [
  ...[
    '{cookie}',
    '{cookie}',
    '{cookie}',
    'a=1; {cookie}',
    '{cookie}; b=2',
    'a=1; {cookie};b=2',
    'a=1;{cookie}; b',
  ],
  ...[
    'a=1',
    '',
    ';;=;a;"b;c";d=e f',
    'a="x; y"',
    '__Host-Http-cloakroom=evil',
    '{cookie}; {cookie}',
    'a=\xe9\xa0',
  ],
  ...[
    '__host-http-CLOAKROOM=evil',
    '__Host-Http-cloakroom-login-x=evil; a=1',
    ' __Host-Http-cloakroom =evil;c=3',
  ],
  ...[
    '\t{cookie}\t;a=1',
    '__Host-Http-cloakroom',
    '__Host-Http-cloakroom-other=1',
    'a=b={cookie}',
    '$Version=1; {cookie}',
  ],
  ...['__Host-Http-cloakroom=; {cookie}', '={cookie}', '=; {cookie}', 'a=1;; ;{cookie};; ;b=2', 'x{cookie}'],
]

/** One field line without its end, that is about anything but where the body ends. */
export function fuzzField(random: SeededRandom): string {
  const kind = random.between(0, 10)
  if (kind < 4) return line(random, spelt(random, random.pick(SPOOFS)), random.pick(SPOOFED))
  if (kind < 5) return line(random, 'Connection', random.pick(CONNECTION))
  if (kind < 6) return line(random, spelt(random, 'Cookie'), random.pick(COOKIES))
  const [name, values] = random.pick(OTHERS)
  return line(random, random.chance(0.1) ? spelt(random, name) : name, random.pick(values))
}

/** The field lines that make a visitor's request, mostly as they should be. */
export function usualFields(random: SeededRandom): string[] {
  const host = random.chance(0.06) ? random.pick(HOSTS) : HOST
  const fields = random.chance(0.015) ? [] : [line(random, 'Host', host)]
  if (random.chance(0.02)) fields.push(line(random, spelt(random, 'Host'), random.pick(HOSTS)))
  if (random.chance(0.8))
    fields.push(line(random, 'Cookie', random.chance(0.25) ? random.pick(COOKIES) : '{cookie}'))
  if (random.chance(0.9))
    fields.push(line(random, 'X-CSRF', random.chance(0.03) ? random.pick(SPOOFED) : '1'))
  return fields
}

/** A name in another spelling that some server may take for the same. */
export function spelt(random: SeededRandom, name: string): string {
  const kind = random.between(0, 10)
  if (kind < 3) return name
  if (kind < 5)
    return Array.from(name, (one) => (random.chance(0.5) ? one.toUpperCase() : one.toLowerCase())).join('')
  if (kind < 8) return name.replaceAll('-', () => random.pick(['_', '-', '_']))
  if (kind < 8.6) return `${name}${random.pick(['_', '-', '.', ' ', '\t', '\0', '\xa0'])}`
  if (kind < 9.2) return `${random.pick(['_', '-', ' ', '\x0b', 'HTTP_'])}${name}`
  return name.replaceAll('-', () => random.pick(['--', '__', '-_', ' ', '', '.', '+']))
}

/** Name and value with whitespace, or what may pass for it, around the colon. */
export function line(random: SeededRandom, name: string, value: string): string {
  const kind = random.between(0, 200)
  if (kind < 180) return `${name}: ${value}`
  if (kind < 192)
    return `${name}:${random.pick(['', '\t', '   ', ' \t '])}${value}${random.pick(['', ' ', '\t'])}`
  const odd = [
    ...[
      `${name} : ${value}`,
      `${name}\t:${value}`,
      `${name}:\r\n ${value}`,
      `${name}: ${value}\r\n\tmore`,
      `${name}`,
    ],
    ...[
      `: ${value}`,
      `${name}:\x0b${value}`,
      `${name}:\0${value}`,
      `${name}: ${value}\0`,
      ` ${name}: ${value}`,
    ],
    ...[
      `${name}:\xa0${value}`,
      `${name}: ${value}\r`,
      `${name}: ${value}\nX-Probe: evil`,
      `${name}:: ${value}`,
    ],
    ...[
      `${name}: ${value}\rX-Probe: evil`,
      `${name}: \x7f${value}`,
      `${name}: \x1b${value}`,
      `${name}=${value}`,
    ],
  ]
  return random.pick(odd)
}
