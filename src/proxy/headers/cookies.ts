/** Says whether a cookie name is one of ours, in any letter case: user agents compare name prefixes that way. */
export type IsOwnCookie = (name: string) => boolean

/** Names that belong to Cloakroom: the session cookie's own and every name that begins with `<name>-login`. */
export function ownCookieNames(sessionCookie: string): IsOwnCookie {
  const own = sessionCookie.toLowerCase()
  const login = `${own}-login`
  return function isOwnCookie(name) {
    if (name.length < own.length) return false
    const lower = name.toLowerCase()
    return lower === own || lower.startsWith(login)
  }
}

/** A `Cookie` field value without our cookies, everything else byte-exact; undefined when nothing is left. */
export function withoutOwnCookies(cookie: string, isOwn: IsOwnCookie): string | undefined {
  let kept: string | undefined
  let changed = false
  let start = 0
  while (start <= cookie.length) {
    const semicolon = cookie.indexOf(';', start)
    const end = semicolon === -1 ? cookie.length : semicolon
    if (isOwn(cookieName(cookie, start, end))) {
      // Up to the first cookie of ours nothing was copied: what precedes it is kept in one piece.
      if (!changed) kept = start === 0 ? undefined : cookie.slice(0, start - 1)
      changed = true
    } else if (changed) {
      const pair = cookie.slice(start, end)
      kept = kept === undefined ? pair.trimStart() : `${kept};${pair}`
    }
    start = end + 1
  }
  const rest = changed ? kept : cookie
  return rest === undefined || rest.trim() === '' ? undefined : rest
}

/** Whether a `Set-Cookie` field value would make or overwrite one of our cookies. */
export function setsOwnCookie(setCookie: string, isOwn: IsOwnCookie): boolean {
  const semicolon = setCookie.indexOf(';')
  const pair = setCookie.slice(0, semicolon === -1 ? setCookie.length : semicolon)
  // RFC 6265bis §5.7: a cookie without a name is sent back as its bare value, so `=name=value` reads as ours.
  const named = pair.replace(/^[\s=]+/, '')
  return isOwn(cookieName(named, 0, named.length))
}

function cookieName(text: string, start: number, end: number): string {
  const equals = text.indexOf('=', start)
  return text.slice(start, equals === -1 || equals > end ? end : equals).trim()
}
