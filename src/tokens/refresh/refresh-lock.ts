import { randomUUID } from 'node:crypto'
import type { Clock } from '../../async/clock.ts'
import { within } from '../../async/deadline.ts'
import { createSingleFlight } from '../../async/single-flight.ts'
import { BffError } from '../../errors.ts'
import type { SessionHash, TokenRecords } from '../../store/port.ts'

/** How a caller was served, for metrics. */
export type RefreshLockOutcome = 'worked' | 'coalesced' | 'settled_elsewhere' | 'lock_timeout'

export type RefreshLockDeps = {
  readonly records: Pick<TokenRecords, 'lock' | 'unlock'>
  /**
   * Waits for a permit of the token endpoint limiter. It is taken before the lock and given back while another replica
   * has that: a lock that waited in a queue could end before its owner is done, and a whole queue would poll the store.
   */
  readonly admit: <T>(work: () => Promise<T>) => Promise<T>
  readonly clock: Pick<Clock, 'monotonicNow' | 'pause'>
  /** Longer than one provider call and the writes around it can take; so long a caller waits for another replica, too. */
  readonly lockTtlMs: number
  readonly observe: (outcome: RefreshLockOutcome, resource: string, waitedMs: number) => void
  /** Told of each refresh, until all that it holds has settled. */
  readonly inFlight?: (refresh: Promise<unknown>) => void
}

/** The refresh lock of one session, as the work that holds it sees it. */
export type Lease = {
  readonly owner: string
  /** Keeps the lock until `work` has settled, without keeping the caller. */
  hold(work: Promise<unknown>): void
  /** Counts how the caller was served; the first word counts. */
  observe(outcome: 'worked' | 'settled_elsewhere'): void
}

/** One refresh of one session. */
export type LockedWork<T> = {
  readonly hash: SessionHash
  readonly resource: string
  /** Callers with the same key share one result. */
  readonly key: string
  /** Looks in the store, while another replica has the lock, whether it has done the work. */
  readonly doneElsewhere: () => Promise<T | undefined>
  readonly work: (lease: Lease) => Promise<T>
}

/** One refresh at a time per session: all its resources share one refresh token, and a rotated one must not be offered twice. */
export type WithRefreshLock<T> = (locked: LockedWork<T>) => Promise<T>

/**
 * First single flight within this process and the session's refreshes one after the other, then a lock with an owner in
 * the store across replicas (RFC 9700 §4.14.2). Rejects with `provider_unavailable` for a lock that is not to be had.
 */
export function createRefreshLock<T>(deps: RefreshLockDeps): WithRefreshLock<T> {
  const flights = createSingleFlight<T>()
  const lastOfSession = new Map<SessionHash, Promise<unknown>>()

  return function withRefreshLock(locked) {
    if (flights.has(locked.key)) deps.observe('coalesced', locked.resource, 0)
    return flights.share(locked.key, () => afterOthersOfSession(locked))
  }

  function afterOthersOfSession(locked: LockedWork<T>): Promise<T> {
    const { hash } = locked
    const previous = lastOfSession.get(hash) ?? Promise.resolve()
    const held: Promise<unknown>[] = []
    const result = after(previous, deps).then(() => acrossReplicas(deps, locked, held))
    const over = Promise.allSettled([previous, result]).then(() => Promise.allSettled(held))
    lastOfSession.set(hash, over)
    deps.inFlight?.(over)
    over.then(() => {
      if (lastOfSession.get(hash) === over) lastOfSession.delete(hash)
    })
    return result
  }
}

/** Waits for this process's own refresh before, but no longer than for another replica's. */
async function after(previous: Promise<unknown>, { clock, lockTtlMs }: RefreshLockDeps): Promise<void> {
  await within(previous, lockTtlMs, {
    clock,
    late() {
      throw stillBusy()
    },
  })
}

async function acrossReplicas<T>(
  deps: RefreshLockDeps,
  locked: LockedWork<T>,
  held: Promise<unknown>[],
): Promise<T> {
  const owner = randomUUID()
  let startedAt: number | undefined
  for (;;) {
    const result = await deps.admit(() => {
      startedAt ??= deps.clock.monotonicNow()
      return lockAndWork(deps, locked, { owner, startedAt, held })
    })
    if (result !== undefined) return result
    const waitedMs = deps.clock.monotonicNow() - (startedAt ?? 0)
    const done = await locked.doneElsewhere()
    if (done !== undefined) {
      deps.observe('settled_elsewhere', locked.resource, waitedMs)
      return done
    }
    if (waitedMs > deps.lockTtlMs) {
      deps.observe('lock_timeout', locked.resource, waitedMs)
      throw stillBusy()
    }
    await deps.clock.pause(25 + Math.random() * 25)
  }
}

/** Undefined when another replica has the lock. */
async function lockAndWork<T>(
  { records, clock, lockTtlMs, observe }: RefreshLockDeps,
  { hash, resource, work }: LockedWork<T>,
  { owner, startedAt, held }: { owner: string; startedAt: number; held: Promise<unknown>[] },
): Promise<T | undefined> {
  // A lock that cannot be given back ends by itself; the caller's result must not.
  const unlock = () => records.unlock(hash, owner).catch(() => undefined)
  try {
    if (!(await records.lock(hash, owner, lockTtlMs))) return undefined
  } catch (error) {
    // The store may have given it all the same, its answer lost. Not awaited: the store is slow as it is.
    unlock()
    throw error
  }
  const waitedMs = clock.monotonicNow() - startedAt
  let isCounted = false
  try {
    return await work({
      owner,
      hold: (until) => void held.push(until),
      observe(outcome) {
        if (!isCounted) observe(outcome, resource, waitedMs)
        isCounted = true
      },
    })
  } finally {
    if (held.length === 0) await unlock()
    else held.push(Promise.allSettled([...held]).then(unlock))
  }
}

function stillBusy(): BffError {
  return new BffError('provider_unavailable', 'this session is still being refreshed', {
    retryAfterSeconds: 2,
  })
}
