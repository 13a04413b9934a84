import type { SeededRandom } from '../chaos/seeded-random.ts'
import { line, spelt } from './fuzz-fields.ts'
import { HOST } from './hostile-bytes.ts'

/** The field lines that frame a body, and its bytes. */
export type FuzzBody = { readonly fields: readonly string[]; readonly bytes: string }

const SMUGGLED = [
  `GET /smuggled HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`,
  `GET /api/smuggled HTTP/1.1\r\nHost: ${HOST}\r\nX-CSRF: 1\r\nX-Probe: `,
  `POST /smuggled HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 200\r\n\r\n`,
]
const CONTENTS = [
  ...SMUGGLED,
  'hello',
  '',
  'x',
  '\r\n',
  '0\r\n\r\n',
  '5\r\nhello\r\n0\r\n\r\n',
  '\0\xff\n\r',
  'a'.repeat(17),
]

const CODINGS = [
  ...[
    'chunked',
    'Chunked',
    'CHUNKED',
    'chunked ',
    'xchunked',
    'chunked, chunked',
    'identity',
    'chunked, identity',
    '',
  ],
  ...[
    'identity, chunked',
    'gzip, chunked',
    'gzip',
    ',chunked',
    'chunked,',
    'chunked;q=1',
    '"chunked"',
    'chunke',
    '\x0bchunked',
  ],
  ...[
    'chun\tked',
    'chunked\0',
    'chu\xeeked',
    'chunked\xa0',
    'c h u n k e d',
    'trailers',
    'deflate, gzip , chunked',
  ],
]
const LENGTHS = [
  ...[
    '+N',
    '-N',
    '0N',
    '0xN',
    'N,N',
    'N, N',
    'N N',
    'N.0',
    'N_0',
    'Ne0',
    '',
    ' ',
    'x',
    'N;x',
    '18446744073709551616',
    '"N"',
  ],
  ...[
    '99999999999999999999999',
    'N\0',
    '\xb2',
    'N\xa0',
    '000000000000000000000N',
    'N,',
    ',N',
    '0, N',
    '4294967296',
  ],
]

/** A body, or none, with framing that is right, wrong or doubtful. */
export function fuzzBody(random: SeededRandom, method: string): FuzzBody {
  const kind = random.between(0, 100)
  if (kind < (method === 'GET' ? 70 : 10)) return { fields: [], bytes: '' }
  const content = random.pick(CONTENTS)
  if (kind < 80 && random.chance(0.45))
    return { fields: [`Content-Length: ${content.length}`], bytes: content }
  if (kind < 85) return { fields: ['Transfer-Encoding: chunked'], bytes: chunks(random, content) }
  if (kind < 90) return { fields: [lengthField(random, content)], bytes: content }
  if (kind < 94) return { fields: [codingField(random)], bytes: chunks(random, content) }
  return doubled(random, content)
}

function lengthField(random: SeededRandom, content: string): string {
  const name = random.chance(0.2) ? spelt(random, 'Content-Length') : 'Content-Length'
  const off = random.pick([-1, 1, 2, 7, -content.length, 30])
  const value = random.chance(0.4)
    ? `${Math.max(0, content.length + off)}`
    : random.pick(LENGTHS).replaceAll('N', String(content.length))
  return line(random, name, value)
}

function codingField(random: SeededRandom): string {
  const name = random.chance(0.25) ? spelt(random, 'Transfer-Encoding') : 'Transfer-Encoding'
  return line(random, name, random.pick(CODINGS))
}

/** Two fields that frame one body, in any order. */
function doubled(random: SeededRandom, content: string): FuzzBody {
  const body = random.chance(0.5) ? content : chunks(random, content)
  const exact = `Content-Length: ${random.pick([body.length, content.length, 0])}`
  const one = random.chance(0.5) ? 'Transfer-Encoding: chunked' : codingField(random)
  const two = random.chance(0.6) ? exact : lengthField(random, body)
  const twice = random.pick([
    [one, two],
    [two, one],
    [one, one],
    [two, two],
    [exact, two],
    [one, codingField(random)],
  ])
  return { fields: twice, bytes: body }
}

const SIZES = [
  'S',
  'S',
  'S',
  'S',
  'S',
  '0S',
  '000S',
  'S ',
  ' S',
  '0xS',
  '+S',
  '-S',
  'S_',
  '',
  'S\t',
  'Sg',
  'S.0',
  '0000000000000000S',
]
const EXTENSIONS = [
  ...[
    ';a',
    ';a=b',
    ';a="b;c"',
    ' ; a = b',
    ';',
    ';;',
    ';a=',
    ';=b',
    ';a="',
    ';a="\\""',
    ';\xe9',
    ';a\nb',
    ';a\rb',
    ';a\0',
    ' x',
  ],
  ...[
    ';a="b\r\nc"',
    ';a=b c',
    `;${'a'.repeat(3_000)}`,
    ';a="\xff"',
    ';a\t=b',
    ',a',
    ';"a"=b',
    ';a=b;c;d="e"',
    ';a=b ',
    ';a\x7f',
  ],
]
const ENDS = ['\n', '\r', '\r\r\n', '\n\r', '', ' \r\n', '\r\n\r\n', '\0\r\n']
const TRAILERS = [
  ...[
    'X-Probe: 1',
    'Authorization: Bearer evil',
    'Content-Length: 5',
    'Host: evil.test',
    'X-Probe',
    'Transfer-Encoding: chunked',
  ],
  ...[
    'X-Probe : 1',
    ' X: 1',
    'X-Probe: 1\n',
    'X-Forwarded-For: 6.6.6.6',
    ': x',
    'X-Probe: \0',
    'Cookie: {cookie}',
    'GET / HTTP/1.1',
  ],
]

/** A chunked body, with a fault here and there. */
export function chunks(random: SeededRandom, content: string): string {
  const fault = random.chance(0.45) ? random.between(0.05, 0.5) : 0
  const end = () => (random.chance(fault / 4) ? random.pick(ENDS) : '\r\n')
  let bytes = ''
  for (let at = 0; at < content.length; ) {
    const data = content.slice(at, at + 1 + Math.floor(random.between(0, content.length)))
    at += data.length
    const size = random.chance(0.3) ? data.length.toString(16).toUpperCase() : data.length.toString(16)
    const written = random.chance(fault / 3) ? random.pick(SIZES).replace('S', size) : size
    const extension = random.chance(fault) ? random.pick(EXTENSIONS) : ''
    const wrong = random.chance(fault / 5) ? random.pick([data.slice(1), `${data}x`, `${data}\r\n`]) : data
    bytes += written + extension + end() + wrong + end()
  }
  const last = random.chance(fault / 3)
    ? random.pick(['00', '0x0', '-0', '', '0 ', '00000000000000000', '0;a=b', '0;'])
    : '0'
  const trailers = random.chance(0.1) ? random.pick(TRAILERS) + end() : ''
  return bytes + last + end() + trailers + end()
}
