import { readSessionCookie, type SessionId, sessionHash, sessionIdOf } from '../../src/session/session.ts'
import type { SessionHash } from '../../src/store/port.ts'
import { createBrowser } from '../kit/browsers/browser.ts'

/** One signed-in session. Its user signs in once, so that a token says which session it belongs to. */
export type Visitor = {
  readonly user: string
  readonly cookie: string
  readonly id: SessionId
  readonly hash: SessionHash
  /** The answer that said that the session is over. */
  lost?: { readonly at: number; readonly code: string; readonly reason: string | undefined }
}

/** The origin browsers see: https, so that the cookie is the one of production. */
export const APP = 'https://app.example.test'

const COOKIE_NAME = '__Host-Http-cloakroom'

/** Signs `user` in through one replica; undefined when that did not work out, which is nobody's fault in a storm. */
export async function signIn(user: string, listenUrl: string): Promise<Visitor | undefined> {
  const browser = createBrowser({ origin: APP, connect: { [APP]: listenUrl } })
  try {
    await browser.signIn({ user, password: 'any', returnUrl: '/signed-in' })
    const cookie = browser.cookieHeader()
    const value = readSessionCookie(cookie, COOKIE_NAME)
    if (value === undefined) return undefined
    const id = sessionIdOf(value) as SessionId
    return { user, cookie, id, hash: sessionHash(id) }
  } catch {
    return undefined
  } finally {
    browser.close()
  }
}
