import { createHmac, hash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RequestHandler } from 'express'
import session, { type Session, type Store as SessionStore } from 'express-session'
import type { Clock } from '../async/clock.ts'
import { createExpiringMap } from '../async/expiring-map.ts'
import { createLogThrottle } from '../async/log-throttle.ts'
import type { SessionConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SessionGrant, SessionHash, SessionRecords, UserClaims } from '../store/port.ts'
import type { SessionCache } from './session-cache.ts'

/** The browser's opaque 256-bit session id: it opens the session's records, so it is never logged or stored. */
export type SessionId = string & { readonly __brand: 'SessionId' }

/** A signed-in user's session, as the rest of the program sees it. Its claims follow refreshed ID tokens; the rest is written at sign-in only. */
export type BffSession = SessionGrant & {
  readonly id: SessionId
  readonly hash: SessionHash
  readonly claims: UserClaims
  /** The ID token, for `id_token_hint` at logout. */
  readonly idToken: string
  /** Random value that `GET B/logout?sid=` must carry, so that no other site can sign the user out. */
  readonly logoutHandle: string
  /** Epoch ms of the sign-in; the absolute timeout counts from here. */
  readonly createdAt: number
  /** Epoch ms of the end if nothing more happens: the earlier of the two below. */
  readonly expiresAt: number
  /** Epoch ms at which the idle timeout is over, if nothing more happens. */
  readonly idleExpiresAt: number
  /** Epoch ms at which use does not help any more: the absolute timeout, or what the provider allows if that is sooner. */
  readonly absoluteExpiresAt: number
}

/**
 * The stand-in for the session of a request that comes with an access token of its client's own: it has the claims and
 * the end of that token, and nothing that a store or a provider would know.
 */
export function sessionOfBearer(
  bearer: { readonly hash: string; readonly claims: UserClaims; readonly expiresAt: number },
  now: number,
): BffSession {
  const { claims, expiresAt } = bearer
  const ends = { expiresAt, idleExpiresAt: expiresAt, absoluteExpiresAt: expiresAt }
  // A dot is in no name of a session.
  const hash = `${OF_BEARER}${bearer.hash}` as SessionHash
  return { id: '' as SessionId, hash, claims, idToken: '', logoutHandle: '', createdAt: now, ...ends }
}

const OF_BEARER = 'bearer.'

/** Whether a session is such a stand-in. */
export function isOfBearer({ hash }: { readonly hash: SessionHash }): boolean {
  return hash.startsWith(OF_BEARER)
}

/** Returns the name of a session in the store (contract section 6): a dump of the store holds no usable cookie. */
export function sessionHash(id: string): SessionHash {
  return hash('sha256', id, 'base64url') as SessionHash
}

/** What the session record holds, written once at sign-in; only its claims are changed afterwards (`createFollowClaims`). */
export type SessionContents = {
  user?: SignedInUser & { readonly logoutHandle: string }
  /** Epoch ms of the sign-in. */
  createdAt?: number
}

/** Who signed in. */
export type SignedInUser = SessionGrant & {
  readonly claims: UserClaims
  readonly idToken: string
  /** Epoch ms at which the refresh token ends, where the provider says so. */
  readonly refreshTokenExpiresAt?: number | undefined
}

/** A number of this many seconds would be in the year 5138: it is one of milliseconds, which some write in place of them. */
const LATEST_SECONDS = 1e11

/**
 * Epoch ms beyond which the provider allows no session: its `session_expiry` claim (IPSIE SL1, seconds since the epoch) and
 * the end of the refresh token, which would only be found dead later. Infinity when it says neither.
 */
function ceilingOf({ claims, refreshTokenExpiresAt = Number.POSITIVE_INFINITY }: SignedInUser): number {
  const { session_expiry: expiry } = claims
  const stated = typeof expiry === 'number' || typeof expiry === 'string' ? Number(expiry) : 0
  const endsAt = stated > LATEST_SECONDS ? stated : stated * 1000
  return Math.min(endsAt > 0 ? endsAt : Number.POSITIVE_INFINITY, refreshTokenExpiresAt)
}

