import type { RouteConfig } from '../../config/config.ts'

/**
 * Rewrites references of an upstream to its own paths into those that browsers see, as Apache's `ProxyPassReverse` does;
 * every other reference is returned as it is.
 */
export type ReverseMapping = {
  /** A `Location`: always absolute where it changes. */
  location(reference: string): string
  /** Any other URI reference (RFC 3986 §4.1). */
  reference(reference: string): string
  /** A `Link` (RFC 8288 §3): every target and anchor in it. */
  link(value: string): string
  /** A `Refresh`, as browsers read it (HTML §7.4.6.5). */
  refresh(value: string): string
  /** A `Set-Cookie`: its path. */
  cookie(value: string): string
}

/**
 * Compiles the reverse mapping of a route. The upstream's origin becomes `publicUrl`. On a route with `rewrite`,
 * `<rewrite>/x` becomes `<path>/x`. So does `<path><rewrite>/x`, which an upstream writes that honours
 * `X-Forwarded-Prefix`. A path that is under the route already stays.
 */
export function compileReverseMapping(route: RouteConfig, publicUrl: string): ReverseMapping {
  const isRewritten = route.rewrite !== undefined
  const ofUpstream = spellingsOfOrigin(new URL(route.upstream), isRewritten)
  // An upstream may build these from X-Forwarded-Host, with either scheme.
  const ofSite = isRewritten ? spellingsOfOrigin(new URL(publicUrl), true) : []
  const mapPath = compilePaths(route)

  function absolute(path: string): string {
    return publicUrl + (path.startsWith('/') ? path : `/${path}`)
  }

  function reference(value: string): string {
    if (/^\/(?![/\\])/.test(value)) {
      const mapped = mapPath(value)
      // `/v1//evil.example` under rewrite `/v1` must not become `//evil.example`.
      return /^\/(?![/\\])/.test(mapped) ? mapped : absolute(mapped)
    }
    const own = afterOrigin(value, ofUpstream)
    if (own !== undefined) return absolute(mapPath(own))
    const rest = afterOrigin(value, ofSite)
    const mapped = rest === undefined ? undefined : mapPath(rest)
    return mapped === undefined || mapped === rest ? value : absolute(mapped)
  }

  return {
    reference,
    location(value) {
      const mapped = reference(value)
      return mapped === value || !mapped.startsWith('/') ? mapped : absolute(mapped)
    },
    link: (value) =>
      value.replaceAll(LINK_PARTS, (part, before = '', anchor, target) => {
        if (target !== undefined) return `<${reference(target)}>`
        return anchor === undefined ? part : `${before}${reference(anchor)}"`
      }),
    refresh(value) {
      const [, before = '', quote = '', rest = ''] = REFRESH.exec(value) ?? []
      const end = quote === '' ? -1 : rest.indexOf(quote)
      const target = end === -1 ? rest : rest.slice(0, end)
      return target === '' ? value : before + quote + reference(target) + rest.slice(target.length)
    },
    cookie: isRewritten ? (value) => mapCookiePath(value, mapPath) : (value) => value,
  }
}

/** An anchor, a target, or another quoted string: an angle bracket in one begins no target. */
const LINK_PARTS = /(;\s*anchor\s*=\s*")([^"\\]*)"|<([^>]*)>|"(?:[^"\\]|\\.)*"/gi

const REFRESH = /^([\s\d.]*[;,\s]\s*(?:url\s*=\s*)?)(["']?)(.*)$/is

/** Maps a path, with what follows it, from where the upstream has it to where the route has it. */
function compilePaths({ rewrite, path }: RouteConfig): (text: string) => string {
  if (rewrite === undefined) return (text) => text
  const own = rewrite.replace(/\/+$/, '')
  const route = path === '/' ? '' : path
  return function mapPath(text) {
    if (startsWithPath(text, route + own)) return route + text.slice(route.length + own.length)
    if (!startsWithPath(text, own)) return text
    // Of `/api` and `/api/v2` the longer one decides, because it is more specific.
    const isUnderRoute = own.length <= route.length && startsWithPath(text, route)
    return isUnderRoute ? text : route + text.slice(own.length)
  }
}

/** Whether `text` begins with a canonical path and goes on with another URL component, not with a longer name. */
function startsWithPath(text: string, path: string): boolean {
  const start = text.slice(0, path.length)
  // RFC 3986 §6.2.2.1: the digits of an escape have no case.
  const isSame = start === path || start.replaceAll(/%[0-9a-f]{2}/gi, (one) => one.toUpperCase()) === path
  return isSame && (text.length === path.length || '/?#'.includes(text.charAt(path.length)))
}

/** The rest of a URI after one of these origins; undefined when it has another origin. */
function afterOrigin(value: string, origins: readonly string[]): string | undefined {
  for (const origin of origins) {
    if (value.slice(0, origin.length).toLowerCase() !== origin) continue
    const rest = value.slice(origin.length)
    // `http://upstream.evil.example` and `http://upstream@evil.example` begin with the origin as well.
    if (startsWithPath(rest, '')) return rest
  }
  return undefined
}

/** In lower case; with both schemes where TLS may have ended in front of the upstream. */
function spellingsOfOrigin({ protocol, host, hostname, port }: URL, ofBothSchemes: boolean): string[] {
  const schemes = ofBothSchemes ? ['http:', 'https:'] : [protocol]
  return schemes.flatMap((scheme) => {
    const authorities = port === '' ? [host, `${hostname}:${scheme === 'https:' ? 443 : 80}`] : [host]
    return authorities.flatMap((authority) => [`${scheme}//${authority}`, `//${authority}`])
  })
}

/** RFC 6265bis §4.1.3.2: a `__Host-` cookie has the path `/`, or is refused. */
function mapCookiePath(setCookie: string, mapPath: (path: string) => string): string {
  const [pair = '', ...attributes] = setCookie.split(';')
  if (/^\s*__host-/i.test(pair)) return setCookie
  const mapped = attributes.map((attribute) =>
    attribute.replace(/^(\s*path\s*=\s*)(\/.*?)(\s*)$/is, (_, before, path, after) => {
      // `/files/` would not be sent with `/files`.
      const seen = path === '/' ? mapPath(path).replace(/\/$/, '') : mapPath(path)
      return `${before}${seen || '/'}${after}`
    }),
  )
  return [pair, ...mapped].join(';')
}
