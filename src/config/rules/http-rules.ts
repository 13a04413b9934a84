import type { Rule } from './rule.ts'

/** An HTTP method, upper-cased (RFC 9110 §9.1). */
export const METHOD: Rule<string> = {
  must: 'must be an HTTP method',
  example: 'GET',
  parse: (text) => {
    const method = text.toUpperCase()
    return isToken(method) && method !== 'CONNECT' && method !== 'TRACE' ? method : undefined
  },
  because: (text) =>
    /^(connect|trace)$/i.test(text) ? 'must not be CONNECT or TRACE: a proxy cannot pass them on' : undefined,
}

/** A cookie's name (RFC 6265 §4.1.1: a token). */
export const COOKIE_NAME: Rule<string> = {
  must: 'must be a cookie name: letters, digits, "-", "_" and "."',
  example: '__Host-Http-cloakroom',
  parse: (text) => (/^[\w.-]{1,100}$/.test(text) ? text : undefined),
}

/** The first part of every Redis key. Braces would make a hash tag and put every session on one cluster node. */
export const KEY_PREFIX: Rule<string> = {
  must: 'must be letters, digits, "-", "_", "." and ":"',
  example: 'cloakroom',
  parse: (text) => (/^[\w.:-]{1,100}$/.test(text) ? text : undefined),
}

/** A route's label in metrics and logs. */
export const ROUTE_ID: Rule<string> = {
  must: 'must be at most 100 printable characters without blanks',
  example: 'orders',
  parse: (text) => (/^[\x21-\x7e]{1,100}$/.test(text) ? text : undefined),
}

/** The name of a resource, which routes refer to. */
export const RESOURCE_NAME: Rule<string> = {
  must: 'must be a name of letters, digits, "-", "_" and "."',
  example: 'orders',
  parse: (text) => (/^[A-Za-z0-9][\w.-]{0,99}$/.test(text) ? text : undefined),
}

// RFC 9110 §7.6.1 and §7.8 (hop by hop), and what Cloakroom decides itself for every request.
const RESERVED_HEADERS = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'authorization',
  'cookie',
  'set-cookie',
  'host',
  'content-length',
  'expect',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
])

/** The name of a header that the operator adds, in lower case. */
export const HEADER_NAME: Rule<string> = {
  must: 'must be a header name',
  example: 'x-user-id',
  parse: (text) => {
    const name = text.toLowerCase()
    return isToken(name) && !RESERVED_HEADERS.has(name) ? name : undefined
  },
  because: (text) =>
    RESERVED_HEADERS.has(text.toLowerCase())
      ? 'must be another header: the proxy sets or drops this one itself'
      : undefined,
}

/** A header's value: visible ASCII, in which `{claims.NAME}` is the only placeholder. */
export const HEADER_VALUE: Rule<string> = {
  must: 'must be one line of text with placeholders of the form {claims.NAME}',
  example: '"{claims.sub}"',
  parse: (text) => (isFieldValue(text) && !hasOtherBraces(text) ? text : undefined),
  because: (text) =>
    isFieldValue(text)
      ? 'must have {claims.NAME} as its only placeholder, and no other "{" or "}"'
      : 'must be one line of visible ASCII characters without blanks around it',
}

/** The request of one route test: `METHOD /path?query`. */
export const REQUEST_LINE: Rule<{ method: string; target: string }> = {
  must: 'must be a method and a path',
  example: 'GET /api/orders/42?x=1',
  parse: (text) => {
    const [, method = '', target = ''] = /^(\S+) (\/[\x21-\x7e]*)$/.exec(text) ?? []
    return isToken(method) ? { method: method.toUpperCase(), target } : undefined
  },
}

/** True when the text holds a `{claims.NAME}` placeholder. */
export function usesClaims(value: string): boolean {
  return /\{claims\.[^{}\s]+\}/.test(value)
}

/** RFC 9110 §5.6.2. */
function isToken(text: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(text)
}

/** RFC 9110 §5.5: a line break here would let a template write further headers. */
function isFieldValue(text: string): boolean {
  return /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text)
}

function hasOtherBraces(text: string): boolean {
  return /[{}]/.test(text.replaceAll(/\{claims\.[^{}\s]+\}/g, ''))
}