/** The in-process copy of sessions, by the cookie's value. */
export type SessionCopy = Pick<SessionCache<BffSession>, 'peek' | 'peekOf' | 'load'>

export type SessionsDeps = Pick<Clock, 'now' | 'monotonicNow'> & {
  /** The store that express-session saves to. `contents` resolves with undefined for a record that is not there or does not open. */
  readonly store: SessionStore & { contents(id: string): Promise<SessionContents | undefined> }
  readonly records: Pick<SessionRecords, 'slide' | 'timeLeft'>
  readonly config: SessionConfig
  /** Sign the cookie; the first signs, all verify. */
  readonly signingSecrets: readonly string[]
  readonly copy: SessionCopy
  /** Called with a session that is refused because it is past its end by our clock. */
  readonly expired?: (id: string) => void
  /** Begins to read the access token of a resource while the session is read. */
  readonly readAhead?: (owner: Pick<BffSession, 'id' | 'hash'>, resource: string) => void
  /** Keeps from where a session was used, for the list of sessions. Called once a minute at most, and not waited for. */
  readonly noteUse?: (session: BffSession, req: IncomingMessage) => Promise<unknown>
  /** Runs what waits for the store as work of its request. */
  readonly runFor?: <T>(req: IncomingMessage, work: () => T) => T
  readonly log: Logger
}

/** Whether a script asks by itself and not for a user: `Cloakroom-Background: 1` (contract section 4). */
export function isBackground({ headers }: IncomingMessage): boolean {
  return headers['cloakroom-background'] === '1'
}

/** How often it is kept from where a session was used. */
const USE_NOTED_EVERY_MS = 60_000
const USES_HELD = 100_000

/** The browser's sessions. Every method that returns a promise rejects with `store_unavailable` when the store does not answer. */
export type Sessions = {
  /**
   * Returns the request's session, from the in-process copy while that may be trusted. Counts as activity, unless the
   * request says that it runs in the background.
   *
   * @param resource whose access token will be asked for next: it is read in the same round trip.
   */
  find(req: IncomingMessage, resource?: string): BffSession | undefined | Promise<BffSession | undefined>
  /** Returns the same, always from the store, and does not count as activity. */
  peek(req: IncomingMessage): Promise<BffSession | undefined>
  /**
   * Returns the ms until a session ends if nothing more happens; undefined when it has ended. Does not count as activity.
   * A copy that may be trusted answers while it says that the session lives; only the store says that it has ended.
   */
  timeLeft(session: Pick<BffSession, 'id' | 'hash' | 'expiresAt'>): Promise<number | undefined>
  /** Begins a session under a new id, whatever cookie came with the request (ASVS 7.2.4), and sets the cookie. */
  signIn(req: IncomingMessage, res: ServerResponse, user: SignedInUser): Promise<BffSession>
  /** Returns the session that the request's cookie names, unverified: good for ending it. Ask before `signIn`. */
  named(req: IncomingMessage): SessionHash | undefined
  /** Sends no cookie for the session that began with this request: the browser keeps the one it has. */
  withdraw(req: IncomingMessage): void
}

type WithSession = IncomingMessage & { session?: Session & SessionContents; sessionID?: string }

/**
 * Makes the sessions of one configuration. Reading takes the cookie and nothing else of a request, so that requests,
 * upgrades and long answers all read in the same way; express-session begins sessions: id, record, signed cookie.
 */
