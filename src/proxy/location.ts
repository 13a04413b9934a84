import type { RouteConfig } from '../config/config.ts'

/** Maps a `Location` that points at the upstream's own origin to the public origin; others are returned as they are. */
export type MapLocation = (location: string) => string

/** Compiles the way back of a route: upstream origin to `publicUrl`, the `rewrite` prefix to the route's path. */
export function compileLocation(route: RouteConfig, publicUrl: string): MapLocation {
  const origins = spellingsOfOrigin(new URL(route.upstream))
  const prefix = route.rewrite?.replace(/\/+$/, '')
  const path = route.path === '/' ? '' : route.path

  /** `rest` is what follows the upstream's origin: path, query, fragment. */
  function publicLocation(rest: string): string {
    const isMapped = prefix !== undefined && startsWithComponent(rest, prefix)
    const mapped = isMapped ? path + rest.slice(prefix.length) : rest
    // Always absolute: `/v1//evil.example` under rewrite `/v1` must not become `//evil.example`.
    return publicUrl + (mapped.startsWith('/') ? mapped : `/${mapped}`)
  }

  return function mapLocation(location) {
    if (/^\/(?![/\\])/.test(location)) {
      return prefix !== undefined && startsWithComponent(location, prefix)
        ? publicLocation(location)
        : location
    }
    for (const origin of origins) {
      if (location.slice(0, origin.length).toLowerCase() !== origin) continue
      const rest = location.slice(origin.length)
      // `http://upstream.evil.example` and `http://upstream@evil.example` begin with the origin as well.
      if (startsWithComponent(rest, '')) return publicLocation(rest)
    }
    return location
  }
}

function spellingsOfOrigin(upstream: URL): string[] {
  const { protocol, host, hostname, port } = upstream
  const authorities = port === '' ? [host, `${hostname}:${protocol === 'https:' ? 443 : 80}`] : [host]
  return authorities.flatMap((authority) => [`${protocol}//${authority}`, `//${authority}`])
}

/** Whether `text` begins with `prefix` and a URL component, not a longer name, follows it. */
function startsWithComponent(text: string, prefix: string): boolean {
  if (!text.startsWith(prefix)) return false
  return text.length === prefix.length || '/?#'.includes(text.charAt(prefix.length))
}
