import { createHmac, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { SessionHash, SessionRecords } from '../store/port.ts'
import { sessionHash } from './bff-session.ts'
import { readSessionCookie, sessionIdOf } from './session-cookie.ts'

/**
 * Why a request has no session, for operators alone. `repeated`: two cookies of the name. `forged`: no key of ours has
 * signed the cookie. `expired`: its longest life is over. `unknown`: the store has no such session; it has ended, or was
 * idle for too long. `key_gone`: it is there, under a session key that is no longer configured.
 */
export type MissingSession = 'absent' | 'repeated' | 'forged' | 'expired' | 'unknown' | 'key_gone'

export type MissingSessionDeps = {
  readonly cookieName: string
  /** Those that verify the cookie. */
  readonly signingSecrets: readonly string[]
  readonly records: Pick<SessionRecords, 'read'>
  /** Undefined when no session key opens it. */
  readonly open: (id: string, sealed: string) => string | undefined
  readonly monotonicNow: () => number
  /** Told of each reason that was found. */
  readonly observe?: (reason: MissingSession) => void
}

/** Remembers what expired, and finds out about the rest when it is asked. */
export type MissingSessions = {
  /** This session was found past its end by our clock, and is refused. */
  noteExpired(id: string): void
  /** Undefined when the session is there after all, or the store does not say. Never rejects. */
  reasonOf(req: IncomingMessage): Promise<MissingSession | undefined>
}

const EXPIRED_REMEMBERED = 1_000
/** A cookie that nobody signed costs a read of the store, which strangers may not cause as often as they like. */
const LOOKS_PER_SECOND = 20

/** Makes it, with nothing remembered. */
export function createMissingSessions(deps: MissingSessionDeps): MissingSessions {
  const expired = new Set<SessionHash>()
  const mayLook = createLimit(LOOKS_PER_SECOND, deps.monotonicNow)

  async function reasonOf(req: IncomingMessage): Promise<MissingSession | undefined> {
    let isRepeated = false
    const value = readSessionCookie(req.headers.cookie, deps.cookieName, () => {
      isRepeated = true
    })
    if (value === undefined) return isRepeated ? 'repeated' : 'absent'
    const id = sessionIdOf(value)
    const isSigned = isSignedBy(value, id, deps.signingSecrets)
    if (!isSigned && !mayLook()) return 'forged'
    const record = await deps.records.read(sessionHash(id), { slide: false })
    if (!isSigned) return record && deps.open(id, record.value) === undefined ? 'key_gone' : 'forged'
    const isExpired = expired.has(sessionHash(id))
    if (!record) return isExpired ? 'expired' : 'unknown'
    if (deps.open(id, record.value) === undefined) return 'key_gone'
    return isExpired ? 'expired' : undefined
  }

  return {
    noteExpired(id) {
      expired.add(sessionHash(id))
      const [oldest] = expired
      if (expired.size > EXPIRED_REMEMBERED && oldest !== undefined) expired.delete(oldest)
    },
    async reasonOf(req) {
      const reason = await reasonOf(req).catch(() => undefined)
      if (reason) deps.observe?.(reason)
      return reason
    },
  }
}

/** As express-session signs: `s:ID.` and the HMAC-SHA-256 of the id, base64 without padding. */
function isSignedBy(value: string, id: string, secrets: readonly string[]): boolean {
  const decoded = decodedValue(value)
  const signature = Buffer.from(decoded.slice(decoded.lastIndexOf('.') + 1))
  return secrets.some((secret) => {
    const expected = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
    return signature.length === expected.length && timingSafeEqual(signature, Buffer.from(expected))
  })
}

function decodedValue(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    return value
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
