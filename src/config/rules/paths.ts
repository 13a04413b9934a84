import type { Rule } from './rule.ts'

/** A route's path prefix, canonical and without a trailing slash. */
export const ROUTE_PATH: Rule<string> = pathRule('/api/orders')

/** What replaces the matched prefix. */
export const REWRITE_PATH: Rule<string> = pathRule('/v1')

/** Where Cloakroom's own endpoints live. */
export const BASE_PATH: Rule<string> = {
  ...pathRule('/bff'),
  parse: (text) => {
    const path = canonicalPath(text)
    return path === '/' ? undefined : path
  },
  because: (text) => (text === '/' ? 'must not be the root: it would take every path' : pathReason(text)),
}

/** True when `path` is `prefix` or below it, at a segment boundary. */
export function isAtOrBelow(path: string, prefix: string): boolean {
  return path === prefix || prefix === '/' || path.startsWith(`${prefix}/`)
}

function pathRule(example: string): Rule<string> {
  return {
    must: 'must be a canonical absolute path',
    example,
    parse: canonicalPath,
    because: pathReason,
  }
}

// RFC 3986 §3.3 pchar without ";" (path parameters: read differently by different servers) and "*" (means a wildcard to most people).
const SEGMENTS = /^(?:\/(?:[A-Za-z0-9._~!$&'()+,=:@-]|%[0-9A-F]{2})*)+$/

/** The path without its trailing slash, or undefined when two servers might read it differently. */
function canonicalPath(text: string): string | undefined {
  if (!SEGMENTS.test(text) || pathReason(text) !== undefined) return undefined
  return text === '/' ? text : text.replace(/\/$/, '')
}

function pathReason(text: string): string | undefined {
  if (!text.startsWith('/')) return 'must start with "/"'
  if (/[*{}]|\/:/.test(text))
    return 'must be a plain prefix, not a pattern: it matches everything below it anyway'
  if (/[?#]/.test(text)) return 'must be a path alone, without "?" or "#"'
  if (text.includes('\\')) return 'must not contain a backslash'
  if (text.includes(';')) return 'must not contain ";" (servers disagree about path parameters)'
  if (text.includes('//')) return 'must not contain "//"'
  if (/\/\.{1,2}(?:\/|$)/.test(text)) return 'must not contain "." or ".." segments'
  return percentReason(text)
}

/** RFC 3986 §6.2.2: what may stand as itself must, or one path would have two spellings. */
function percentReason(text: string): string | undefined {
  for (const [, code = ''] of text.matchAll(/%(.{0,2})/gs)) {
    if (!/^[0-9A-F]{2}$/.test(code)) {
      return 'must write every percent-encoding as % and two upper-case hexadecimal digits'
    }
    const codePoint = Number.parseInt(code, 16)
    const character = String.fromCharCode(codePoint)
    if (/[A-Za-z0-9._~-]/.test(character)) return `must write %${code} as the character "${character}"`
    const isControl = codePoint < 0x20 || codePoint === 0x7f
    if (isControl || '/\\%;?#'.includes(character))
      return `must not contain %${code} (servers disagree about it)`
  }
  return undefined
}
