/** One request by the strictest reading of RFC 9112; all texts are Latin-1, one character for each byte. */
export type StrictRequest = {
  readonly method: string
  readonly target: string
  readonly isHttp10: boolean
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** Decoded from its transfer coding. */
  readonly body: string
  /** It has chunk extensions, trailers, or blanks behind a transfer coding: well-formed, and often refused. */
  readonly hasAddenda: boolean
  /** Every byte of it: from where to where in what was read. */
  readonly from: number
  readonly to: number
}

/** What one connection says by the strictest reading. */
export type StrictReading = {
  /** Whole requests in order, up to the first that no recipient may guess at. */
  readonly requests: readonly StrictRequest[]
  /**
   * Where the reading ended: at the last byte, in the middle of a request, at bytes that are no request, or at a
   * request after which the connection serves none.
   */
  readonly end: 'whole' | 'incomplete' | 'fault' | 'closed'
  /** What is wrong with the bytes, for `fault`. */
  readonly why?: string
  /** Where the request begins that is not whole or no request. */
  readonly at: number
  /** The one whose head is well-formed and whose body is not, or not whole; without its body. */
  readonly half?: StrictRequest
}

class Fault extends Error {}
class Incomplete extends Error {}

/**
 * RFC 9112 §3 has one space at each place and no other protocol. Node's parser takes more spaces, and for the sake of RTSP
 * and Icecast their names with some methods, without a word about it; the meaning is the same for everybody.
 */
const REQUEST_LINE = /^([^ ]+) +([^ ]+) +(?:HTTP|(?<!^HEAD .*)(?:RTSP|ICE))\/1\.([01])$/
/** A head that is longer need not be read by anybody. */
const MOST_HEAD_BYTES = 32_768
const ABSOLUTE_FORM = /^https?:\/\/[A-Za-z0-9._~:@[\]%!$&'()*+,;=-]*(?:[/?].*)?$/i
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::\d*)?$/
/** RFC 9112 §7.1.1 has a grammar for what stands behind the size; but whoever skips it, skips it to the end of the line. */
const EXTENSIONS = /^(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?$/

/** Reads all requests of a connection. Nothing is guessed: what two recipients may read differently is a fault. */
export function readStrictly(bytes: string): StrictReading {
  const requests: StrictRequest[] = []
  let at = 0
  for (;;) {
    // RFC 9112 §2.2: empty lines before a request line mean nothing. Node's parser passes over half of one too, and as
    // nothing stands in it, nobody can read it as anything.
    while (bytes[at] === '\r' || bytes[at] === '\n') at += 1
    if (at >= bytes.length) return { requests, end: 'whole', at }
    let half: StrictRequest | undefined
    try {
      half = readHead(bytes, at)
      const request = { ...half, ...readBody(bytes, half.to, half) }
      requests.push(request)
      at = request.to
      if (isLast(request)) return { requests, end: 'closed', at }
    } catch (error) {
      const rest = half ? { at, half } : { at }
      if (error instanceof Incomplete) return { requests, end: 'incomplete', ...rest }
      if (error instanceof Fault) return { requests, end: 'fault', why: error.message, ...rest }
      throw error
    }
  }
}

/** The values of all fields of a name, in lower case, by the spelling that HTTP gives it. */
export function valuesOf({ fields }: Pick<StrictRequest, 'fields'>, name: string): string[] {
  return fields.filter(([one]) => one.toLowerCase() === name).map(([, value]) => value)
}

/** The members of a list field, in lower case. */
export function listOf(request: Pick<StrictRequest, 'fields'>, name: string): string[] {
  const members = valuesOf(request, name).flatMap((value) => value.split(','))
  return members
    .map((member) => member.replace(/^[ \t]+|[ \t]+$/g, '').toLowerCase())
    .filter((one) => one !== '')
}

function isLast(request: StrictRequest): boolean {
  const options = listOf(request, 'connection')
  return options.includes('close') || (request.isHttp10 && !options.includes('keep-alive'))
}

function readHead(bytes: string, from: number): StrictRequest {
  const first = readLine(bytes, from)
  const [, method, target, version] = REQUEST_LINE.exec(first.line) ?? []
  if (method === undefined || target === undefined) throw new Fault('request line')
  if (!TOKEN.test(method)) throw new Fault('method')
  // RFC 3986 knows fewer characters; but nobody splits a line at the rest of what is printable.
  if (!/^[\x21-\x7e]+$/.test(target) || !isTarget(method, target)) throw new Fault('request target')
  const head = readFields(bytes, first.next)
  if (head.next - from > MOST_HEAD_BYTES) throw new Fault('size')
  const isHttp10 = version === '0'
  requireHost(head.fields, isHttp10)
  return { method, target, isHttp10, fields: head.fields, body: '', hasAddenda: false, from, to: head.next }
}

/** The four forms of RFC 9112 §3.2. */
function isTarget(method: string, target: string): boolean {
  if (method === 'CONNECT') return /^[^/]+:\d+$/.test(target)
  return target.startsWith('/') || ABSOLUTE_FORM.test(target) || (target === '*' && method === 'OPTIONS')
}

function requireHost(fields: StrictRequest['fields'], isHttp10: boolean): void {
  const hosts = valuesOf({ fields }, 'host')
  if (hosts.length > 1 || (hosts.length === 0 && !isHttp10)) throw new Fault('number of hosts')
  if (hosts.length === 1 && !HOST.test(hosts[0]!)) throw new Fault('host')
}

function readFields(bytes: string, from: number): { fields: [string, string][]; next: number } {
  const fields: [string, string][] = []
  for (let at = from; ; ) {
    const { line, next } = readLine(bytes, at)
    at = next
    if (line === '') return { fields, next }
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(colon, 0))
    const value = line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '')
    if (!TOKEN.test(name) || !VALUE.test(value)) throw new Fault('field line')
    fields.push([name, value])
  }
}

