import type { Waiting } from '../../async/clock.ts'
import type { UnderWay } from '../../async/in-flight.ts'
import { BffError } from '../../errors.ts'
import type { TokenRecords, TokenWrite, TokenWriteOutcome } from '../../store/port.ts'
import type { StoredAccessToken, TokenHolder, TokenSealer } from '../record/token-record.ts'

export type RecordWriterDeps = {
  readonly records: Pick<TokenRecords, 'write'>
  readonly sealer: TokenSealer
  /** Revokes a refresh token that arrived after its session had ended. Never rejects. */
  readonly revoke: (refreshToken: string) => Promise<void>
  readonly waiting: Waiting
  /** Told of writes that outlast their turn; says when nothing is to be tried again. */
  readonly underWay?: Pick<UnderWay, 'add' | 'isOver'>
}

/** The writes of one spend of a refresh token, in order, each fenced by the version before it. */
export type RecordWriter = {
  /** Marks the refresh token as about to be spent; only then may it be offered. False if somebody else was first. */
  begin(owner: string): Promise<boolean>
  /** Stores a rotated refresh token, and with it ends the spend: what the record then holds is not spent. */
  keepRefreshToken(refreshToken: string): Promise<void>
  /** Stores the access token unless somebody took over, and ends the spend if that has not happened yet. */
  keepAccessToken(resource: string, token: StoredAccessToken): Promise<void>
  /** Ends the spend without a token. */
  end(mark: 'ended' | 'lost' | 'burnt'): Promise<void>
}

/** Longest time a caller waits for a write; after that it goes on in the background. */
const CALLER_WAITS_MS = 1_000
const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 500

/**
 * Writes to one session's token record. `hold` is told of writes that outlast the caller, so that nobody spends on in
 * this process before they are done; other replicas are kept off by the open spend, and a late write by its version.
 */
export function createRecordWriter(
  deps: RecordWriterDeps,
  target: { holder: TokenHolder; version: number; hold: (until: Promise<unknown>) => void },
): RecordWriter {
  const { holder, hold } = target
  let version = target.version
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
    if (outcome === 'superseded') throw superseded()
    // The user signed out while the provider answered: nobody may use what it gave (attack case G15).
    if (rotatedTo) await deps.revoke(rotatedTo)
    throw new BffError('session_required', 'the session ended while its token was renewed')
  }

  /** In order, and without the caller when it takes long. */
  async function enqueue(change: Omit<TokenWrite, 'expectedVersion'>): Promise<void> {
    last = last.then(() => write(change))
    last.catch(() => undefined)
    hold(last)
    await within(deps.waiting, last, CALLER_WAITS_MS)
  }

  /**
   * The store may have taken a mark whose write failed here. Nothing is offered under it then, so it must not keep
   * others waiting, or count as a token that may be spent. The same words again: only our own mark is found done.
   */
  async function takeBack(mark: () => Promise<TokenWriteOutcome>): Promise<void> {
    if ((await persistently(deps, mark)) !== 'written') return
    const change = { expectedVersion: version + 1, attempt: 'ended' } as const
    await persistently(deps, () => deps.records.write(holder.hash, change))
  }

  return {
    async begin(owner) {
      const change = { expectedVersion: version, attempt: `open:${owner}` } as const
      const mark = () => deps.records.write(holder.hash, change)
      const outcome = await mark().catch((error) => {
        const undone = takeBack(mark)
        undone.catch(() => undefined)
        deps.underWay?.add(undone)
        throw error
      })
      if (outcome === 'gone') throw new BffError('session_required', 'the session has ended')
      if (outcome === 'written') version += 1
      return outcome === 'written'
    },
    keepRefreshToken(refreshToken) {
      rotatedTo = refreshToken
      const sealed = deps.sealer.sealRefreshToken(holder, refreshToken)
      // In one write, so that a replica that dies from here on leaves no doubt behind.
      return enqueue({ refreshToken: sealed, attempt: 'ended' })
    },
    keepAccessToken(resource, token) {
      const sealed = deps.sealer.sealAccessToken(holder, resource, token)
      return enqueue({ accessToken: { resource, sealed }, attempt: 'ended' })
    },
    end: (mark) => enqueue({ attempt: mark }),
  }
}

/** `provider_unavailable`, for a moment: another replica has this session's refresh token. */
export function superseded(): BffError {
  return new BffError('provider_unavailable', 'another replica took over this refresh', {
    retryAfterSeconds: 1,
  })
}

async function within(waiting: Waiting, work: Promise<void>, ms: number): Promise<void> {
  const enough = new AbortController()
  await Promise.race([work, waiting.pause(ms, enough.signal)]).finally(() => enough.abort('over'))
}

/**
 * A store that fails is tried again, twice as long each time, up to half a second, as long as the process lives: a rotated
 * refresh token exists nowhere else. That is well within the time that others leave to an open spend once the store takes
 * their lock, so that it is written before anybody offers the old one.
 */
async function persistently<T>({ waiting, underWay }: RecordWriterDeps, write: () => Promise<T>): Promise<T> {
  for (let waitMs = RETRY_MIN_MS; ; waitMs = Math.min(waitMs * 2, RETRY_MAX_MS)) {
    try {
      return await write()
    } catch (error) {
      if (underWay?.isOver()) throw error
      await waiting.pause(waitMs)
    }
  }
}