export function createSessions(deps: SessionsDeps): Sessions {
  const { store, records, copy, config, signingSecrets, now, runFor = (_, work) => work() } = deps
  const repeatedCookie = createRepeatedCookieWarning(deps)
  const cookieOf = (req: IncomingMessage) =>
    readSessionCookie(req.headers.cookie, config.cookie.name, repeatedCookie)
  const noteUse = createUseNotes(deps)
  const begin = createBegin(deps, noteUse)

  /**
   * Reads the record, and either starts its idle timeout again or asks for what is left of it, in one round trip. The idle
   * timeout goes by the store's clock, the absolute one by ours.
   */
  async function read(
    { id, hash }: Pick<BffSession, 'id' | 'hash'>,
    life: 'slide' | 'timeLeft',
    req?: IncomingMessage,
  ): Promise<BffSession | undefined> {
    const [contents, leftMs] = await Promise.all([store.contents(id), records[life](hash)])
    if (!contents?.user || leftMs === undefined) return undefined
    const { user, createdAt = Number.NaN } = contents
    const session = sessionOf({ id, hash, createdAt, user }, { config, idleExpiresAt: now() + leftMs })
    // NaN, for a record without a sign-in time, is never later than now. The record is not removed: our clock may be
    // wrong, and other replicas share the record. The store ends it by its own clock.
    if (!(now() < session.expiresAt)) {
      if (req) deps.expired?.(id)
      return undefined
    }
    if (req && life === 'slide') noteUse(session, req)
    return session
  }

  function find(
    req: IncomingMessage,
    resource?: string,
  ): BffSession | undefined | Promise<BffSession | undefined> {
    const cookieValue = cookieOf(req)
    if (cookieValue === undefined) return undefined
    // What was read for the background has a copy of its own, so that it keeps no other request from sliding the session.
    const key = isBackground(req) ? `background ${cookieValue}` : cookieValue
    const known = copy.peek(cookieValue) ?? (key === cookieValue ? undefined : copy.peek(key))
    if (known && now() < known.expiresAt) return known
    const id = verifiedSessionId(cookieValue, signingSecrets)
    if (id === undefined) return undefined
    const owner = { id, hash: sessionHash(id) }
    const look = () => read(owner, key === cookieValue ? 'slide' : 'timeLeft', req)
    // Our clock was set forward past an end that was computed before: the store knows what is left.
    const found = runFor(req, () => (known ? look() : copy.load(key, owner.hash, look)))
    // In this same turn, so that Redis gets all of it at once.
    if (resource !== undefined) deps.readAhead?.(owner, resource)
    return found
  }

  return {
    find,
    async peek(req) {
      const cookieValue = cookieOf(req)
      const id = cookieValue === undefined ? undefined : verifiedSessionId(cookieValue, signingSecrets)
      return id === undefined ? undefined : read({ id, hash: sessionHash(id) }, 'timeLeft', req)
    },
    async timeLeft(session) {
      if (isOfBearer(session)) return session.expiresAt - now()
      const copied = copy.peekOf(session.hash)
      if (copied && now() < copied.expiresAt) return copied.expiresAt - now()
      // The whole record, because a refresh may have moved the end that the provider allows.
      const current = await read(session, 'timeLeft')
      return current && current.expiresAt - now()
    },
    async signIn(req, res, user) {
      try {
        return await begin(req, res, user)
      } catch (error) {
        withdraw(req)
        throw error
      }
    },
    named(req) {
      const cookieValue = cookieOf(req)
      return cookieValue === undefined ? undefined : sessionHash(sessionIdOf(cookieValue))
    },
    withdraw,
  }
}

/** express-session sets a cookie for the session that it finds on the request, when the response begins. */
function withdraw(req: IncomingMessage): void {
  delete (req as WithSession).session
}

/** A session as its record and its idle timeout give it. */
function sessionOf(
  { user, ...known }: Pick<BffSession, 'id' | 'hash' | 'createdAt'> & Pick<Required<SessionContents>, 'user'>,
  { config, idleExpiresAt }: { config: SessionConfig; idleExpiresAt: number },
): BffSession {
  const absoluteExpiresAt = Math.min(known.createdAt + config.absoluteTimeoutMs, ceilingOf(user))
  const expiresAt = Math.min(absoluteExpiresAt, idleExpiresAt)
  return { ...known, expiresAt, idleExpiresAt, absoluteExpiresAt, ...user }
}

type NoteUse = (session: BffSession, req: IncomingMessage) => Promise<unknown> | undefined

/** Keeps uses beside the requests, and not each of them: what a list of sessions says need not cost a round trip. */
function createUseNotes({ noteUse, monotonicNow }: SessionsDeps): NoteUse {
  const noted = createExpiringMap<SessionHash, true>({ monotonicNow, max: USES_HELD })
  return function note(session, req) {
    if (!noteUse || noted.get(session.hash)) return undefined
    noted.set(session.hash, true, USE_NOTED_EVERY_MS)
    return noteUse(session, req).catch(() => undefined)
  }
}

