import type { RouteConfig } from '../config/config.ts'
import { BffError, SharedRefusal, sharedRefusal } from '../errors.ts'
import { compileDisguises, type IsDisguised } from './stricter-routes.ts'

/** The route of a request and the target for its upstream. */
export type RouteMatch = {
  readonly route: RouteConfig
  /** Origin-form path and query for the upstream, the prefix already rewritten. */
  readonly target: string
}

/** Finds the route of a request; undefined when no route's path matches. Throws `path_rejected`, `method_not_allowed`. */
export type MatchRoute = (method: string, target: string) => RouteMatch | undefined

const ENCODED_SLASH = 'an encoded slash, where no route passes it'
const DISGUISED = 'another spelling of a path that asks for more at the same upstream'

/**
 * Compiles the routes into a lookup: the longest path wins, at segment boundaries, case-sensitive. A path at or below
 * `basePath`, in any spelling, is Cloakroom's own and has no route. A path that the upstream may take for that of a
 * stricter route is refused.
 */
export function compileRoutes(routes: readonly RouteConfig[], basePath?: string): MatchRoute {
  const isOwn = basePath === undefined ? () => false : compileOwnPaths(basePath)
  const byPath = groupByPath(routes)
  const root = byPath.get('/')
  // One look-up for each distinct length, longest first: the cost does not grow with segments or routes.
  const lengths = [...new Set([...byPath.keys()].filter((path) => path !== '/').map((path) => path.length))]
  lengths.sort((a, b) => b - a)

  function findPath(path: string): RoutesOfPath | undefined {
    for (const length of lengths) {
      if (length > path.length || (length < path.length && path.charCodeAt(length) !== SLASH)) continue
      const found = byPath.get(length === path.length ? path : path.slice(0, length))
      if (found) return found
    }
    return root
  }

  return function match(method, target) {
    if (method === 'CONNECT' || method === 'TRACE') throw methodNotAllowed(EVERY_METHOD)
    const canonical = canonicalTarget(target)
    const { path, hasEncodedSlash } = canonical
    const found = findPath(path)
    if (!found || isOwn(path)) {
      if (hasEncodedSlash) throw rejected(ENCODED_SLASH)
      return undefined
    }
    const compiled = found.byMethod.get(method) ?? found.anyMethod
    if (hasEncodedSlash && compiled?.route.encodedSlashes !== 'pass') throw rejected(ENCODED_SLASH)
    if (!compiled) throw otherMethod(found)
    if (compiled.isDisguised?.(method, path)) throw rejected(DISGUISED)
    return { route: compiled.route, target: upstreamTarget(compiled, canonical, target) }
  }
}

/** Compares with every escape decoded, because an upstream would decode `/%62ff` and `/caf%c3%a9` too. */
function compileOwnPaths(basePath: string): (path: string) => boolean {
  const own = decoded(basePath)
  const below = `${own}/`
  return function isOwn(path) {
    const asked = path.includes('%') ? decoded(path) : path
    return asked.startsWith(own) && (asked.length === own.length || asked.startsWith(below))
  }
}

/** One character for each octet. */
function decoded(path: string): string {
  return path.replaceAll(/%([0-9a-f]{2})/gi, (_, octet) => String.fromCharCode(Number.parseInt(octet, 16)))
}

type CompiledRoute = {
  readonly route: RouteConfig
  /** Length of the path that `prefix` replaces; 0 when the path is kept. */
  readonly replaced: number
  readonly prefix: string
  /** Absent where no route of the upstream is stricter. */
  readonly isDisguised: IsDisguised | undefined
}

type RoutesOfPath = {
  readonly byMethod: Map<string, CompiledRoute>
  anyMethod?: CompiledRoute
  /** Value of the `Allow` header (RFC 9110 §10.2.1). */
  allow: string
  /** Value of the `Vary` header: what the routes of this path look at to know who calls. */
  vary?: string
  /** The refusal of a method that no route of this path takes; made when first needed. */
  otherMethod?: SharedRefusal
}

const EVERY_METHOD = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'