type Body = Pick<StrictRequest, 'body' | 'hasAddenda' | 'to'>

function readBody(bytes: string, from: number, head: StrictRequest): Body {
  const codings = valuesOf(head, 'transfer-encoding')
  const lengths = valuesOf(head, 'content-length')
  if (codings.length + lengths.length > 1) throw new Fault('more than one framing')
  if (codings.length === 1) {
    if (head.isHttp10 || codings[0]!.toLowerCase() !== 'chunked') throw new Fault('transfer coding')
    const isPadded = /\r\ntransfer-encoding:[^\r]*[ \t]\r/i.test(bytes.slice(head.from, from))
    const body = readChunks(bytes, from)
    return { ...body, hasAddenda: body.hasAddenda || isPadded }
  }
  if (lengths.length === 0) return { body: '', hasAddenda: false, to: from }
  if (!/^\d{1,15}$/.test(lengths[0]!)) throw new Fault('content length')
  const to = from + Number(lengths[0])
  if (to > bytes.length) throw new Incomplete()
  return { body: bytes.slice(from, to), hasAddenda: false, to }
}

function readChunks(bytes: string, from: number): Body {
  let body = ''
  let hasAddenda = false
  for (let at = from; ; ) {
    const { line, next } = readLine(bytes, at)
    const [, digits, extensions = ''] = /^0*([0-9A-Fa-f]{1,13})(.*)$/s.exec(line) ?? []
    if (digits === undefined || !EXTENSIONS.test(extensions)) throw new Fault('chunk size')
    hasAddenda ||= extensions !== ''
    const size = Number.parseInt(digits, 16)
    if (size === 0) {
      const trailers = readFields(bytes, next)
      return { body, hasAddenda: hasAddenda || trailers.fields.length > 0, to: trailers.next }
    }
    const end = next + size
    if (!'\r\n'.startsWith(bytes.slice(end, end + 2))) throw new Fault('chunk end')
    if (bytes.length < end + 2) throw new Incomplete()
    body += bytes.slice(next, end)
    at = end + 2
  }
}

/** One line without its CRLF. A CR or LF of its own, or a NUL, is a fault as soon as it is there. */
function readLine(bytes: string, from: number): { line: string; next: number } {
  const end = bytes.indexOf('\r\n', from)
  const line = bytes.slice(from, end === -1 ? bytes.length : end)
  if (/[\n\0]|\r(?!$)/.test(line)) throw new Fault('a bare CR, a bare LF or a NUL')
  if (end === -1) throw new Incomplete()
  if (line.endsWith('\r')) throw new Fault('a bare CR')
  return { line, next: end + 2 }
}
