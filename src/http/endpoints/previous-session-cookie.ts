import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { CookieOptions, Response } from 'express'
import type { PreviousSession } from '../../oidc/sign-in/attempts.ts'
import { type BffSession, sessionHash } from '../../session/session.ts'

/**
 * A Lax companion of a Strict session cookie. The redirect from the provider is a cross-site navigation, which brings no
 * Strict cookie; still the sign-in must end the session that this browser has. The companion names that session, sealed.
 * It opens no session.
 */
export type PreviousSessionCookie = {
  set(res: Response, session: PreviousSession): void
  /** The sessions that the browser's cookies name, alive or not: a sign-out leaves the cookie there. */
  read(req: IncomingMessage): PreviousSession[]
}

export type PreviousSessionCookieDeps = {
  readonly cookie: { readonly name: string; readonly secure: boolean; readonly sameSite: 'strict' | 'lax' }
  /** The path of the cookie, so that no request to an upstream is longer for it. */
  readonly basePath: string
  /** Seals a text under a secret of its own, as what goes into the store is: the value alone opens nothing. */
  readonly seal: (secret: string, text: string) => string
  /** Undefined when no key of ours opens it. */
  readonly open: (secret: string, sealed: string) => string | undefined
}

/** Bytes of a value that browsers keep (RFC 6265bis §5.7 has 4,096 with the name). */
const MAX_VALUE = 3_500
/** Begins every value: it tells a `Set-Cookie` of a sign-in from one of the session. */
const TAG = 'of-login-'
/** A sibling host can add cookies of this name, but none that opens. */
const MAX_READ = 4

/** Makes the companion cookie. None is set beside a Lax session cookie, which the redirect from the provider brings. */
export function createPreviousSessionCookie({
  cookie,
  basePath,
  ...deps
}: PreviousSessionCookieDeps): PreviousSessionCookie {
  const { seal, open } = createSessionSealing(deps)
  const plain = cookie.name.replace(/^__(?:host|secure|http)-(?:http-)?/i, '')
  // The prefix __Host- allows the path `/` only.
  const name = `${cookie.secure ? '__Secure-' : ''}${plain}-before`
  const attributes: CookieOptions = {
    ...{ httpOnly: true, secure: cookie.secure, sameSite: 'lax', path: pathOf(basePath) },
  }
  return {
    set(res, session) {
      if (cookie.sameSite !== 'strict') return
      const value = TAG + seal(session)
      if (value.length <= MAX_VALUE) res.cookie(name, value, attributes)
    },
    read(req) {
      const pairs = (req.headers.cookie ?? '').split(';').map((pair) => pair.trim())
      const start = `${name}=${TAG}`
      const values = pairs.filter((pair) => pair.startsWith(start)).slice(0, MAX_READ)
      return values.map((pair) => open(pair.slice(start.length))).filter((session) => session !== undefined)
    },
  }
}

/** Returns what a later sign-in in the same browser must know of a session to end it. */
export function previousSessionOf({ id, hash, claims }: BffSession): PreviousSession {
  return { id, hash, sub: claims.sub, ...(typeof claims.sid === 'string' ? { sid: claims.sid } : {}) }
}

/** RFC 6265bis §4.1.1: the path of a cookie has no semicolon. Express's encoder of cookies accepts no `<` either. */
function pathOf(basePath: string): string {
  return /^[!-:=-~]+$/.test(basePath) ? basePath : '/'
}

/** A value is the secret, a full stop, and the session sealed under that secret. */
function createSessionSealing({ seal, open }: Pick<PreviousSessionCookieDeps, 'seal' | 'open'>) {
  return {
    seal({ id, sub, sid }: PreviousSession): string {
      const secret = randomBytes(16).toString('base64url')
      return `${secret}.${seal(`before ${secret}`, JSON.stringify({ id, sub, sid }))}`
    },
    open(value: string): PreviousSession | undefined {
      const [secret = ''] = value.split('.', 1)
      const text = open(`before ${secret}`, value.slice(secret.length + 1))
      if (text === undefined) return undefined
      const session = JSON.parse(text) as Omit<PreviousSession, 'hash'>
      return { ...session, hash: sessionHash(session.id) }
    },
  }
}
