import { type SeededRandom, seededRandom } from '../chaos/seeded-random.ts'
import { fuzzBody } from './fuzz-bodies.ts'
import { fuzzField, usualFields } from './fuzz-fields.ts'
import { firstLine, fuzzMethod } from './fuzz-first-lines.ts'
import { HOST } from './hostile-bytes.ts'

/** What a client sends on one connection. */
export type FuzzCase = {
  /** One character a byte; `{cookie}` stands for a signed-in visitor's cookies. */
  readonly bytes: string
  /** Where one write ends and the next begins, ascending. */
  readonly cuts: readonly number[]
}

/** Stands for the cookies, which are new with each run. */
export const COOKIE = '{cookie}'

const UPGRADE = [
  ...[
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ],
  `Origin: https://${HOST}`,
]

/** The cases of a seed, one after the other, the same again each time. */
export function fuzzCases(seed: number): () => FuzzCase {
  const random = seededRandom(seed)
  return () => fuzzCase(random)
}

function fuzzCase(random: SeededRandom): FuzzCase {
  const count = 1 + Math.floor(random.between(0, 1) ** 2 * 3)
  let bytes = ''
  for (let i = 0; i < count; i += 1) bytes += fuzzRequest(random)
  if (random.chance(0.9)) bytes += `GET /last HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`
  const wounds = random.chance(0.4) ? 1 + Math.floor(random.between(0, 3)) : 0
  for (let i = 0; i < wounds; i += 1) bytes = wound(random, bytes)
  return { bytes, cuts: cutsOf(random, bytes) }
}

function fuzzRequest(random: SeededRandom): string {
  const method = fuzzMethod(random)
  const { fields, bytes } = fuzzBody(random, method)
  const all = [...usualFields(random), ...fields]
  const more = random.chance(0.5) ? Math.floor(random.between(0, 5)) : 0
  for (let i = 0; i < more; i += 1) all.splice(random.between(0, all.length + 1), 0, fuzzField(random))
  if (random.chance(0.02)) all.push(...UPGRADE)
  if (random.chance(0.3)) all.sort(() => random.between(-1, 1))
  if (random.chance(0.004)) all.push(...Array.from({ length: 120 }, (_, i) => `X-Many-${i}: ${i}`))
  if (random.chance(0.004)) all.push(`X-Long: ${'a'.repeat(40_000)}`)
  const end = random.chance(0.02) ? random.pick(['\n', '\r', '\r\r\n', '\r\n\r\n', '']) : '\r\n'
  const before = random.chance(0.05) ? random.pick(['\r\n', '\r\n\r\n', '\n', '\r', ' ', '\0', 'x\r\n']) : ''
  return `${before}${firstLine(random, method)}\r\n${all.join('\r\n')}\r\n${end}${bytes}`
}

const SHARDS = [
  ...[
    '\r',
    '\n',
    '\r\n',
    '\0',
    ' ',
    '\t',
    ':',
    ',',
    ';',
    '=',
    '\xff',
    '\x85',
    '\xa0',
    '\x0b',
    '\x0c',
    '\x7f',
    '0',
    'a',
    '-',
    '_',
    '"',
  ],
  ...[
    '\r\n ',
    '\r\n\r\n',
    '\n\n',
    'Content-Length: 1\r\n',
    'Transfer-Encoding: chunked\r\n',
    'Connection: close\r\n',
    '%',
    '/',
    '\\',
  ],
  ...[
    '\r\nContent-Length: 0',
    `\r\nHost: ${HOST}`,
    '\r\nAuthorization: Bearer evil',
    'HTTP/1.1',
    ' HTTP/1.1\r\n',
    '\x1b',
    '\xc2\xad',
  ],
]

/** One change anywhere, as a fault of a program or an attacker would make it. */
function wound(random: SeededRandom, bytes: string): string {
  const at = Math.floor(random.between(0, bytes.length))
  const kind = random.between(0, 10)
  if (kind < 2) return bytes.slice(0, at) + bytes.slice(at + 1)
  if (kind < 4.5) return bytes.slice(0, at) + random.pick(SHARDS) + bytes.slice(at)
  if (kind < 6.5) return bytes.slice(0, at) + random.pick(SHARDS) + bytes.slice(at + 1)
  if (kind < 7) return bytes.slice(0, at) + String.fromCharCode(random.between(0, 256)) + bytes.slice(at + 1)
  if (kind < 7.7) return bytes.slice(0, at)
  const lines = bytes.split('\r\n')
  const here = Math.floor(random.between(0, lines.length))
  if (kind < 8.5) lines.splice(here, 1)
  else if (kind < 9.3) lines.splice(random.between(0, lines.length), 0, lines[here]!)
  else lines.splice(random.between(0, lines.length), 0, ...lines.splice(here, 1))
  return lines.join('\r\n')
}

function cutsOf(random: SeededRandom, bytes: string): number[] {
  if (random.chance(0.6)) return []
  const ends = [...bytes.matchAll(/\r|\n|:/g)].map(({ index }) => index)
  const cuts = new Set<number>()
  const count = 1 + Math.floor(random.between(0, 5))
  for (let i = 0; i < count; i += 1) {
    const anywhere = Math.floor(random.between(1, Math.max(2, bytes.length)))
    cuts.add(
      random.chance(0.5) && ends.length > 0 ? random.pick(ends) + (random.chance(0.5) ? 1 : 0) : anywhere,
    )
  }
  return [...cuts].filter((cut) => cut > 0 && cut < bytes.length).sort((a, b) => a - b)
}
