import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../async/clock.ts'
import { within } from '../../async/deadline.ts'
import { createExpiringMap } from '../../async/expiring-map.ts'
import type { InFlightWork } from '../../async/in-flight.ts'
import { BffError } from '../../errors.ts'
import type {
  AttemptMark,
  SessionHash,
  TokenRecords,
  TokenWrite,
  TokenWriteOutcome,
} from '../../store/port.ts'
import type { AccessToken, TokenHolder, TokenSealer } from '../record/sealing.ts'

/**
 * What an attempt that brought no token means for the refresh token. `unused`: it is as good as before. `unanswered`: the
 * answer was lost, and as a rule the authorization server has not acted. `maybe_used`: it had cause or time to rotate.
 */
export type AttemptOutcome = 'unused' | 'unanswered' | 'maybe_used'

/** What the store makes of it: the mark is removed, and the refresh token in the record may be offered. */
const NO_MARK = 'ended' as const
/** How outcomes are written in the record. */
const MARK_OF: Readonly<Record<AttemptOutcome, AttemptMark | typeof NO_MARK>> = {
  unused: NO_MARK,
  unanswered: 'lost',
  maybe_used: 'burnt',
}
const IN_FLIGHT = 'open:'
/** Before the owner's name, when its replica has seen the authorization server rotate. */
const ROTATES = 'rotates:'

/** Whether a mark is that of an attempt whose owner may still bring the answer. */
export function isInFlight(mark: AttemptMark | undefined): mark is `open:${string}` {
  return mark?.startsWith(IN_FLIGHT) ?? false
}

/** Whether a refresh token is offered again that may have been used already (RFC 9700 §4.14.2). */
export type ReusePolicy = {
  /** Whether a refresh token with this mark may be offered. */
  allows(mark: AttemptMark): boolean
  /** The mark of an attempt of ours; it tells other replicas whether this one has seen the authorization server rotate. */
  markOf(owner: string): AttemptMark
  /** Told of every refresh that worked: whether it brought another refresh token. */
  learn(hasRotated: boolean): void
  /** Whether the owner of this session's attempt in flight has had its time to come back with an answer. */
  isOutlived(hash: SessionHash, mark: AttemptMark): boolean
  outlive(hash: SessionHash, mark: AttemptMark): void
}

/** An owner whose time is forgotten is waited for once more. */
const MAX_OUTLIVED = 10_000
const OUTLIVED_MS = 3_600_000

/**
 * With `auto` a refresh token is offered once more after a lost answer: as a rule the authorization server has not acted
 * on it, and if it has, the user signs in again either way. After a refusal that may have used it up, it is offered only
 * to a server that has been seen to leave its refresh tokens as they are: one that rotates them would end the whole grant,
 * living access tokens with it. While another replica's attempt is in flight, it is not offered to a server that has been
 * seen to rotate, by us or by that replica: that may stand still, paused or starved of its processor, and have the next
 * token in its socket. Measured with 32 people and a replica that was stopped for longer than its lock: when the token was
 * offered, all 32 grants were lost; when it was not, none, because the replica stored what it had once it ran again.
 */
export function createReusePolicy(
  setting: boolean | 'auto',
  { monotonicNow }: Pick<Clock, 'monotonicNow'>,
): ReusePolicy {
  let rotates: boolean | undefined
  const outlived = createExpiringMap<SessionHash, AttemptMark>({ monotonicNow, max: MAX_OUTLIVED })
  return {
    allows(mark) {
      if (setting !== 'auto') return setting
      if (isInFlight(mark)) return rotates !== true && !mark.startsWith(IN_FLIGHT + ROTATES)
      return mark !== MARK_OF.maybe_used || rotates === false
    },
    markOf: (owner) => `${IN_FLIGHT}${rotates === true ? ROTATES : ''}${owner}`,
    learn(hasRotated) {
      rotates = rotates === true || hasRotated
    },
    isOutlived: (hash, mark) => outlived.get(hash) === mark,
    outlive: (hash, mark) => outlived.set(hash, mark, OUTLIVED_MS),
  }
}

export type AttemptDeps = {
  readonly records: Pick<TokenRecords, 'write'>
  readonly sealer: Pick<TokenSealer, 'sealRefreshToken' | 'sealAccessToken'>
  /** Revokes a refresh token that arrived after its session had ended. Never rejects. */
  readonly revoke: (refreshToken: string) => Promise<void>
  readonly clock: Pick<Clock, 'pause'>
  /** Told of writes that outlast their caller; says when nothing is to be tried again. */
  readonly inFlight?: Pick<InFlightWork, 'add' | 'isOver'>
}

/** The record that an attempt changes, as it was read under the lock. */
export type AttemptTarget = {
  readonly holder: TokenHolder
  readonly version: number
  readonly mark: AttemptMark
  /** Keeps the refresh lock until `write` has settled. */
  readonly hold: (write: Promise<unknown>) => void
}

