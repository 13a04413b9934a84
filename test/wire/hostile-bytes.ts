/** One hostile request as it goes over the wire. */
export type HostileRequest = {
  readonly name: string
  /** One character a byte. `{id}` stands for four characters that name the request, `{cookie}` for a signed-in visitor's cookies. */
  readonly bytes: string
  /** It is unusual and nothing else: it must arrive. */
  readonly isFair?: boolean
  /** The bytes are two requests by any reading of RFC 9112. */
  readonly isPair?: boolean
  /** The client goes away after the last byte, with its request unfinished. */
  readonly leaves?: boolean
}

/** The name of the site, as every one of them says it. */
export const HOST = 'app.example.test'

/** The fields of every request that is not about these fields. */
export const SITE: readonly string[] = [`Host: ${HOST}`, 'X-Request-Id: {id}']
export const CHUNKED = 'Transfer-Encoding: chunked'
/** A chunked body of five bytes. */
export const ONE_CHUNK = '5\r\nhello\r\n0\r\n\r\n'
/** A whole request, to be put where it should not be taken for one. */
export const SECOND = `GET /smuggled HTTP/1.1\r\nHost: ${HOST}\r\nX-Request-Id: 2{id}\r\n\r\n`
/** The whole second request as one chunk, and the last chunk. */
export const SECOND_IN_CHUNKS = `${SECOND.length.toString(16)}\r\n${SECOND}\r\n0\r\n\r\n`

/** The head of a message. */
export function lines(...all: string[]): string {
  return `${all.join('\r\n')}\r\n\r\n`
}

/** A GET without a body. */
export function get(target: string, ...fields: string[]): string {
  return lines(`GET ${target} HTTP/1.1`, ...SITE, ...fields)
}

/** A POST, to the path where requests may begin and never become whole. */
export function post(fields: readonly string[], body: string, target = '/streamed'): string {
  return lines(`POST ${target} HTTP/1.1`, ...SITE, ...fields) + body
}

/** What a signed-in visitor's script sends. */
export function signedIn(line: string, ...fields: string[]): string {
  return lines(line, ...SITE, 'Cookie: {cookie}', 'X-CSRF: 1', ...fields)
}

/** A name to read in a report: what is not printable as an escape, and the end of what is long left out. */
export function shown(text: string): string {
  const printable = JSON.stringify(text).slice(1, -1)
  return printable.length > 60 ? `${printable.slice(0, 40)}... (${text.length})` : printable
}
