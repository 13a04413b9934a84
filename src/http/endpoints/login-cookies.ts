import type { IncomingMessage } from 'node:http'
import type { CookieOptions, Response } from 'express'

/** The short-lived cookies of sign-in attempts: one for each attempt, so that two tabs may sign in at once. */
export type LoginCookies = {
  /** Sets the cookie of a new attempt, and drops the oldest of more than eight. */
  set(req: IncomingMessage, res: Response, attempt: { id: string; secret: string }): void
  read(req: IncomingMessage, id: string): string | undefined
  /** The secrets of all attempts but this one. */
  others(req: IncomingMessage, id: string): string[]
  clear(res: Response, id: string): void
}

const MAX_ATTEMPTS = 8

/** Makes them. @param cookie the session cookie: their names begin with its name. */
export function createLoginCookies(
  cookie: { name: string; secure: boolean },
  lifetimeMs: number,
): LoginCookies {
  const prefix = `${cookie.name}-login-`
  // Lax, because the redirect from the provider is a cross-site navigation.
  const attributes: CookieOptions = { httpOnly: true, secure: cookie.secure, sameSite: 'lax', path: '/' }
  return {
    set(req, res, { id, secret }) {
      // User agents send cookies of one path oldest first (RFC 6265 §5.4).
      const held = ownCookies(req, prefix)
      for (const [name] of held.slice(0, Math.max(0, held.length - (MAX_ATTEMPTS - 1)))) {
        res.clearCookie(name, attributes)
      }
      res.cookie(prefix + id, secret, { ...attributes, maxAge: lifetimeMs })
    },
    read: (req, id) => ownCookies(req, prefix).find(([name]) => name === prefix + id)?.[1],
    others: (req, id) =>
      ownCookies(req, prefix)
        .filter(([name]) => name !== prefix + id)
        .slice(-MAX_ATTEMPTS)
        .map(([, secret]) => secret),
    clear: (res, id) => {
      res.clearCookie(prefix + id, attributes)
    },
  }
}

function ownCookies(req: IncomingMessage, prefix: string): [name: string, value: string][] {
  return (req.headers.cookie ?? '')
    .split(';')
    .map((pair): [string, string] => {
      const [name = '', ...value] = pair.trim().split('=')
      return [name, value.join('=')]
    })
    .filter(([name]) => name.startsWith(prefix))
}
