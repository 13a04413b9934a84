import { hash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { BffError } from '../../errors.ts'
import { requireNoTokenQuery } from '../access-token.ts'

/** What the client offers in its handshake: the upstream may choose nothing else (RFC 6455 §4.1). */
export type Offer = {
  /** `Sec-WebSocket-Key`. */
  readonly key: string
  readonly protocols: readonly string[]
  /** Names without their parameters. */
  readonly extensions: readonly string[]
}

/**
 * Returns what the client offers. Throws `bad_request` unless the request is a WebSocket opening handshake (RFC 6455
 * §4.2.1), so that h2c and other protocols get no tunnel. With `sendsToken`, because the route adds an access token, it
 * also throws when the client brings one of its own.
 */
export function requireHandshake(req: IncomingMessage, { sendsToken }: { sendsToken: boolean }): Offer {
  const { method, httpVersion, headers } = req
  const key = headers['sec-websocket-key'] ?? ''
  const isHandshake =
    method === 'GET' &&
    httpVersion === '1.1' &&
    headers.upgrade?.toLowerCase() === 'websocket' &&
    /^[A-Za-z0-9+/]{22}==$/.test(key)
  if (!isHandshake) throw refused('not a WebSocket handshake')
  if (headers['sec-websocket-version'] !== '13')
    throw refused('only version 13 of the WebSocket protocol is served')
  const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0
  if (hasBody) throw refused('a WebSocket handshake has no body')
  // RFC 9110 §7.6.1: the fields that it names must not be forwarded, and the upstream would see another handshake.
  if (listOf(headers.connection).some((option) => lettersOf(option).startsWith('secwebsocket')))
    throw refused('Connection names a field of the handshake')
  const protocols = listOf(headers['sec-websocket-protocol'])
  if (sendsToken && protocols.some(carriesToken))
    throw refused('this route takes no token from the client: Cloakroom sends its own')
  if (sendsToken) requireNoTokenQuery(req.url ?? '')
  return { key, protocols, extensions: extensionNames(headers['sec-websocket-extensions']) }
}

/**
 * Whether a 101 answers this handshake (RFC 6455 §4.1). With the answer to another key it may be another user's, from
 * a cache. A browser fails the connection when a protocol or extension was not offered.
 */
export function isAccepted({ key, protocols, extensions }: Offer, { headers }: IncomingMessage): boolean {
  const accept = hash('sha1', `${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`, 'base64')
  const protocol = headers['sec-websocket-protocol']
  return (
    headers.upgrade?.toLowerCase() === 'websocket' &&
    headers['sec-websocket-accept'] === accept &&
    (protocol === undefined || protocols.includes(protocol)) &&
    extensionNames(headers['sec-websocket-extensions']).every((name) => extensions.includes(name))
  )
}

/** The fields of a handshake: each name by its letters and digits alone. */
const SPELLINGS = new Map(
  [
    'connection',
    'upgrade',
    'sec-websocket-key',
    'sec-websocket-version',
    'sec-websocket-protocol',
    'sec-websocket-extensions',
    'sec-websocket-accept',
  ].map((name) => [lettersOf(name), name]),
)

/**
 * Drops from a flat list the fields whose names only look like those of a handshake. A server that takes
 * `Sec_WebSocket_Protocol` or `Up_grade` for the real one would agree to something that was not checked.
 */
export function withoutLookalikes(fields: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase()
    const spelling = SPELLINGS.get(lettersOf(name))
    if (spelling === undefined || spelling === name) kept.push(fields[i]!, fields[i + 1]!)
  }
  return kept
}

function lettersOf(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]/g, '')
}

/** Whether a subprotocol is used to bring a token, as a name or as the token itself: browsers cannot set `Authorization`. */
function carriesToken(protocol: string): boolean {
  return /^(?:bearer|access[_-]?token|authorization)(?![a-z0-9-])|\bbearer\.authorization\b|^ey[\w-]+\.[\w-]+\./i.test(
    protocol,
  )
}

function extensionNames(field: string | undefined): string[] {
  return listOf(field).map((extension) => extension.split(';')[0]!.trim().toLowerCase())
}

function listOf(field: string | undefined): string[] {
  return (field ?? '').split(',').flatMap((item) => item.trim() || [])
}

function refused(why: string): BffError {
  // RFC 6455 §4.4: the answer names the version that is served.
  return new BffError('bad_request', why, { headers: { 'sec-websocket-version': '13' } })
}
