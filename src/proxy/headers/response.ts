import type { RouteConfig } from '../../config/config.ts'
import { droppedFromResponses, isForSharedCaches, removeNamed, setsOwnCookie } from './dropped.ts'
import { compileReverseMapping, type ReverseMapping } from './location.ts'
import type { Site } from './request.ts'

/** What the response of a route's upstream becomes for the browser; `isAuthenticated` when it was asked for a session. */
export type ResponseHeaders = (
  route: RouteConfig,
  raw: readonly string[],
  isAuthenticated: boolean,
) => string[]

/** The rules of one route. */
type ResponseRules = {
  readonly mapping: ReverseMapping
  /** What tells one caller, who may get another answer, from the next; empty where nobody looks. */
  readonly varies: readonly string[]
}

/** A field that is looked at: its name folded, and both as they came. */
type ReviewedField = { readonly folded: string; readonly name: string; readonly value: string }

/** Schemes that make a browser open its own sign-in dialog, which would ask for a password of another system. */
const DIALOG_SCHEMES = /(?:^|,)\s*(?:basic|digest|negotiate|ntlm)(?:[\s,]|$)/i

const OF_ANYBODY: readonly string[] = []
const OF_SESSION = ['Cookie']
const OF_SESSION_OR_BEARER = ['Cookie', 'Authorization']

/** Compiles the response headers of all routes of one configuration. */
export function compileResponseHeaders(
  routes: readonly RouteConfig[],
  { publicUrl, isOwnCookie }: Site,
): ResponseHeaders {
  const dropped = droppedFromResponses()
  const rulesOf = new Map<RouteConfig, ResponseRules>()
  for (const route of routes) {
    const mapping = compileReverseMapping(route, publicUrl)
    const varies = route.auth === 'anonymous' ? OF_ANYBODY : route.bearer ? OF_SESSION_OR_BEARER : OF_SESSION
    rulesOf.set(route, { mapping, varies })
  }

  /** Of fields that cross under conditions only. */
  function addReviewed(
    fields: string[],
    { folded, name, value }: ReviewedField,
    { mapping, isAuthenticated }: { mapping: ReverseMapping; isAuthenticated: boolean },
  ): void {
    if (folded === 'set-cookie') {
      if (!setsOwnCookie(value, isOwnCookie)) fields.push(name, mapping.cookie(value))
    } else if (folded === 'location' || folded === 'link' || folded === 'refresh') {
      fields.push(name, mapping[folded](value))
    } else if (folded === 'content-location') {
      fields.push(name, mapping.reference(value))
    } else if (folded === 'www-authenticate') {
      fields.push(DIALOG_SCHEMES.test(value) ? 'x-upstream-www-authenticate' : name, value)
    } else if (folded === 'cache-control' || (isForSharedCaches(folded) && !isAuthenticated)) {
      fields.push(name, value)
    }
  }

  return function responseHeaders(route, raw, isAuthenticated) {
    const { mapping, varies } = rulesOf.get(route)!
    const fields: string[] = []
    let connection = ''
    let cacheControlAt: number | undefined
    for (let i = 0; i < raw.length; i += 2) {
      const name = raw[i]!
      const value = raw[i + 1]!
      const folded = dropped.find(name)
      if (folded === undefined) fields.push(name, value)
      else if (folded === 'connection') connection += `,${value}`
      else if (folded === 'cache-control' && isAuthenticated && name.toLowerCase() === folded) {
        if (cacheControlAt === undefined) cacheControlAt = fields.push(name, value) - 1
        else fields[cacheControlAt] += `,${value}`
      } else addReviewed(fields, { folded, name, value }, { mapping, isAuthenticated })
    }
    if (isAuthenticated) makePrivate(fields, cacheControlAt)
    const named = removeNamed(fields, connection)
    if (isAuthenticated && named.has('cache-control')) fields.push('cache-control', 'private')
    // The upstream tells users apart by `Authorization`; a cache on our side sees only the cookie. Without this, the next
    // user of a browser is shown what the previous one was sent.
    if (varies.length > 0) addVary(fields, varies)
    return fields
  }
}

/** A shared cache sees no `Authorization` on our side, so RFC 9111 §3.5 would not hold it back. */
function makePrivate(fields: string[], cacheControlAt: number | undefined): void {
  if (cacheControlAt === undefined) fields.push('cache-control', 'private')
  else fields[cacheControlAt] = privateCacheControl(fields[cacheControlAt]!) ?? 'private'
}

/** Characters of a `Cache-Control` value that are read; a longer one becomes `no-store`. */
const MAX_CACHE_CONTROL = 1_024
/** Commas within a quoted string separate nothing (RFC 9110 §5.6.4). */
const DIRECTIVE = /(?:[^,"]|"(?:[^"\\]|\\.)*")+/g
/** What lets a shared cache keep the answer. A `private` with field names is about these alone (RFC 9111 §5.2.2.7). */
const SHARED = /^(?:(?:public|s-maxage)\s*(?:=|$)|private\s*=)/i
const PRIVATE = /^(?:private|no-store)$/i

/**
 * A `Cache-Control` value under which no shared cache keeps the answer to one user for another; undefined when the value
 * has no directive. RFC 9111 §3.5 protects only answers to requests with `Authorization`, and ours come with a cookie.
 */
function privateCacheControl(value: string): string | undefined {
  if (value.length > MAX_CACHE_CONTROL) return 'no-store'
  const directives = (value.match(DIRECTIVE) ?? []).map((directive) => directive.trim()).filter(Boolean)
  if (directives.length === 0) return undefined
  const kept = directives.filter((directive) => !SHARED.test(directive))
  if (!kept.some((directive) => PRIVATE.test(directive))) kept.push('private')
  else if (kept.length === directives.length && !value.includes('"')) return value
  return kept.join(', ')
}

/**
 * Adds names to the `Vary` of a flat list of fields, as members of the upstream's own list where it has one. `*` covers
 * every name, and must stand alone for the caches that look for that one character (RFC 9110 §12.5.5).
 */
export function addVary(fields: string[], names: readonly string[]): void {
  let known = ''
  let last: number | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i]!.length !== 4 || fields[i]!.toLowerCase() !== 'vary') continue
    last = i + 1
    known += `,${fields[last]}`
  }
  if (last === undefined) {
    fields.push('vary', names.length === 1 ? names[0]! : names.join(', '))
    return
  }
  const members = known.split(',').map((member) => member.trim().toLowerCase())
  if (members.includes('*')) return
  const missing = names.filter((name) => !members.includes(name.toLowerCase())).join(', ')
  if (missing !== '') fields[last] = fields[last]!.trim() === '' ? missing : `${fields[last]}, ${missing}`
}
