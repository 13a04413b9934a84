import { RedisStore } from 'connect-redis'
import { BffError } from '../errors.ts'
import type { SessionHash, SessionIndexes, SessionRecords, UserClaims } from './port.ts'

/** Attributes of the session cookie, as express-session names them. */
export type SessionCookieAttributes = {
  readonly path: string
  readonly httpOnly: boolean
  readonly secure: boolean
  readonly sameSite: 'strict' | 'lax'
}

/** What the store behind express-session needs. */
export type SessionStoreDeps = {
  readonly records: Pick<SessionRecords, 'read' | 'create' | 'end'>
  seal(id: string, plaintext: string): string
  /** Undefined when no key opens it. */
  open(id: string, sealed: string): string | undefined
  hash(id: string): SessionHash
  /** Under which names a session is found without its cookie. */
  readonly indexesOf?: (claims: UserClaims) => SessionIndexes
  /** The attributes of today: those of the day the session began are not kept. */
  readonly cookie: SessionCookieAttributes
}

/**
 * Makes the store behind express-session, over any store of port.ts: hashed keys, sealed values. A session is saved once;
 * saving it again, or one that was read, fails with `session_required`, because a late save would revive one that has
 * ended. Lives are the records' own: RedisStore sets and touches none, so the last byte of a response waits for nothing.
 */
export function createSessionStore(deps: SessionStoreDeps) {
  const { records, seal, open, hash, cookie } = deps

  // A record that does not open counts as absent and stays: another replica may have its key already, or still.
  const opened = (id: string, sealed: string | undefined) =>
    sealed === undefined ? undefined : open(id, sealed)

  const store = new RedisStore({
    prefix: '',
    disableTTL: true,
    disableTouch: true,
    client: {
      get: async (id: string) => opened(id, await records.read(hash(id))) ?? null,
      async set(id: string, text: string): Promise<void> {
        const { user } = JSON.parse(text) as { user?: { claims: UserClaims } }
        const indexes = user && deps.indexesOf?.(user.claims)
        if (!(await records.create(hash(id), seal(id, text), indexes))) throw savedBefore()
      },
      async del([id]: readonly [string]): Promise<void> {
        await records.end(hash(id))
      },
    },
    serializer: {
      stringify(session: object): string {
        const { cookie, stored, ...kept } = session as Record<string, unknown>
        if (stored) throw savedBefore()
        // Not enumerable: express-session would take it for a modification.
        Object.defineProperty(session, 'stored', { value: true })
        return JSON.stringify(kept)
      },
      parse: (text) => ({ ...JSON.parse(text), cookie, stored: true }),
    },
  })
  return Object.assign(store, {
    /** The contents of a record without the cookie that express-session adds; undefined if it is absent or does not open. */
    async contents(id: string): Promise<object | undefined> {
      const text = opened(id, await records.read(hash(id)))
      return text === undefined ? undefined : JSON.parse(text)
    },
  })
}

const savedBefore = () =>
  new BffError('session_required', 'the session was saved before, and may have ended since')