function groupByPath(routes: readonly RouteConfig[]): Map<string, RoutesOfPath> {
  const byPath = new Map<string, RoutesOfPath>()
  const disguises = compileDisguises(routes)
  for (const route of routes) {
    const group: RoutesOfPath = byPath.get(route.path) ?? {
      byMethod: new Map(),
      allow: '',
    }
    byPath.set(route.path, group)
    const compiled = compileRoute(route, disguises.get(route))
    if (!route.methods) group.anyMethod = compiled
    for (const method of route.methods ?? []) group.byMethod.set(method, compiled)
    if (route.bearer) group.vary = 'Cookie, Authorization'
    else if (route.auth !== 'anonymous') group.vary ??= 'Cookie'
    group.allow = [...group.byMethod.keys()].join(', ')
  }
  return byPath
}

function compileRoute(route: RouteConfig, isDisguised: IsDisguised | undefined): CompiledRoute {
  const { path, rewrite } = route
  if (rewrite === undefined) return { route, replaced: 0, prefix: '', isDisguised }
  const replaced = path === '/' ? 0 : path.length
  return { route, replaced, prefix: rewrite.replace(/\/+$/, ''), isDisguised }
}

/** Concatenates on a checked path and never resolves: resolution lets `//host` choose the upstream. */
function upstreamTarget(
  { route, replaced, prefix }: CompiledRoute,
  { path, query }: CanonicalTarget,
  raw: string,
): string {
  if (route.rewrite === undefined) return raw.length === path.length + query.length ? raw : path + query
  const rewritten = prefix + (replaced === 0 ? path : path.slice(replaced))
  return (rewritten === '' ? '/' : rewritten) + query
}

function otherMethod(routes: RoutesOfPath): SharedRefusal {
  routes.otherMethod ??= methodNotAllowed(routes.allow, routes.vary)
  return routes.otherMethod
}

function methodNotAllowed(allow: string, vary?: string): SharedRefusal {
  const headers = { allow, ...(vary === undefined ? {} : { vary }) }
  return new SharedRefusal('method_not_allowed', 'the route does not allow this method', { headers })
}

/** Whether the proxy lets a target through, whatever comes of it then: only `path_rejected` refuses one for good. */
export function isServed(match: MatchRoute, target: string): boolean {
  try {
    match('GET', target)
    return true
  } catch (error) {
    return !(error instanceof BffError && error.code === 'path_rejected')
  }
}

const SLASH = 0x2f
const PERCENT = 0x25
const QUESTION_MARK = 0x3f
const DOT = 0x2e
const SEMICOLON = 0x3b
const ESCAPED_SLASH = /%2f/i
const EVERY_ESCAPED_SLASH = /%2f/gi

/** By character code: 0 is refused in a path, 1 may stand there, 2 makes `canonicalPath` look at the path. */
const PATH_CHARACTERS = pathCharacters()
/** RFC 3986 §2.3: percent-encoding these changes nothing, so they are compared and forwarded decoded. */
const UNRESERVED = /^[A-Za-z0-9\-._~]$/

/** A request target in the one form that is both matched and forwarded. */
export type CanonicalTarget = {
  /** Decoded where that changes nothing (RFC 3986 §6.2.2.2), otherwise byte-identical. */
  readonly path: string
  /** With its question mark, untouched; empty when there is none. */
  readonly query: string
  /** Some slash in the path is encoded, so that not every route takes it. */
  readonly hasEncodedSlash: boolean
}

/**
 * Brings an origin-form request target (RFC 9112 §3.2.1) into canonical form.
 * Throws `path_rejected` for anything two programs could read differently: dot segments, backslashes, empty segments,
 * path parameters, control bytes, fragments, bad encodings, other target forms; the delimiters among them encoded once
 * or more often, too. An encoded slash is left as it is where it hides none of these.
 */
export function canonicalTarget(target: string): CanonicalTarget {
  if (target.charCodeAt(0) !== SLASH) throw rejected('only origin-form targets are served')
  let previous = 0
  let suspicious = false
  let end = 0
  for (; end < target.length; end++) {
    const code = target.charCodeAt(end)
    if (code === QUESTION_MARK) break
    const kind = code < 128 ? PATH_CHARACTERS[code] : 0
    if (kind === 0) throw rejected('a character that must not stand in a path')
    if (previous === SLASH && (code === SLASH || code === DOT)) suspicious = true
    if (kind === 2) suspicious = true
    previous = code
  }
  if (end === target.length && !suspicious) return { path: target, query: '', hasEncodedSlash: false }
  const raw = target.slice(0, end)
  const query = target.slice(end)
  requireCleanQuery(query)
  const path = suspicious ? canonicalPath(raw) : raw
  return { path, query, hasEncodedSlash: suspicious && ESCAPED_SLASH.test(path) }
}

