import { isDeepStrictEqual } from 'node:util'
import type { RouteConfig } from '../config/config.ts'
import { readingsOf } from './path-readings.ts'

/**
 * Whether the upstream of a matched route may take the path for that of a stricter route: `/ADMIN` through `/`, where
 * `/admin` needs a session and the upstream does not look at the case of letters. `path` is canonical.
 */
export type IsDisguised = (route: RouteConfig, method: string, path: string) => boolean

const STRICTNESS = { anonymous: 0, optional: 1, required: 2 }

/** Whether a route asks for what the other does not: a session, or something of it. */
export function isStricter(route: RouteConfig, than: RouteConfig): boolean {
  const more = STRICTNESS[route.auth] - STRICTNESS[than.auth]
  if (more !== 0) return more > 0
  const [own, other] = [rulesOf(route), rulesOf(than)]
  return own !== undefined && !isDeepStrictEqual(own, other)
}

/** Further conditions on the session. */
function rulesOf(route: RouteConfig & { readonly require?: unknown }): unknown {
  return route.require
}

/** Compiles the look-up; a route without a stricter one at its upstream costs nothing. */
export function compileDisguises(routes: readonly RouteConfig[]): IsDisguised {
  const upstreams = Map.groupBy(routes, ({ upstream }) => new URL(upstream).origin)
  const guarded = new Map<RouteConfig, Guarded>()
  for (const ofUpstream of upstreams.values()) {
    const table = compileGuarded(ofUpstream)
    for (const route of ofUpstream) {
      if (ofUpstream.some((other) => other !== route && (isStricter(other, route) || other.methods)))
        guarded.set(route, table)
    }
  }

  return function isDisguised(route, method, path) {
    const table = guarded.get(route)
    if (!table) return false
    const readings = readingsOf(path)
    if (readings === undefined) return true
    return readings.some((reading) => {
      // The look-up of the routes themselves has answered that.
      if (reading === path && !table.hasTwins) return false
      const found = table.find(reading)
      if (!found) return false
      // With no route for the method it would be refused; of two spellings of one path the stricter route counts.
      const serving = found.filter(({ methods }) => methods?.includes(method) ?? true)
      return serving.length === 0 || serving.some((other) => isStricter(other, route))
    })
  }
}

type Guarded = {
  /** Routes of the longest path at or above a reading. */
  find(reading: string): readonly RouteConfig[] | undefined
  /** Some route's path has another reading than itself, or that of another route. */
  readonly hasTwins: boolean
}

function compileGuarded(routes: readonly RouteConfig[]): Guarded {
  const byReading = Map.groupBy(routes, ({ path }) => readingOfRoute(path))
  const hasTwins = routes.some(
    ({ path }) => readingOfRoute(path) !== path || byReading.get(path)!.some((other) => other.path !== path),
  )
  const longest = Math.max(...Array.from(byReading.keys(), (reading) => reading.length))

  function find(reading: string): readonly RouteConfig[] | undefined {
    let end = reading.length
    while (end > 0) {
      const found = end <= longest ? byReading.get(reading.slice(0, end)) : undefined
      if (found) return found
      end = reading.lastIndexOf('/', end - 1)
    }
    return byReading.get('/')
  }
  return { find, hasTwins }
}

/** A route's own path, decoded once: what is written there is meant. */
export function readingOfRoute(path: string): string {
  return readingsOf(path)?.[0] ?? path
}
