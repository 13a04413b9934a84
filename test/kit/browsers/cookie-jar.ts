/** One cookie as a user agent holds it (RFC 6265bis §5.6). */
export type HeldCookie = {
  readonly name: string
  readonly value: string
  /** Host, or host:port while ports count as sites of their own. */
  readonly host: string
  readonly path: string
  readonly secure: boolean
  readonly httpOnly: boolean
  readonly sameSite: 'strict' | 'lax' | 'none'
  /** Epoch ms; absent = until the browser closes. */
  readonly expiresAt?: number
  readonly createdAt: number
}

/** What decides whether SameSite lets a cookie go along. */
export type CookieContext = {
  /** Initiator and every hop so far are of the target's site. */
  readonly sameSite: boolean
  /** A top-level navigation with a safe method. */
  readonly topLevelGet: boolean
}

/** Cookies by host; the `separatePorts` jar keeps 127.0.0.1:1 and 127.0.0.1:2 apart, as two sites would be. */
export type CookieJar = {
  /** Takes `Set-Cookie` lines; lines that a browser would drop land in `rejected`. */
  store(url: URL, lines: readonly string[]): void
  /** The `Cookie` header for a request, or undefined. */
  header(url: URL, context: CookieContext): string | undefined
  readonly held: readonly HeldCookie[]
  /** Every `Set-Cookie` line that was refused, and why. */
  readonly rejected: { readonly line: string; readonly reason: string }[]
  /** Forgets one cookie, or all. */
  forget(name?: string): void
  clone(): CookieJar
}

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]'])

/** A cookie jar with the rules that matter here: prefixes, Secure, Path, SameSite, Max-Age and Expires. */
export function createCookieJar(
  options: { separatePorts: boolean; loopbackIsSecure?: boolean },
  start: readonly HeldCookie[] = [],
): CookieJar {
  let held = [...start]
  const rejected: { line: string; reason: string }[] = []
  const hostOf = (url: URL) => (options.separatePorts ? url.host : url.hostname)
  // Secure Contexts §3.1: Chromium keeps Secure cookies of a loopback address over plain http.
  const isSecure = (url: URL) =>
    url.protocol === 'https:' || (options.loopbackIsSecure === true && LOOPBACK.has(url.hostname))
  return {
    store(url, lines) {
      for (const line of lines) {
        const cookie = parseSetCookie(line, url, hostOf(url))
        const reason = refusal(cookie, isSecure(url), line)
        if (reason) {
          rejected.push({ line: line.split('=')[0] ?? '', reason })
          continue
        }
        const same = (one: HeldCookie) =>
          one.name === cookie.name && one.host === cookie.host && one.path === cookie.path
        const before = held.find(same)
        held = held.filter((one) => !same(one))
        const isExpired = cookie.expiresAt !== undefined && cookie.expiresAt <= Date.now()
        if (!isExpired) held.push({ ...cookie, createdAt: before?.createdAt ?? cookie.createdAt })
      }
    },
    header(url, context) {
      const going = held
        .filter((cookie) => cookie.host === hostOf(url) && goesAlong(cookie, url, context, isSecure(url)))
        .sort((a, b) => b.path.length - a.path.length || a.createdAt - b.createdAt)
      if (going.length === 0) return undefined
      return going.map((cookie) => `${cookie.name}=${cookie.value}`).join('; ')
    },
    get held() {
      return held
    },
    rejected,
    forget(name) {
      held = name === undefined ? [] : held.filter((cookie) => cookie.name !== name)
    },
    clone: () => createCookieJar(options, held),
  }
}

function parseSetCookie(line: string, url: URL, host: string): HeldCookie {
  const [pair = '', ...attributes] = line.split(';')
  const equals = pair.indexOf('=')
  const given = new Map(
    attributes.map((attribute) => {
      const [name = '', ...value] = attribute.trim().split('=')
      return [name.toLowerCase(), value.join('=')]
    }),
  )
  const path = given.get('path')
  const sameSite = given.get('samesite')?.toLowerCase()
  const expiresAt = expiry(given)
  return {
    name: pair.slice(0, equals).trim(),
    value: pair.slice(equals + 1).trim(),
    host,
    path: path?.startsWith('/') ? path : defaultPath(url),
    secure: given.has('secure'),
    httpOnly: given.has('httponly'),
    // Without the attribute browsers assume Lax.
    sameSite: sameSite === 'strict' || sameSite === 'none' ? sameSite : 'lax',
    ...(expiresAt === undefined ? {} : { expiresAt }),
    createdAt: performance.timeOrigin + performance.now(),
  }
}

function expiry(given: Map<string, string>): number | undefined {
  const maxAge = given.get('max-age')
  if (maxAge !== undefined && /^-?\d+$/.test(maxAge)) return Date.now() + Number(maxAge) * 1000
  const expires = given.get('expires')
  return expires === undefined ? undefined : Date.parse(expires)
}

function defaultPath(url: URL): string {
  return url.pathname.slice(0, url.pathname.lastIndexOf('/')) || '/'
}

/** RFC 6265bis §5.7 and §4.1.3: why a browser would not take this cookie. */
function refusal(cookie: HeldCookie, isSecure: boolean, line: string): string | undefined {
  const name = cookie.name.toLowerCase()
  if (cookie.secure && !isSecure) return 'Secure from an http origin'
  if (cookie.sameSite === 'none' && !cookie.secure) return 'SameSite=None without Secure'
  if (/^__(secure|http|host|host-http)-/.test(name) && !cookie.secure) return 'prefix without Secure'
  if (/^__(host-)?http-/.test(name) && !cookie.httpOnly) return 'prefix without HttpOnly'
  if (/^__host-/.test(name)) {
    if (/;\s*domain=/i.test(line)) return '__Host- with Domain'
    if (!/;\s*path=\/\s*(;|$)/i.test(line)) return '__Host- without Path=/'
  }
  if (line.length > 4096) return 'larger than 4096 bytes'
  return undefined
}

function goesAlong(cookie: HeldCookie, url: URL, context: CookieContext, isSecure: boolean): boolean {
  if (cookie.expiresAt !== undefined && cookie.expiresAt <= Date.now()) return false
  if (cookie.secure && !isSecure) return false
  if (!pathMatches(url.pathname, cookie.path)) return false
  if (context.sameSite || cookie.sameSite === 'none') return true
  return cookie.sameSite === 'lax' && context.topLevelGet
}

function pathMatches(path: string, cookiePath: string): boolean {
  if (path === cookiePath) return true
  return path.startsWith(cookiePath.endsWith('/') ? cookiePath : `${cookiePath}/`)
}