/** Begins sessions with express-session: a random id, one save, and the signed cookie when the response begins. */
function createBegin(
  { store, config, signingSecrets, now }: SessionsDeps,
  noteUse: NoteUse,
): Sessions['signIn'] {
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
  type HandlerArgs = Parameters<RequestHandler>

  return async function begin(req, res, user) {
    const createdAt = now()
    if (ceilingOf(user) <= createdAt) {
      throw new BffError('invalid_callback', 'the provider lets this session end before it has begun', {
        details: { reason: 'session_expiry' },
      })
    }
    // No cookie of the request can become the new session. The session it has now stays until the new one is stored:
    // `regenerate` would end it first, and save the new one a second time when the response ends.
    withdraw(req)
    delete req.headers.cookie
    await settled((done) => middleware(req as HandlerArgs[0], res as HandlerArgs[1], done))
    const { session: begun, sessionID } = req as WithSession
    // express-session leaves it undefined while its store says that it is disconnected.
    if (!begun || !sessionID) throw new BffError('store_unavailable', 'no session could be opened')
    const signedIn = { ...user, logoutHandle: randomBytes(16).toString('base64url') }
    Object.assign(begun, { user: signedIn, createdAt } satisfies SessionContents)
    await settled((done) => begun.save(done))
    const record = { id: sessionID as SessionId, hash: sessionHash(sessionID), createdAt, user: signedIn }
    const opened = sessionOf(record, { config, idleExpiresAt: createdAt + config.idleTimeoutMs })
    await noteUse(opened, req)
    return opened
  }
}

function settled(call: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()))
  })
}

/**
 * Returns the raw value of the session cookie in a Cookie header. Undefined when there is none, or more than one: two
 * cookies of that name are a sign of fixation, and their order is not guaranteed (RFC 6265 §4.2.2). `repeated` is called then.
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

/** Whether a Cookie header has a session cookie, or several, of whatever worth. */
export function hasSessionCookie(header: string | undefined, name: string): boolean {
  let isRepeated = false
  const value = readSessionCookie(header, name, () => {
    isRepeated = true
  })
  return value !== undefined || isRepeated
}

function startsPair(header: string, at: number): boolean {
  let before = at - 1
  while (before >= 0 && header[before] === ' ') before -= 1
  return before < 0 || header[before] === ';'
}

/** Returns the session id that a cookie value claims, before its signature is verified: good for naming, not for trust. */
export function sessionIdOf(cookieValue: string): string {
  const [, id] = /^s(?:%3A|:)([^.]*)\./i.exec(cookieValue) ?? []
  return id ?? cookieValue
}

/**
 * Returns the session id of a cookie value that one of the secrets has signed; undefined for every other value. The
 * format is that of express-session: `s:ID.` and the HMAC-SHA-256 of the id, base64 without padding, percent-encoded.
 * An id that is written in another spelling is refused, so that one session has one name among the copies.
 */
export function verifiedSessionId(cookieValue: string, secrets: readonly string[]): SessionId | undefined {
  const id = sessionIdOf(cookieValue)
  const given = Buffer.from(decoded(cookieValue))
  const isSigned = secrets.some((secret) => {
    const signature = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
    const expected = Buffer.from(`s:${id}.${signature}`)
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
  return isSigned ? (id as SessionId) : undefined
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}

/**
 * Makes the warning about requests with several session cookies, a sign of fixation (ASVS 7.2.1). The first is logged at
 * once, then at most once a minute how many there were since, so that a client cannot fill the log with them.
 */
export function createRepeatedCookieWarning({
  log,
  monotonicNow,
}: {
  log: Logger
  monotonicNow: () => number
}): () => void {
  const throttle = createLogThrottle({ monotonicNow })
  return function repeatedCookie() {
    const count = throttle.count('repeated_cookie')
    if (count === undefined) return
    const fields = { reason: 'repeated_cookie', count }
    log.warn(fields, 'requests with several session cookies are treated as signed out')
  }
}
