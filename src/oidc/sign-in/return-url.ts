/** What decides whether a browser may be sent to a path after sign-in or sign-out. */
export type ReturnUrlRules = {
  /** The origin that browsers see. */
  readonly publicUrl: string
  /** Cloakroom's own endpoints, which must not be returned to: that could loop. */
  readonly basePath: string
  /** Whether a request for this path and query would be let through, to an upstream or to no route. */
  readonly isServed: (target: string) => boolean
}

/**
 * The path to return to after sign-in or sign-out, if `value` is one on this origin; undefined otherwise. What the proxy
 * would refuse is refused here, too: what one parser calls a path another calls a host (RFC 9700 §4.11.1).
 */
export function parseReturnUrl(value: unknown, rules: ReturnUrlRules): string | undefined {
  if (value === undefined) return '/'
  if (typeof value !== 'string' || !value.startsWith('/')) return undefined
  // User agents drop some of these from URLs, and others treat them as a slash.
  if (/[^\x21-\x7e]/.test(value)) return undefined
  if (popupIn(value, rules.basePath) !== undefined) return value
  const [target = ''] = value.split('#', 1)
  if (!rules.isServed(target)) return undefined
  const url = URL.parse(value, rules.publicUrl)
  if (!url || url.origin !== rules.publicUrl || url.username || url.password) return undefined
  return isPlaceToReturnTo(url.pathname, rules.basePath) ? url.pathname + url.search + url.hash : undefined
}

/**
 * Which popup ends on this URL of `B/done`, the one endpoint of ours that can be returned to: it leads no further. Empty
 * when it does not say; undefined for every other URL.
 */
export function popupIn(url: string, basePath: string): string | undefined {
  const page = `${basePath}/done`
  if (!url.startsWith(page)) return undefined
  return /^(?:\?id=([\w.-]{1,64}))?$/
    .exec(url.slice(page.length))
    ?.slice(1)
    .map((id) => id ?? '')[0]
}

/** Judged with every escape decoded, as something further on may read it. */
function isPlaceToReturnTo(pathname: string, basePath: string): boolean {
  const path = decodedPath(pathname)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: an encoded line break must not become a header
  if (path === undefined || /^\/[/\\]|[\u0000-\u001f\u007f\\]/.test(path)) return false
  const own = decodedPath(basePath) ?? basePath
  return path !== own && !path.startsWith(`${own}/`)
}

function decodedPath(path: string): string | undefined {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}

/** The parameter that tells the application how a sign-in without the user ended (contract section 4). */
const LOGIN_ERROR = /(?<=[?&])login_error=[^&#]*&?/g

/** `returnUrl` with the outcome added; its own query and fragment stay byte for byte, but for an older outcome. */
export function withLoginError(returnUrl: string, error: string): string {
  const [before, fragment] = splitFragment(withoutLoginError(returnUrl))
  return `${before}${before.includes('?') ? '&' : '?'}login_error=${encodeURIComponent(error)}${fragment}`
}

/** `returnUrl` without the outcome of a sign-in before. */
export function withoutLoginError(returnUrl: string): string {
  const [before, fragment] = splitFragment(returnUrl)
  const cleaned = before.replace(LOGIN_ERROR, '')
  return (cleaned === before ? before : cleaned.replace(/[?&]$/, '')) + fragment
}

/** Whether it tells of a sign-in that ended without the user. */
export function hasLoginError(returnUrl: string): boolean {
  return withoutLoginError(returnUrl) !== returnUrl
}

function splitFragment(url: string): [before: string, fragment: string] {
  const at = url.indexOf('#')
  return at === -1 ? [url, ''] : [url.slice(0, at), url.slice(at)]
}