/** The writes of one refresh attempt, in order, each fenced by the version before it. */
export type Attempt = {
  /** Stores a rotated refresh token, and with it ends the attempt: the one that the record then holds is unused. */
  storeRefreshToken(refreshToken: string, key?: KeyObject): Promise<void>
  /** Stores the access token unless another replica took over, and ends the attempt if that has not happened yet. */
  storeAccessToken(resource: string, token: AccessToken): Promise<void>
  /** Ends the attempt without a token. */
  end(outcome: AttemptOutcome): Promise<void>
  /** Resolves once all that was asked for is written, or never will be. Never rejects. */
  written(): Promise<unknown>
}

/** Longest time a caller waits for a write; after that it goes on in the background. */
const CALLER_WAITS_MS = 1_000
const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 500

/**
 * Marks the refresh token as about to be offered; only then may it be. Undefined when another replica was first. Rejects
 * with session_required, or store_unavailable: the mark is taken back then, in the background.
 */
export async function beginAttempt(deps: AttemptDeps, target: AttemptTarget): Promise<Attempt | undefined> {
  const { holder, version, mark } = target
  const write = () => deps.records.write(holder.hash, { expectedVersion: version, attempt: mark })
  const outcome = await write().catch((error) => {
    const undone = takeBack(deps, target, write)
    undone.catch(() => undefined)
    deps.inFlight?.add(undone)
    throw error
  })
  if (outcome === 'gone') throw new BffError('session_required', 'the session has ended')
  return outcome === 'written' ? begunAttempt(deps, target) : undefined
}

/**
 * The store may have taken a mark whose write failed here. Nothing is offered under it then, so it must not keep
 * others waiting, or count as a token that may be used up. The same words again: only our own mark is found done.
 */
async function takeBack(
  deps: AttemptDeps,
  { holder, version }: AttemptTarget,
  write: () => Promise<TokenWriteOutcome>,
): Promise<void> {
  if ((await persistently(deps, write)) !== 'written') return
  const change = { expectedVersion: version + 1, attempt: NO_MARK }
  await persistently(deps, () => deps.records.write(holder.hash, change))
}

/**
 * Writes that outlast the caller hold the lock, so that no other attempt begins in this process before they are done;
 * other replicas are kept off by the mark, and a late write by its version.
 */
function begunAttempt(deps: AttemptDeps, target: AttemptTarget): Attempt {
  const { holder, hold } = target
  let version = target.version + 1
  let rotatedTo: string | undefined
  let last: Promise<void> = Promise.resolve()

  async function write(change: Omit<TokenWrite, 'expectedVersion'>): Promise<void> {
    const outcome = await persistently(deps, () =>
      deps.records.write(holder.hash, { expectedVersion: version, ...change }),
    )
    if (outcome === 'written') {
      version += 1
      return
    }
    // An access token that is not stored is no less good: its caller gets it, and the next caller renews.
    if (outcome === 'superseded' && change.accessToken) return
    if (outcome === 'superseded') throw takenOver()
    // The user signed out while the authorization server answered: what it gave must not be used (attack case G15).
    if (rotatedTo) await deps.revoke(rotatedTo)
    throw new BffError('session_required', 'the session ended while its token was renewed')
  }

  /** In order, and without the caller when it takes long. */
  async function enqueue(change: Omit<TokenWrite, 'expectedVersion'>): Promise<void> {
    last = last.then(() => write(change))
    last.catch(() => undefined)
    hold(last)
    await within(last, CALLER_WAITS_MS, { clock: deps.clock, late: () => undefined })
  }

  return {
    storeRefreshToken(refreshToken, key) {
      rotatedTo = refreshToken
      const sealed = deps.sealer.sealRefreshToken(holder, refreshToken, key)
      // In one write, so that a replica that dies from here on leaves no doubt behind.
      return enqueue({ refreshToken: sealed, attempt: NO_MARK })
    },
    storeAccessToken(resource, token) {
      const sealed = deps.sealer.sealAccessToken(holder, resource, token)
      return enqueue({ accessToken: { resource, sealed }, attempt: NO_MARK })
    },
    end: (outcome) => enqueue({ attempt: MARK_OF[outcome] }),
    written: () => last.catch(() => undefined),
  }
}

/** `provider_unavailable`, for a moment: another replica has this session's refresh token. */
export function takenOver(): BffError {
  return new BffError('provider_unavailable', 'another replica took over this refresh', {
    retryAfterSeconds: 1,
  })
}

/**
 * A store that fails is tried again, twice as long each time, up to half a second, as long as the process lives: a rotated
 * refresh token exists nowhere else. That is well within the time that others leave to an attempt in flight once the store
 * takes their lock, so that it is written before anybody offers the old one.
 */
async function persistently<T>({ clock, inFlight }: AttemptDeps, write: () => Promise<T>): Promise<T> {
  for (let waitMs = RETRY_MIN_MS; ; waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)) {
    try {
      return await write()
    } catch (error) {
      if (inFlight?.isOver()) throw error
      await clock.pause(waitMs)
    }
  }
}
