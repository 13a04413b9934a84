import { RedisStore } from 'connect-redis'
import { BffError } from '../errors.ts'
import type { SessionHash, SessionRecords } from './port.ts'

/** Attributes of the session cookie, as express-session names them. */
export type SessionCookieAttributes = {
  readonly path: string
  readonly httpOnly: boolean
  readonly secure: boolean
  readonly sameSite: 'strict' | 'lax'
}

/** What the store behind express-session is made of. */
export type SessionStoreDeps = {
  readonly records: SessionRecords
  seal(id: string, plaintext: string): string
  /** Undefined when nothing opens it. */
  open(id: string, sealed: string): string | undefined
  hash(id: string): SessionHash
  /** Today's attributes: those of the day the session began are not kept. */
  cookie(): SessionCookieAttributes
  /** Whether reading a session starts its idle timeout again. */
  readonly slide: boolean
  readonly absoluteTimeoutMs: number
  now(): number
  /** Told of a session that is found past its end, and removed. */
  expired?(id: string): void
}

/**
 * The store behind express-session, in any store of port.ts. A session must be saved with `createdAt`, epoch ms of
 * its login; one that is read has `expiresAt`, epoch ms of its end, and `stored: true`, neither of which is kept.
 * Saving a session that has ended meanwhile fails with `session_required`: it is never revived.
 */
export function createSessionStore(deps: SessionStoreDeps): RedisStore {
  return new SealedSessionStore(deps)
}

type SavedSession = Parameters<RedisStore['set']>[1]
type LivingSession = { readonly createdAt?: number; readonly expiresAt: number; readonly stored: true }
type Callback = (error: unknown, found?: unknown) => void

class SealedSessionStore extends RedisStore {
  readonly #deps: SessionStoreDeps

  constructor(deps: SessionStoreDeps) {
    super({
      client: recordClient(deps),
      prefix: '',
      // Expiry is the store's, and slides on read: the last byte of a response then waits for nothing.
      disableTTL: true,
      disableTouch: true,
      serializer: { stringify: packSession, parse: (text) => unpackSession(text, deps) as never },
    })
    this.#deps = deps
  }

  override get(id: string, callback?: Callback) {
    return outside(this.#living(id), callback)
  }

  override set(id: string, session: SavedSession, callback?: Callback) {
    return outside(this.#saved(id, session), callback)
  }

  override destroy(id: string, callback?: Callback) {
    return outside(super.destroy(id), callback)
  }

  async #living(id: string): Promise<LivingSession | null> {
    const session: LivingSession | null = await super.get(id)
    // A record without a login time has no right to live: NaN is never later than now. It is refused and not removed: it
    // may be our clock that is wrong, and the record is everybody's. The store ends it by its own.
    if (session === null || this.#deps.now() < session.expiresAt) return session
    this.#deps.expired?.(id)
    return null
  }

  async #saved(id: string, session: SavedSession): Promise<void> {
    await super.set(id, session)
    // The next save of this object replaces. Not enumerable, or express-session would take it for a modification.
    Object.defineProperty(session, 'stored', { value: true, configurable: true, writable: true })
  }
}

/** RedisStore calls back inside its own `try`, so that a callback that throws is called twice: here it is called outside. */
function outside(result: Promise<unknown>, callback: Callback | undefined): Promise<unknown> {
  if (!callback) return result
  return result.then(
    (found) => process.nextTick(callback, null, found),
    (error) => process.nextTick(callback, error),
  )
}

/** The client that RedisStore asks for, over the port. */
function recordClient({ records, hash, seal, open, slide }: SessionStoreDeps) {
  return {
    async get(id: string): Promise<string | null> {
      const found = await records.read(hash(id), { slide })
      const json = found && open(id, found.value)
      // A record that does not open is left alone: another replica may have its key already, or still.
      return found && json !== undefined ? join(String(found.expiresInMs), json) : null
    },
    async set(id: string, text: string): Promise<void> {
      const [verb, json] = split(text)
      const sealed = seal(id, json)
      const saved = verb === 'replace' ? records.replace(hash(id), sealed) : records.create(hash(id), sealed)
      if (!(await saved)) throw new BffError('session_required', 'the session ended before it was saved')
    },
    async del([id]: readonly [string]): Promise<void> {
      await records.end(hash(id))
    },
  }
}

function packSession(session: object): string {
  const { cookie, stored, expiresAt, ...kept } = session as Record<string, unknown>
  return join(stored ? 'replace' : 'create', JSON.stringify(kept))
}

function unpackSession(text: string, { cookie, now, absoluteTimeoutMs }: SessionStoreDeps): LivingSession {
  const [expiresInMs, json] = split(text)
  const session = JSON.parse(json) as { createdAt?: number }
  const absoluteEnd =
    typeof session.createdAt === 'number' ? session.createdAt + absoluteTimeoutMs : Number.NaN
  const expiresAt = Math.min(absoluteEnd, now() + Number(expiresInMs))
  return { ...session, ...{ cookie: cookie() }, expiresAt, stored: true }
}

/** RedisStore hands one string between serializer and client: the word in front tells what the JSON does not. */
function join(word: string, json: string): string {
  return `${word} ${json}`
}

function split(text: string): [word: string, json: string] {
  const space = text.indexOf(' ')
  return [text.slice(0, space), text.slice(space + 1)]
}