/** For paths with a percent sign, an empty segment, or a segment that begins with a dot. */
function canonicalPath(raw: string): string {
  const path = raw.includes('%') ? decodeUnreserved(raw) : raw
  // A second decoding must not find a delimiter that the first did not: %252e%252e, %252f, %253b, %255c, %2500.
  if (/%25(?:25)*(?:2[ef]|3b|5c|[01][0-9a-f]|7f)/i.test(path)) throw rejected('a doubly encoded delimiter')
  // An upstream may read an encoded slash as a slash.
  const read = path.replaceAll(EVERY_ESCAPED_SLASH, '/')
  if (read.includes('//')) throw rejected('an empty path segment')
  if (/\/\.{1,2}(?:\/|$)/.test(read)) throw rejected('a dot segment')
  return path
}

/** Decodes percent-encoded unreserved characters and leaves every other escape byte-identical. */
function decodeUnreserved(raw: string): string {
  let path = ''
  let copied = 0
  for (let at = raw.indexOf('%'); at !== -1; at = raw.indexOf('%', at)) {
    const octet = octetAt(raw, at)
    if (octet < 0x20 || octet === 0x7f) throw rejected('an encoded control character')
    if (octet === 0x5c) throw rejected('an encoded backslash')
    if (octet === SEMICOLON) throw rejected('an encoded semicolon')
    if (octet >= 0x80) {
      at = skipUtf8(raw, at)
      continue
    }
    const character = String.fromCharCode(octet)
    if (UNRESERVED.test(character)) {
      path += raw.slice(copied, at) + character
      copied = at + 3
    }
    at += 3
  }
  return copied === 0 ? raw : path + raw.slice(copied)
}

/** Value of the escape at `at`; throws `path_rejected` unless it is a percent sign and two hexadecimal digits. */
function octetAt(raw: string, at: number): number {
  const high = hexDigit(raw.charCodeAt(at + 1))
  const low = hexDigit(raw.charCodeAt(at + 2))
  if (raw.charCodeAt(at) !== PERCENT || high < 0 || low < 0) throw rejected('an invalid percent-encoding')
  return high * 16 + low
}

/** Index after the encoded UTF-8 sequence at `at`; throws `path_rejected` when RFC 3629 §4 does not allow it. */
function skipUtf8(raw: string, at: number): number {
  const first = octetAt(raw, at)
  const length =
    first >= 0xc2 && first < 0xe0
      ? 2
      : first >= 0xe0 && first < 0xf0
        ? 3
        : first >= 0xf0 && first < 0xf5
          ? 4
          : 0
  if (length === 0) throw rejected('invalid UTF-8')
  for (let n = 1; n < length; n++) {
    const octet = octetAt(raw, at + n * 3)
    const [low, high] = n === 1 ? secondOctet(first) : [0x80, 0xbf]
    if (octet < low || octet > high) throw rejected('invalid UTF-8')
  }
  return at + length * 3
}

/** Overlong forms, surrogates and code points past U+10FFFF all show in the second octet (RFC 3629 §4). */
function secondOctet(first: number): [number, number] {
  if (first === 0xe0) return [0xa0, 0xbf]
  if (first === 0xed) return [0x80, 0x9f]
  if (first === 0xf0) return [0x90, 0xbf]
  if (first === 0xf4) return [0x80, 0x8f]
  return [0x80, 0xbf]
}

/** The query is opaque, but a fragment or a control byte in it would end the target early for the next hop. */
function requireCleanQuery(query: string): void {
  if (/[^\x21\x22\x24-\x7e]/.test(query)) throw rejected('a character that must not stand in a query')
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const lower = code | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

function pathCharacters(): Uint8Array {
  const kinds = new Uint8Array(128)
  for (let code = 0x21; code < 0x7f; code++) kinds[code] = 1
  // `;` begins path parameters, which servers cut off before or after they look for dot segments.
  for (const refused of '\\#;') kinds[refused.charCodeAt(0)] = 0
  kinds[PERCENT] = 2
  return kinds
}

/** A refusal; its message names the rule and never repeats the path, which may hold anything. */
function rejected(rule: string): BffError {
  return sharedRefusal('path_rejected', `request target refused: ${rule}`)
}
