import type { TokenChallenge } from '../../tokens/rejected-token.ts'

/** One challenge of a `WWW-Authenticate` field (RFC 9110 §11.3). */
export type Challenge = {
  /** In lower case. */
  readonly scheme: string
  readonly token68?: string
  /** By lower-case name, unquoted; of a name given twice, the first. Has no prototype. */
  readonly params: Readonly<Record<string, string>>
}

/** The first of these that a response has is the one that says most: a plain refresh cures only the last. */
const READERS: readonly ((params: Challenge['params']) => TokenChallenge | undefined)[] = [
  insufficientClaims,
  insufficientUserAuthentication,
  ({ error }) => (error === 'invalid_token' ? { kind: 'invalid_token' } : undefined),
]
const TOKEN_SCHEMES = new Set(['bearer', 'dpop'])

/**
 * What the fields of a 401 have against our token; undefined when they say nothing that another token would cure.
 * No address in them is ever followed.
 */
export function bearerChallenge(fields: readonly string[]): TokenChallenge | undefined {
  const challenges = parseChallenges(fields).filter(({ scheme }) => TOKEN_SCHEMES.has(scheme))
  for (const read of READERS) {
    for (const { params } of challenges) {
      const found = read(params)
      if (found) return found
    }
  }
  return undefined
}

function insufficientClaims({ error, claims }: Challenge['params']): TokenChallenge | undefined {
  const decoded = error === 'insufficient_claims' && claims !== undefined ? decodeClaims(claims) : undefined
  return decoded === undefined ? undefined : { kind: 'insufficient_claims', claims: decoded }
}

/** Bytes of decoded JSON; the recorded ones have less than two hundred. */
const MAX_CLAIMS = 8_192
const BASE64 = /^[A-Za-z0-9+/_-]+={0,2}$/

/** Base64 in either alphabet, padded or not, of a JSON object that asks something of a token (OpenID Connect Core §5.5). */
function decodeClaims(encoded: string): string | undefined {
  if (encoded.length > MAX_CLAIMS * 2 || !BASE64.test(encoded)) return undefined
  const bytes = Buffer.from(encoded, 'base64')
  if (bytes.length > MAX_CLAIMS) return undefined
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    const claims: unknown = JSON.parse(text)
    const asks = isObject(claims) && (isObject(claims.access_token) || isObject(claims.id_token))
    return asks ? text : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const ACR_VALUES = /^[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?$/
const SECONDS = /^\d{1,9}$/

/** RFC 9470 §3: what cannot be read of the two parameters is left out; the user is asked again in any case. */
function insufficientUserAuthentication(params: Challenge['params']): TokenChallenge | undefined {
  if (params.error !== 'insufficient_user_authentication') return undefined
  const { acr_values: acrValues = '', max_age: maxAge = '' } = params
  return {
    kind: 'insufficient_user_authentication',
    ...(ACR_VALUES.test(acrValues) ? { acrValues } : {}),
    ...(SECONDS.test(maxAge) ? { maxAge: Number(maxAge) } : {}),
  }
}

/**
 * Parses the values of all `WWW-Authenticate` fields of a response (RFC 9110 §11.6.1). Never throws: what fits no
 * challenge is passed over up to the next comma. Takes time in proportion to the length of the fields.
 */
export function parseChallenges(fields: readonly string[]): Challenge[] {
  // Each field by itself, so that a quote left open in one does not swallow the next.
  return fields.flatMap(parseField)
}

type Cursor = { readonly text: string; at: number }
type OpenChallenge = { scheme: string; token68?: string; params: Record<string, string> }

// Sticky, and each one class of characters: none can be tried twice at the same place by backtracking.
const SEPARATORS = /[ \t\r\n,]*/y
const BLANKS = /[ \t\r\n]*/y
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const TOKEN68 = /[A-Za-z0-9._~+/-]+/y
const PADDING = /=*/y
/** More than a token: real servers leave URLs and base64 unquoted. */
const UNQUOTED = /[^ \t\r\n,]*/y
const UP_TO_COMMA_OR_QUOTE = /[^,"]*/y

function parseField(text: string): Challenge[] {
  const challenges: OpenChallenge[] = []
  const cursor = { text, at: 0 }
  for (take(cursor, SEPARATORS); cursor.at < text.length; take(cursor, SEPARATORS)) {
    const name = take(cursor, TOKEN).toLowerCase()
    const nameEnd = cursor.at
    take(cursor, BLANKS)
    if (name !== '' && text[cursor.at] === '=') {
      cursor.at++
      const value = takeValue(cursor)
      // A commaless list is no grammar's, but the name decides: only a parameter is followed by "=".
      const params = challenges.at(-1)?.params
      if (params && !(name in params)) params[name] = value
    } else if (name !== '' && (cursor.at > nameEnd || cursor.at === text.length || text[cursor.at] === ',')) {
      const token68 = takeToken68(cursor)
      challenges.push({ scheme: name, ...(token68 && { token68 }), params: Object.create(null) })
    } else skipGarbage(cursor)
  }
  return challenges
}

function take(cursor: Cursor, pattern: RegExp): string {
  pattern.lastIndex = cursor.at
  const found = pattern.exec(cursor.text)?.[0] ?? ''
  cursor.at += found.length
  return found
}

function takeValue(cursor: Cursor): string {
  take(cursor, BLANKS)
  return cursor.text[cursor.at] === '"' ? takeQuoted(cursor) : take(cursor, UNQUOTED)
}

/** RFC 9110 §5.6.4; one that is left open ends with the field. */
function takeQuoted(cursor: Cursor): string {
  const { text } = cursor
  const begin = cursor.at + 1
  let end = begin
  while (end < text.length && text[end] !== '"') end += text[end] === '\\' ? 2 : 1
  cursor.at = end + 1
  return text.slice(begin, end).replace(/\\(.)/gs, '$1')
}

/** What follows a scheme is a token68 only if nothing else follows before the comma: `a=` is one, `a=b` is a parameter. */
function takeToken68(cursor: Cursor): string {
  const begin = cursor.at
  const value = take(cursor, TOKEN68)
  const token68 = value && value + take(cursor, PADDING)
  take(cursor, BLANKS)
  if (cursor.at >= cursor.text.length || cursor.text[cursor.at] === ',') return token68
  cursor.at = begin
  return ''
}

function skipGarbage(cursor: Cursor): void {
  while (cursor.at < cursor.text.length && cursor.text[cursor.at] !== ',') {
    if (cursor.text[cursor.at] === '"') takeQuoted(cursor)
    else take(cursor, UP_TO_COMMA_OR_QUOTE)
  }
}
