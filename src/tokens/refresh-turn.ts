import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { BffError } from '../errors.ts'
import type { SessionHash, TokenRecords } from '../store/port.ts'

/** One wish for a fresh token. */
export type Turn<T> = {
  readonly hash: SessionHash
  readonly resource: string
  /** Looks in the store whether somebody else has done the work meanwhile. */
  readonly settled: () => Promise<T | undefined>
  /** Does the work; runs while `owner` holds the session's refresh lock. */
  readonly work: (owner: string) => Promise<T>
}

/** How a wish was served, for metrics. */
export type TurnOutcome = 'worked' | 'coalesced' | 'settled_elsewhere' | 'lock_timeout'

export type RefreshTurnsDeps = {
  readonly records: Pick<TokenRecords, 'lock' | 'unlock'>
  readonly now: () => number
  /** Longer than one provider call and the writes around it can take. */
  readonly lockTtlMs: number
  /** How long a caller waits for another replica before it gives up with `provider_unavailable`. */
  readonly waitMs: number
  readonly observe: (outcome: TurnOutcome, resource: string, waitedMs: number) => void
}

/** One refresh at a time per session: all its resources share one refresh token, and a rotated one must not be spent twice. */
export type TakeTurn = <T>(turn: Turn<T>) => Promise<T>

/**
 * First a promise within this process, then a lock owned in the store across replicas, then a second look at the
 * store, because whoever held the lock before has most likely done the work (RFC 9700 §4.14.2).
 */
export function createRefreshTurns(deps: RefreshTurnsDeps): TakeTurn {
  const inFlight = new Map<string, Promise<unknown>>()
  const lastOfSession = new Map<SessionHash, Promise<unknown>>()

  return function takeTurn<T>(turn: Turn<T>): Promise<T> {
    // A hash has a fixed length, so the pair cannot be confused with another.
    const key = turn.hash + turn.resource
    const running = inFlight.get(key)
    if (running) {
      deps.observe('coalesced', turn.resource, 0)
      return running as Promise<T>
    }
    const previous = lastOfSession.get(turn.hash)
    const mine = (previous ?? Promise.resolve()).then(
      () => acrossReplicas(deps, turn),
      () => acrossReplicas(deps, turn),
    )
    inFlight.set(key, mine)
    lastOfSession.set(turn.hash, mine)
    const forget = () => {
      inFlight.delete(key)
      if (lastOfSession.get(turn.hash) === mine) lastOfSession.delete(turn.hash)
    }
    mine.then(forget, forget)
    return mine
  }
}

async function acrossReplicas<T>(deps: RefreshTurnsDeps, turn: Turn<T>): Promise<T> {
  const owner = randomUUID()
  const startedAt = deps.now()
  while (!(await deps.records.lock(turn.hash, owner, deps.lockTtlMs))) {
    const waitedMs = deps.now() - startedAt
    const done = await turn.settled()
    if (done !== undefined) {
      deps.observe('settled_elsewhere', turn.resource, waitedMs)
      return done
    }
    if (waitedMs > deps.waitMs) {
      deps.observe('lock_timeout', turn.resource, waitedMs)
      throw new BffError('provider_unavailable', 'another replica is still refreshing this session', {
        retryAfterSeconds: 2,
      })
    }
    await delay(25 + Math.random() * 25)
  }
  try {
    return await underLock(deps, turn, owner, startedAt)
  } finally {
    // A lock that cannot be given back ends by itself; the caller's result must not.
    await deps.records.unlock(turn.hash, owner).catch(() => undefined)
  }
}

async function underLock<T>(
  deps: RefreshTurnsDeps,
  turn: Turn<T>,
  owner: string,
  startedAt: number,
): Promise<T> {
  const waitedMs = deps.now() - startedAt
  const done = await turn.settled()
  deps.observe(done === undefined ? 'worked' : 'settled_elsewhere', turn.resource, waitedMs)
  return done ?? turn.work(owner)
}
