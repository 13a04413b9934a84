import type { Config, RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { compileRoutes, type MatchRoute } from '../../proxy/route-table.ts'
import { isStricter, readingOfRoute } from '../../proxy/stricter-routes.ts'

/** A route that works but should be changed, and where it stands in the file. */
export type RouteWarning = { readonly path: readonly (string | number)[]; readonly message: string }

type Pair = {
  readonly route: RouteConfig
  readonly index: number
  readonly other: RouteConfig
  /** How the other is named in a message. */
  readonly name: string
}

/** Finds routes that lead to the same upstream as a stricter route, and so round what that one asks for. */
export function routeWarnings({ routes, basePath }: Config): RouteWarning[] {
  const match = compileRoutes(routes, basePath)
  const pairs = routes.flatMap((route, index) =>
    routes.map(
      (other, position): Pair => ({ route, index, other, name: `routes[${position}] (${other.path})` }),
    ),
  )
  const ofPairs = pairs
    .filter(({ route, other }) => route !== other && originOf(route) === originOf(other))
    .flatMap((pair) => {
      const message = spellingWarning(pair, routes) ?? rewriteWarning(pair, match)
      return message === undefined ? [] : [{ path: ['routes', pair.index, 'path'], message }]
    })
  return routes.length > 1 ? [...ofPairs, ...headerWarnings(routes)] : ofPairs
}

/** Fields that browsers send with requests of every kind, and servers need. */
const OF_BROWSERS =
  /^(?:accept(?:-.*)?|cache-control|content-.*|if-.*|origin|pragma|range|referer|sec-.*|user-agent)$/

/** What one route adds is taken from the client on all of them. */
function headerWarnings(routes: readonly RouteConfig[]): RouteWarning[] {
  return routes.flatMap(({ headers }, index) =>
    headers
      .filter(({ name }) => OF_BROWSERS.test(name))
      .map(({ name }) => ({
        path: ['routes', index, 'headers', name],
        message: `takes the browser's own ${name} away on every route, because what one route adds no client may send: use another name, e.g. x-${name}`,
      })),
  )
}

function originOf({ upstream }: RouteConfig): string {
  return new URL(upstream).origin
}

/** Told once for two routes, at the less strict one. */
function spellingWarning(
  { route, index, other, name }: Pair,
  routes: readonly RouteConfig[],
): string | undefined {
  if (route.path === other.path || readingOfRoute(route.path) !== readingOfRoute(other.path)) return undefined
  const same = `differs from ${name} only in a spelling that some upstreams do not tell apart`
  if (isStricter(other, route))
    return `${same}; that one asks for more, so every request to this one is refused: give both the same auth, or remove one`
  if (isStricter(route, other) || index < routes.indexOf(other)) return undefined
  return `${same}: either may serve what was meant for the other; remove one`
}

/** A less strict route whose `rewrite` leads to what a stricter one guards. */
function rewriteWarning({ route, other, name }: Pair, match: MatchRoute): string | undefined {
  if (!isStricter(other, route) || (route.rewrite === undefined && other.rewrite === undefined))
    return undefined
  const [from, guarded] = [route, other].map(({ rewrite, path }) => (rewrite ?? path).replace(/\/+$/, ''))
  if (guarded !== from && !guarded!.startsWith(`${from}/`)) return undefined
  const alias = `${route.path === '/' ? '' : route.path}${guarded!.slice(from!.length)}` || '/'
  const method = other.methods?.[0] ?? route.methods?.[0] ?? 'GET'
  if (routeOf(match, method, alias) !== route) return undefined
  return `lets ${method} ${alias} reach ${other.upstream}${guarded || '/'}, where ${name} asks for more: rewrite to another path, or add a route for ${alias} with the same auth`
}

function routeOf(match: MatchRoute, method: string, target: string): RouteConfig | undefined {
  try {
    return match(method, target)?.route
  } catch (error) {
    if (error instanceof BffError) return undefined
    throw error
  }
}
