/** How the end of a message is told (RFC 9112 §6.3). */
export type Framing = 'none' | 'length' | 'chunked' | 'close'

/** One HTTP/1.1 message as it stood on the wire; all texts are Latin-1, one character for each byte. */
export type Message = {
  readonly startLine: string
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** Decoded from its transfer coding. */
  readonly body: string
  readonly framing: Framing
  readonly trailers: readonly string[]
  /** False while bytes of the body are missing. */
  readonly isWhole: boolean
  readonly raw: string
  /** What a strict reader would refuse, and two lenient readers might read differently. */
  readonly faults: readonly string[]
}

export type MessageKind =
  | 'request'
  | 'response'
  /** To a HEAD, or 1xx, 204, 304: no body whatever its fields say. */
  | 'response without body'

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/**
 * Reads the message that begins at `from`, as leniently as a careless server would, and notes every fault; undefined
 * until its head is whole.
 */
export function parseMessage(text: string, from: number, kind: MessageKind): Message | undefined {
  const faults: string[] = []
  const lines: string[] = []
  let at = from
  for (;;) {
    const end = text.indexOf('\n', at)
    if (end === -1) return undefined
    const hasReturn = text[end - 1] === '\r' && end > at
    if (!hasReturn) faults.push('a line that ends in a bare LF')
    const line = text.slice(at, hasReturn ? end - 1 : end)
    at = end + 1
    if (line === '') break
    if (/[\r\0]/.test(line)) faults.push('a CR or NUL within a line')
    lines.push(line)
  }
  const [startLine = '', ...fieldLines] = lines
  const fields = fieldLines.map((line) => parseField(line, faults))
  const framing = framingOf(fields, kind, faults)
  const body = readBody(text, at, { framing, fields, faults })
  return {
    ...{ startLine, fields, framing, faults },
    ...{ body: body.text, trailers: body.trailers, isWhole: body.isWhole },
    raw: text.slice(from, body.end),
  }
}

/** Values of a field, by name without case. */
export function valuesOf({ fields }: Pick<Message, 'fields'>, name: string): string[] {
  return fields.filter(([one]) => one.toLowerCase() === name).map(([, value]) => value)
}

function parseField(line: string, faults: string[]): [string, string] {
  const colon = line.indexOf(':')
  const name = colon === -1 ? line : line.slice(0, colon)
  if (!NAME.test(name)) faults.push(`a field line without a proper name: ${JSON.stringify(line)}`)
  return [name.trim(), colon === -1 ? '' : line.slice(colon + 1).trim()]
}

function framingOf(fields: Message['fields'], kind: MessageKind, faults: string[]): Framing {
  const codings = valuesOf({ fields }, 'transfer-encoding')
  const lengths = valuesOf({ fields }, 'content-length')
  if (codings.length + lengths.length > 1) faults.push('more than one field that frames the body')
  if (codings.some((coding) => coding !== 'chunked')) faults.push(`transfer coding ${codings.join(' | ')}`)
  if (lengths.some((length) => !/^(0|[1-9]\d*)$/.test(length))) faults.push(`length ${lengths.join(' | ')}`)
  if (kind === 'response without body') return 'none'
  if (codings.some((coding) => /chunked/i.test(coding))) return 'chunked'
  if (lengths.length > 0) return 'length'
  return kind === 'request' ? 'none' : 'close'
}

type Body = { text: string; trailers: string[]; isWhole: boolean; end: number }

function readBody(
  text: string,
  from: number,
  { framing, fields, faults }: { framing: Framing; fields: Message['fields']; faults: string[] },
): Body {
  if (framing === 'none') return { text: '', trailers: [], isWhole: true, end: from }
  if (framing === 'chunked') return readChunks(text, from, faults)
  if (framing === 'close') return { text: text.slice(from), trailers: [], isWhole: false, end: text.length }
  const length = Number.parseInt(valuesOf({ fields }, 'content-length')[0] ?? '', 10) || 0
  const end = Math.min(text.length, from + length)
  return { text: text.slice(from, end), trailers: [], isWhole: end === from + length, end }
}

function readChunks(text: string, from: number, faults: string[]): Body {
  let body = ''
  let at = from
  const unfinished = () => ({ text: body, trailers: [], isWhole: false, end: text.length })
  for (;;) {
    const end = text.indexOf('\n', at)
    if (end === -1) return unfinished()
    const line = text.slice(at, end).replace(/\r$/, '')
    if (!/^[0-9A-Fa-f]+$/.test(line)) faults.push(`chunk size ${JSON.stringify(line)}`)
    const size = Number.parseInt(line, 16)
    if (!(size > 0)) return readTrailers(text, end + 1, body)
    const dataEnd = end + 1 + size
    if (text.length < dataEnd + 2) return unfinished()
    body += text.slice(end + 1, dataEnd)
    if (text.slice(dataEnd, dataEnd + 2) !== '\r\n') faults.push('a chunk that does not end where it says')
    at = dataEnd + 2
  }
}

function readTrailers(text: string, from: number, body: string): Body {
  const trailers: string[] = []
  for (let at = from; ; ) {
    const end = text.indexOf('\n', at)
    if (end === -1) return { text: body, trailers, isWhole: false, end: text.length }
    const line = text.slice(at, end).replace(/\r$/, '')
    at = end + 1
    if (line === '') return { text: body, trailers, isWhole: true, end: at }
    trailers.push(line)
  }
}
