import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RequestHandler } from 'express'
import session, { type Session, type Store as SessionStore } from 'express-session'
import type { SessionConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SessionHash } from '../store/port.ts'
import { type BffSession, type SessionId, sessionHash, type UserClaims } from './bff-session.ts'
import { createRepeatedCookieWarning } from './repeated-cookie.ts'
import { readSessionCookie, sessionIdOf } from './session-cookie.ts'

/** What the session record holds beside express-session's own members. */
export type SessionContents = {
  user?: SignedInUser & { readonly logoutHandle: string }
  createdAt?: number
  /** Epoch ms; set by the store at each read. */
  expiresAt?: number
}

/** Who signed in. */
export type SignedInUser = {
  readonly claims: UserClaims
  readonly idToken: string
  readonly steppedUp?: readonly string[]
  readonly indicators?: readonly string[]
  readonly scopes?: readonly string[]
  readonly granted?: readonly string[]
}

/** The in-process copy of sessions, by the cookie's value. */
export type SessionCopy = {
  peek(cookieValue: string): BffSession | undefined
  load(
    cookieValue: string,
    hash: SessionHash,
    read: () => Promise<BffSession | undefined>,
  ): Promise<BffSession | undefined>
}

export type SessionsDeps = {
  /** Reading this one starts the idle timeout again. */
  readonly store: SessionStore
  /** Reading this one does not. */
  readonly peekingStore: SessionStore
  readonly config: SessionConfig
  /** Sign the cookie; the first signs, all verify. */
  readonly signingSecrets: readonly string[]
  readonly copy: SessionCopy
  readonly log: Logger
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** The browser's sessions. Every method rejects with `store_unavailable` when the store does not answer. */
export type Sessions = {
  /** The request's session, from the in-process copy when that may be believed; being asked counts as activity. */
  find(req: IncomingMessage, res: ServerResponse): BffSession | undefined | Promise<BffSession | undefined>
  /** The same, read from the store, without counting as activity. */
  peek(req: IncomingMessage, res: ServerResponse): Promise<BffSession | undefined>
  /** Begins a session under a new id, whatever cookie came with the request (ASVS 7.2.4), and sets the cookie. */
  signIn(req: IncomingMessage, res: ServerResponse, user: SignedInUser): Promise<BffSession>
  /** The session that the request's cookie names, unverified: good for ending it. Asked before `signIn`. */
  named(req: IncomingMessage): BffSession['hash'] | undefined
  /** Sends no cookie for the session that began with this request: the browser keeps the one it has. */
  withdraw(req: IncomingMessage): void
}

type WithSession = IncomingMessage & { session?: Session & SessionContents; sessionID?: string }

/** The door to express-session: cookie policy, new id at sign-in; express-session writes the record at sign-in and never again. */
export function createSessions(deps: SessionsDeps): Sessions {
  const { copy, config, now } = deps
  const load = sessionLoader(deps, deps.store)
  const loadPeeking = sessionLoader(deps, deps.peekingStore)
  const repeatedCookie = createRepeatedCookieWarning(deps)

  async function read(req: IncomingMessage, res: ServerResponse, loader: Loader) {
    await loader(req, res)
    const found = signedIn(req, now())
    // The copies go by the id as it is written: a cookie that says the same in another spelling is none of ours.
    return found?.id === sessionIdOf(cookieOf(req) ?? '') ? found : undefined
  }

  const cookieOf = (req: IncomingMessage) =>
    readSessionCookie(req.headers.cookie, config.cookie.name, repeatedCookie)

  return {
    find(req, res) {
      const cookieValue = cookieOf(req)
      if (cookieValue === undefined) return undefined
      const known = copy.peek(cookieValue)
      // A clock that was set forward may be past an end that was reckoned before: the store knows what is left.
      if (known) return now() < known.expiresAt ? known : read(req, res, load)
      return copy.load(cookieValue, sessionHash(sessionIdOf(cookieValue)), () => read(req, res, load))
    },
    async peek(req, res) {
      if (cookieOf(req) === undefined) return undefined
      // express-session would answer a second look at one request from the first.
      delete (req as WithSession).session
      return read(req, res, loadPeeking)
    },
    async signIn(req, res, user) {
      try {
        return await begin(withoutCookies(req), res, user)
      } catch (error) {
        delete (req as WithSession).session
        throw error
      }
    },
    named(req) {
      const cookieValue = cookieOf(req)
      return cookieValue === undefined ? undefined : sessionHash(sessionIdOf(cookieValue))
    },
    withdraw(req) {
      delete (req as WithSession).session
    },
  }

  async function begin(req: IncomingMessage, res: ServerResponse, user: SignedInUser): Promise<BffSession> {
    await load(req, res)
    const { session: begun } = req as WithSession
    if (!begun) throw new BffError('store_unavailable', 'no session could be opened')
    begun.user = { ...user, logoutHandle: randomBytes(16).toString('base64url') }
    begun.createdAt = now()
    begun.expiresAt = now() + Math.min(config.idleTimeoutMs, config.absoluteTimeoutMs)
    await settled((done) => begun.save(done))
    const session = signedIn(req, now())
    if (!session) throw new BffError('store_unavailable', 'the session could not be kept')
    return session
  }
}

/**
 * Nothing that the browser brought can become the new session, and the one it has stays until the new one is safe:
 * `regenerate` would end it first, and save the new one a second time when the answer ends.
 */
function withoutCookies(req: IncomingMessage): IncomingMessage {
  delete (req as WithSession).session
  delete req.headers.cookie
  return req
}

type Loader = (req: IncomingMessage, res: ServerResponse) => Promise<void>

function sessionLoader({ config, signingSecrets }: SessionsDeps, store: SessionStore): Loader {
  const { name, sameSite, secure } = config.cookie
  const middleware: RequestHandler = session({
    store,
    name,
    secret: [...signingSecrets],
    genid: () => randomBytes(32).toString('base64url'),
    resave: false,
    saveUninitialized: false,
    rolling: false,
    cookie: { httpOnly: true, secure, sameSite, path: '/' },
  })
  return (req, res) =>
    settled((done) =>
      middleware(req as Parameters<RequestHandler>[0], res as Parameters<RequestHandler>[1], done),
    )
}

function signedIn(req: IncomingMessage, now: number): BffSession | undefined {
  const { session: found, sessionID } = req as WithSession
  // express-session leaves it undefined when its store says it is disconnected: that is no "signed out".
  if (!found) throw new BffError('store_unavailable', 'the session store is disconnected')
  const { user, createdAt, expiresAt } = found
  if (!user || !sessionID || createdAt === undefined || expiresAt === undefined || expiresAt <= now)
    return undefined
  return { id: sessionID as SessionId, hash: sessionHash(sessionID), createdAt, expiresAt, ...user }
}

function settled(call: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()))
  })
}
