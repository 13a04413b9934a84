import type { IncomingMessage } from 'node:http'
import type { SessionHash, SessionRecords } from '../store/port.ts'
import { readSessionCookie, sessionHash, sessionIdOf, verifiedSessionId } from './session.ts'

/**
 * Why a request has no session, for operators alone. `repeated`: two cookies of the name. `forged`: none of our keys
 * signed the cookie. `expired`: the absolute timeout is over. `unknown`: the store has no such session; it has ended, or
 * was idle for too long. `key_gone`: the record is there, under a session key that is no longer configured.
 */
export type MissingSession = 'absent' | 'repeated' | 'forged' | 'expired' | 'unknown' | 'key_gone'

export type MissingSessionDeps = {
  readonly cookieName: string
  /** Verify the cookie. */
  readonly signingSecrets: readonly string[]
  readonly records: Pick<SessionRecords, 'read'>
  /** Undefined when no session key opens it. */
  readonly open: (id: string, sealed: string) => string | undefined
  readonly monotonicNow: () => number
  /** Told of each reason that was found. */
  readonly observe?: (reason: MissingSession) => void
  /** Told once of each session that was found to be past its end. */
  readonly observeExpired?: (hash: SessionHash) => void
}

/** Finds out why a request has no session. */
export type MissingSessions = {
  /** Notes a session that was refused because it is past its end by our clock. */
  noteExpired(id: string): void
  /**
   * Undefined when the session is there after all, or the store does not answer. A promise only where the store is asked;
   * never rejects.
   */
  reasonOf(req: IncomingMessage): MissingSession | undefined | Promise<MissingSession | undefined>
}

const EXPIRED_REMEMBERED = 1_000
/** A cookie without a valid signature costs a read of the store, which strangers may not cause as often as they like. */
const READS_FOR_UNSIGNED_PER_SECOND = 20

/** Makes the explanation for requests without a session; it remembers the last 1,000 sessions that expired. */
export function createMissingSessions(deps: MissingSessionDeps): MissingSessions {
  const expired = new Set<SessionHash>()
  const mayRead = createLimit(READS_FOR_UNSIGNED_PER_SECOND, deps.monotonicNow)

  function reasonOf(req: IncomingMessage): MissingSession | Promise<MissingSession | undefined> {
    let isRepeated = false
    const value = readSessionCookie(req.headers.cookie, deps.cookieName, () => {
      isRepeated = true
    })
    if (value === undefined) return isRepeated ? 'repeated' : 'absent'
    const id = sessionIdOf(value)
    const isSigned = verifiedSessionId(value, deps.signingSecrets) !== undefined
    if (!isSigned && !mayRead()) return 'forged'
    return reasonInStore(id, isSigned)
  }

  async function reasonInStore(id: string, isSigned: boolean): Promise<MissingSession | undefined> {
    const hash = sessionHash(id)
    const sealed = await deps.records.read(hash)
    const isUnopened = sealed !== undefined && deps.open(id, sealed) === undefined
    if (!isSigned) return isUnopened ? 'key_gone' : 'forged'
    if (isUnopened) return 'key_gone'
    if (expired.has(hash)) return 'expired'
    return sealed === undefined ? 'unknown' : undefined
  }

  function observed(reason: MissingSession | undefined): typeof reason {
    if (reason) deps.observe?.(reason)
    return reason
  }

  return {
    noteExpired(id) {
      const hash = sessionHash(id)
      if (expired.has(hash)) return
      expired.add(hash)
      deps.observeExpired?.(hash)
      const [oldest] = expired
      if (expired.size > EXPIRED_REMEMBERED && oldest !== undefined) expired.delete(oldest)
    },
    reasonOf(req) {
      const reason = reasonOf(req)
      if (reason instanceof Promise) return reason.catch(() => undefined).then(observed)
      return observed(reason)
    },
  }
}

function createLimit(perSecond: number, monotonicNow: () => number): () => boolean {
  let second = 0
  let count = 0
  return () => {
    const current = Math.floor(monotonicNow() / 1000)
    if (current !== second) {
      second = current
      count = 0
    }
    count += 1
    return count <= perSecond
  }
}
