/**
 * The raw value of the session cookie in a Cookie header. Undefined when there is none, or more than one: two cookies
 * of that name are a sign of fixation, and no order among them is guaranteed (RFC 6265 §4.2.2); `repeated` is told.
 */
export function readSessionCookie(
  header: string | undefined,
  name: string,
  repeated?: () => void,
): string | undefined {
  if (header === undefined) return undefined
  let found: string | undefined
  for (let at = header.indexOf(name); at !== -1; at = header.indexOf(name, at + name.length)) {
    const isWholeName = startsPair(header, at) && header[at + name.length] === '='
    if (!isWholeName) continue
    if (found !== undefined) {
      repeated?.()
      return undefined
    }
    const end = header.indexOf(';', at)
    found = header.slice(at + name.length + 1, end === -1 ? undefined : end).trim()
  }
  return found
}

function startsPair(header: string, at: number): boolean {
  let before = at - 1
  while (before >= 0 && header[before] === ' ') before -= 1
  return before < 0 || header[before] === ';'
}

/** The session id that a cookie value claims, before its signature is verified: good for naming, not for trust. */
export function sessionIdOf(cookieValue: string): string {
  const [, id] = /^s(?:%3A|:)([^.]*)\./i.exec(cookieValue) ?? []
  return id ?? cookieValue
}
