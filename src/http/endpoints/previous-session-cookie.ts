import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { CookieOptions, Response } from 'express'
import type { EarlierSession } from '../../oidc/sign-in/attempts.ts'
import { sessionHash } from '../../session/bff-session.ts'

/**
 * A Lax companion of a Strict session cookie: the way back from the provider is a cross-site navigation, which brings no
 * Strict cookie, and still the sign-in must end the session that this browser has. It names that session to us, sealed,
 * and is no key to it: it signs no one in.
 */
export type EarlierCookie = {
  set(res: Response, session: EarlierSession): void
  /** What the browser was signed in with, whether or not that is still alive: a sign-out leaves it there. */
  read(req: IncomingMessage): EarlierSession[]
}

export type EarlierCookieDeps = {
  readonly cookie: { readonly name: string; readonly secure: boolean; readonly sameSite: 'strict' | 'lax' }
  /** Only our own endpoints are sent it, so that no request to an upstream is longer for it. */
  readonly basePath: string
  /** Seals a text under a secret of its own, as what goes into the store is: the value alone opens nothing. */
  readonly seal: (secret: string, text: string) => string
  /** Undefined when no key of ours opens it. */
  readonly open: (secret: string, sealed: string) => string | undefined
}

/** Bytes of a value that browsers keep (RFC 6265bis §5.7 has 4,096 with the name). */
const MOST = 3_500
/** Says in each `Set-Cookie` whose it is: those of sign-ins are told apart from the session's by these letters. */
const TAG = 'of-login-'
/** A sibling host can plant more of the name, and none that says something else. */
const MOST_READ = 4

/** Makes it; with a Lax session cookie, which comes along by itself, none is set. */
export function createEarlierCookie({ cookie, basePath, ...deps }: EarlierCookieDeps): EarlierCookie {
  const { seal, open } = createSessionSealing(deps)
  const plain = cookie.name.replace(/^__(?:host|secure|http)-(?:http-)?/i, '')
  // The prefix __Host- is for the path `/` alone.
  const name = `${cookie.secure ? '__Secure-' : ''}${plain}-before`
  const attributes: CookieOptions = {
    ...{ httpOnly: true, secure: cookie.secure, sameSite: 'lax', path: pathOf(basePath) },
  }
  return {
    set(res, session) {
      if (cookie.sameSite !== 'strict') return
      const value = TAG + seal(session)
      if (value.length <= MOST) res.cookie(name, value, attributes)
    },
    read(req) {
      const pairs = (req.headers.cookie ?? '').split(';').map((pair) => pair.trim())
      const start = `${name}=${TAG}`
      const values = pairs.filter((pair) => pair.startsWith(start)).slice(0, MOST_READ)
      return values.map((pair) => open(pair.slice(start.length))).filter((session) => session !== undefined)
    },
  }
}

/** RFC 6265bis §4.1.1: a path in an attribute has no semicolon; the encoder of cookies takes no `<` either. */
function pathOf(basePath: string): string {
  return /^[!-:=-~]+$/.test(basePath) ? basePath : '/'
}

/** A value is the secret, a full stop, and the session sealed under that secret. */
function createSessionSealing({ seal, open }: Pick<EarlierCookieDeps, 'seal' | 'open'>) {
  return {
    seal({ id, sub, sid }: EarlierSession): string {
      const secret = randomBytes(16).toString('base64url')
      return `${secret}.${seal(`before ${secret}`, JSON.stringify({ id, sub, sid }))}`
    },
    open(value: string): EarlierSession | undefined {
      const [secret = ''] = value.split('.', 1)
      const text = open(`before ${secret}`, value.slice(secret.length + 1))
      if (text === undefined) return undefined
      const session = JSON.parse(text) as Omit<EarlierSession, 'hash'>
      return { ...session, hash: sessionHash(session.id) }
    },
  }
}
