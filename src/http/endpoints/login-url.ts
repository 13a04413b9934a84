export type LoginUrlsDeps = {
  readonly basePath: string
  /** Longest path and query that our own listener takes. */
  readonly urlLength: number
  readonly parseReturnUrl: (value: unknown) => string | undefined
}

/** The path to sign in at, coming back to `target` as far as that can be returned to. */
export type LoginUrlFor = (target?: string) => string

/** Makes login URLs that our own `B/login` takes: none that is too long for it, none that leads somewhere it refuses. */
export function createLoginUrls({ basePath, urlLength, parseReturnUrl }: LoginUrlsDeps): LoginUrlFor {
  const login = `${basePath}/login`

  return function loginUrlFor(target) {
    const returnUrl = target === undefined ? undefined : parseReturnUrl(target)
    if (returnUrl === undefined) return login
    for (const [part, encode] of partsOf(returnUrl)) {
      const url = `${login}?returnUrl=${encode(part)}`
      if (url.length <= urlLength) return url
    }
    return login
  }
}

/** From the whole to the least of it: escaped as usual, then as little as will do, then without its query. */
function* partsOf(returnUrl: string): Generator<[part: string, encode: (part: string) => string]> {
  yield [returnUrl, encodeURIComponent]
  yield [returnUrl, encodeSparingly]
  // A query that is cut says something else, and so does a path that is cut within a segment.
  let path = returnUrl.split(/[?#]/, 1)[0]!
  for (let cuts = 0; path.length > 1 && cuts < 64; cuts += 1) {
    yield [path, encodeSparingly]
    path = path.slice(0, path.lastIndexOf('/', path.length - 2) + 1)
  }
}

/** Escapes only what would mean something else in the value of a query parameter (WHATWG URL §5.1). */
function encodeSparingly(text: string): string {
  return text.replace(/[^\w.~!$'()*,/:;=?@-]/g, encodeURIComponent)
}

/**
 * The login URL of a page or a download. A redirect leads a download away from the page that the tab shows, so the way
 * back ends on a page of ours; with a Strict session cookie it does anyway.
 */
export function pageLoginUrl(loginUrl: string, sameSite: 'strict' | 'lax'): string {
  return sameSite === 'lax' && loginUrl.includes('?') ? `${loginUrl}&landing=page` : loginUrl
}
