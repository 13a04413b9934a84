import type { RouteConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import { type CanonicalTarget, canonicalTarget, rejected } from './request-target.ts'
import { compileDisguises, type IsDisguised } from './stricter-routes.ts'

/** The route of a request and the target for its upstream. */
export type RouteMatch = {
  readonly route: RouteConfig
  /** Origin-form path and query for the upstream, the prefix already rewritten. */
  readonly target: string
}

/** Finds the route of a request; undefined when no route's path matches. Throws `path_rejected`, `method_not_allowed`. */
export type MatchRoute = (method: string, target: string) => RouteMatch | undefined

const SLASH = 0x2f
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
    if (!compiled) throw methodNotAllowed(found.allow, found.variesByCookie)
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
  /** Some route of this path looks for a session. */
  variesByCookie: boolean
}

const EVERY_METHOD = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'

function groupByPath(routes: readonly RouteConfig[]): Map<string, RoutesOfPath> {
  const byPath = new Map<string, RoutesOfPath>()
  const disguises = compileDisguises(routes)
  for (const route of routes) {
    const group: RoutesOfPath = byPath.get(route.path) ?? {
      byMethod: new Map(),
      allow: '',
      variesByCookie: false,
    }
    byPath.set(route.path, group)
    const compiled = compileRoute(route, disguises.get(route))
    if (!route.methods) group.anyMethod = compiled
    for (const method of route.methods ?? []) group.byMethod.set(method, compiled)
    if (route.auth !== 'anonymous') group.variesByCookie = true
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

function methodNotAllowed(allow: string, variesByCookie = false): BffError {
  const headers = { allow, ...(variesByCookie ? { vary: 'Cookie' } : {}) }
  return new BffError('method_not_allowed', 'the route does not allow this method', { headers })
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
