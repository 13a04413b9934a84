import { randomUUID } from 'node:crypto'
import type { Waiting } from '../../async/clock.ts'
import { BffError } from '../../errors.ts'
import type { SessionHash, TokenRecords } from '../../store/port.ts'

/** One wish for a fresh token. */
export type Turn<T> = {
  readonly hash: SessionHash
  readonly resource: string
  /** Wishes of another kind are not answered by each other's result. */
  readonly kind?: string
  /** Looks in the store whether somebody else has done the work meanwhile. */
  readonly settled: () => Promise<T | undefined>
  /**
   * Does the work; runs while `owner` holds the session's refresh lock. What is given to `hold` keeps the turn from
   * ending until it settles, without keeping the caller.
   */
  readonly work: (owner: string, hold: (until: Promise<unknown>) => void) => Promise<T>
}

/** How a wish was served, for metrics. */
export type TurnOutcome = 'worked' | 'coalesced' | 'settled_elsewhere' | 'lock_timeout'

export type RefreshTurnsDeps = {
  readonly records: Pick<TokenRecords, 'lock' | 'unlock'>
  /**
   * Waits for a place towards the provider. It is taken before the lock and given back while another replica has that:
   * a lock that waited in a queue could end before its owner is done, and a whole queue would poll the store for locks.
   */
  readonly admit: <T>(work: () => Promise<T>) => Promise<T>
  readonly waiting: Waiting
  /** Longer than one provider call and the writes around it can take. */
  readonly lockTtlMs: number
  /** How long a caller waits for another replica before it gives up with `provider_unavailable`. */
  readonly waitMs: number
  readonly observe: (outcome: TurnOutcome, resource: string, waitedMs: number) => void
  /** Told of each turn, until all that it holds has settled. */
  readonly underWay?: (turn: Promise<unknown>) => void
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
    const key = JSON.stringify([turn.hash, turn.resource, turn.kind])
    const running = inFlight.get(key)
    if (running) {
      deps.observe('coalesced', turn.resource, 0)
      return running as Promise<T>
    }
    const previous = lastOfSession.get(turn.hash) ?? Promise.resolve()
    const held: Promise<unknown>[] = []
    const result = before(previous, deps).then(() => acrossReplicas(deps, turn, held))
    const over = Promise.allSettled([previous, result]).then(() => Promise.allSettled(held))
    inFlight.set(key, result)
    lastOfSession.set(turn.hash, over)
    deps.underWay?.(over)
    const forget = () => inFlight.delete(key)
    result.then(forget, forget)
    over.then(() => {
      if (lastOfSession.get(turn.hash) === over) lastOfSession.delete(turn.hash)
    })
    return result
  }
}

/** Waits for this process's own turn before, but no longer than for another replica's. */
async function before(previous: Promise<unknown>, { waiting, waitMs }: RefreshTurnsDeps): Promise<void> {
  const enough = new AbortController()
  const late = waiting.pause(waitMs, enough.signal).then(() => 'late')
  const first = await Promise.race([previous.then(() => undefined), late])
  enough.abort('over')
  if (first === 'late') throw stillBusy()
}

async function acrossReplicas<T>(
  deps: RefreshTurnsDeps,
  turn: Turn<T>,
  held: Promise<unknown>[],
): Promise<T> {
  const owner = randomUUID()
  let startedAt: number | undefined
  for (;;) {
    const result = await deps.admit(() => {
      startedAt ??= deps.waiting.elapsedMs()
      return lockAndWork(deps, turn, { owner, startedAt, held })
    })
    if (result !== undefined) return result
    const waitedMs = deps.waiting.elapsedMs() - (startedAt ?? 0)
    const done = await turn.settled()
    if (done !== undefined) {
      deps.observe('settled_elsewhere', turn.resource, waitedMs)
      return done
    }
    if (waitedMs > deps.waitMs) {
      deps.observe('lock_timeout', turn.resource, waitedMs)
      throw stillBusy()
    }
    await deps.waiting.pause(25 + Math.random() * 25)
  }
}

/** Undefined when another replica has the lock. */
async function lockAndWork<T>(
  deps: RefreshTurnsDeps,
  turn: Turn<T>,
  { owner, startedAt, held }: { owner: string; startedAt: number; held: Promise<unknown>[] },
): Promise<T | undefined> {
  // A lock that cannot be given back ends by itself; the caller's result must not.
  const unlock = () => deps.records.unlock(turn.hash, owner).catch(() => undefined)
  try {
    if (!(await deps.records.lock(turn.hash, owner, deps.lockTtlMs))) return undefined
  } catch (error) {
    // The store may have given it all the same, with nobody left to hear it. Not awaited: the store is slow as it is.
    unlock()
    throw error
  }
  try {
    return await underLock(deps, turn, { owner, waitedMs: deps.waiting.elapsedMs() - startedAt, held })
  } finally {
    if (held.length === 0) await unlock()
    else held.push(Promise.allSettled([...held]).then(unlock))
  }
}

async function underLock<T>(
  deps: RefreshTurnsDeps,
  turn: Turn<T>,
  { owner, waitedMs, held }: { owner: string; waitedMs: number; held: Promise<unknown>[] },
): Promise<T> {
  const done = await turn.settled()
  deps.observe(done === undefined ? 'worked' : 'settled_elsewhere', turn.resource, waitedMs)
  return done ?? turn.work(owner, (until) => held.push(until))
}

function stillBusy(): BffError {
  return new BffError('provider_unavailable', 'this session is still being refreshed', {
    retryAfterSeconds: 2,
  })
}
