import { isDeepStrictEqual } from 'node:util'
import type { RouteConfig } from '../config/config.ts'

/**
 * Whether the upstream may take a path for that of a stricter route: `/ADMIN` through `/`, where `/admin` needs a session
 * and the upstream does not look at the case of letters. `path` is canonical.
 */
export type IsDisguised = (method: string, path: string) => boolean

const STRICTNESS = { anonymous: 0, optional: 1, required: 2 }

/** Whether a route demands more than the other: a session, or something of the session. */
export function isStricter(route: RouteConfig, than: RouteConfig): boolean {
  const more = STRICTNESS[route.auth] - STRICTNESS[than.auth]
  if (more > 0) return true
  // Another token would open it, or none but the cookie.
  const isClosedToBearer = than.bearer !== undefined && !isDeepStrictEqual(route.bearer, than.bearer)
  if (isClosedToBearer && route.auth !== 'anonymous') return true
  if (more < 0) return false
  return route.require !== undefined && !isDeepStrictEqual(route.require, than.require)
}

/** Compiles the check of each route; a route without a stricter one at its upstream needs none, and has none. */
export function compileDisguises(routes: readonly RouteConfig[]): ReadonlyMap<RouteConfig, IsDisguised> {
  const checks = new Map<RouteConfig, IsDisguised>()
  for (const ofUpstream of Map.groupBy(routes, ({ upstream }) => new URL(upstream).origin).values()) {
    const table = compileReadings(ofUpstream)
    for (const route of ofUpstream) {
      if (ofUpstream.some((other) => other !== route && (isStricter(other, route) || other.methods)))
        checks.set(route, (method, path) => isDisguised(table, route, { method, path }))
    }
  }
  return checks
}

function isDisguised(
  table: RoutesByReading,
  route: RouteConfig,
  { method, path }: { method: string; path: string },
): boolean {
  const readings = readingsOf(path)
  if (readings === undefined) return true
  return readings.some((reading) => {
    // The route table has answered for the path as it is.
    if (reading === path && !table.hasTwins) return false
    const found = table.find(reading)
    if (!found) return false
    // A method that no route of that path serves would be refused. Of two spellings of one path the stricter route counts.
    const serving = found.filter(({ methods }) => methods?.includes(method) ?? true)
    return serving.length === 0 || serving.some((other) => isStricter(other, route))
  })
}

type RoutesByReading = {
  /** Routes of the longest path at or above a reading. */
  find(reading: string): readonly RouteConfig[] | undefined
  /** Some route's path has another reading than itself, or that of another route. */
  readonly hasTwins: boolean
}

function compileReadings(routes: readonly RouteConfig[]): RoutesByReading {
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

/** The reading of a route's own path, decoded once: operators mean what they write. */
export function readingOfRoute(path: string): string {
  return readingsOf(path)?.[0] ?? path
}

/** How often a path is decoded; a path that is encoded more often is refused. */
const MAX_DECODINGS = 5

/**
 * The paths that upstreams of different kinds may read in one canonical path, one for each time that it can be decoded.
 * Each is the most tolerant reading: no letter case (Express, ASP.NET, IIS) and plain forms of compatibility characters
 * (IIS's best fit, macOS); backslashes as slashes; path parameters cut off (servlets), and everything after an encoded `?`
 * or `#`; no blanks and dots at the end of a segment and no NTFS stream name (Windows); no empty and no dot segments.
 * Undefined when the path is encoded too often.
 */
function readingsOf(path: string): string[] | undefined {
  const lower = path.toLowerCase()
  if (!UNUSUAL.test(lower)) return [lower === '/' || !lower.endsWith('/') ? lower : lower.slice(0, -1)]
  const readings: string[] = []
  let text = path
  for (let n = 0; n <= MAX_DECODINGS; n++) {
    const decoded = decodedOnce(text)
    if (n > 0 && decoded === text) return readings
    readings.push(plainPath(decoded))
    text = decoded
  }
  return undefined
}

/** Matches a canonical path whose reading is more than the path in lower case. */
const UNUSUAL = /[^a-z0-9/_~.!$&'()*+,=:@-]|\.(?:\/|$)|:\$/

/** One character for each octet. */
function decodedOnce(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, octet) => String.fromCharCode(Number.parseInt(octet, 16)))
}

function plainPath(octets: string): string {
  const segments: string[] = []
  const [path = ''] = withoutCase(octets)
    .replaceAll(/[\\\u2044\u2215]/g, '/')
    .split(/[?#]/, 1)
  for (const segment of path.split('/')) {
    const name = segment.replace(/;.*|::?\$.*/s, '').trim()
    if (name === '..') segments.pop()
    else if (name !== '') segments.push(withoutEnd(name))
  }
  return `/${segments.filter(Boolean).join('/')}`
}

/** Removes dots and blanks at the end. */
function withoutEnd(name: string): string {
  let end = name.length
  while (end > 0 && (name[end - 1] === '.' || name[end - 1]!.trim() === '')) end--
  return name.slice(0, end)
}

/** Through capitals, because some letters have more than one small form: a dotless i, a long s, a final sigma. */
function withoutCase(octets: string): string {
  if (!/[^\0-\x7f]/.test(octets)) return octets.toLowerCase()
  const text = Buffer.from(octets, 'latin1').toString().normalize('NFKC')
  const visible = text.replaceAll(/\p{Default_Ignorable_Code_Point}/gu, '')
  return visible.replaceAll('\u0130', 'I').toUpperCase().toLowerCase()
}
