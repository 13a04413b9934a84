import { systemClock } from '../../async/clock.ts'
import type { Logger } from '../../log.ts'
import type { SessionHash, TokenWriteOutcome } from '../port.ts'
import type { RedisConnection } from './connection/client.ts'
import type { ScriptName } from './scripts.ts'

/** A write that Redis has taken, word for word. */
type Write = {
  readonly hash: SessionHash
  readonly script: ScriptName
  readonly keys: readonly string[]
  readonly args: readonly (string | number)[]
}

/** What a failover may have lost, and the time in which it is told again. */
export type RecentWrites = {
  note(write: Write): void
  /** Forgets what is old; to be called while Redis is there, because what it lost is as old as its outage. */
  prune(): void
  /** Another server answers from now on: it is told again what the one before had taken. */
  serverChanged(): void
  /** Whether replicas of ours may not have told it yet; false in quiet times. */
  isSettling(): boolean
  /** Waits until they have, for `mostMs` at most, and returns whether they have. */
  settled(mostMs?: number): Promise<boolean>
  /** Sends a token write that waits for those it follows. */
  inOrder(send: () => Promise<TokenWriteOutcome | 'behind'>): Promise<TokenWriteOutcome>
  /** Sends no more: what is not told by now would keep a process that ends. */
  close(): void
}

/** Longer than Redis is behind with its replicas, and takes to notice that it is no primary any more. */
const KEPT_MS = 5_000
/** Sealed tokens of some KiB each. */
const MOST = 2_000
const TRIED_AGAIN_MS = 100
/** The write of another replica comes before ours. */
const FILLED_IN_MS = 25
/**
 * Every replica of ours leaves the old primary within this time of the first one: the sentinels are asked every 250 ms, a
 * heartbeat is sent every second, and a connection is tried again within a second at most.
 */
const SETTLING_MS = 1_500
const SETTLES = `redis has another primary, or was started anew: renewals wait ${SETTLING_MS} ms, until it was told again what the one before had taken`

/**
 * Remembers the writes of the last seconds that must not be lost, and repeats them at another server: Redis replicates
 * behind its answers, and one that is replaced while it lives takes writes that the new primary never sees. To be noted
 * are only those that do nothing when they are found done: token writes are fenced by their version, and a session that
 * has ended ends again. A creation is never repeated, because it could revive what another replica of ours has ended.
 *
 * Meanwhile no replica may renew a token by the older record, because its refresh token was used already. The writes of
 * one session may come from several replicas, so each waits for the one before it. Both end with the same time:
 * a write that is repeated later could meet a version of the same number that means something else. Measured with 24 users
 * and `SENTINEL FAILOVER`, in which the old primary took writes for a second: without that time 10 were signed out, half
 * of them by a renewal that came before the repetition, half by a write that came before the one it follows.
 */
export function createRecentWrites(redis: Pick<RedisConnection, 'run'>, log: Logger): RecentWrites {
  let writes: (Write & { readonly at: number })[] = []
  let settledAt = Number.NEGATIVE_INFINITY
  const closed = new AbortController()

  const settlingMs = () => Math.max(0, settledAt - systemClock.monotonicNow())
  const isSettling = () => settlingMs() > 0

  /** Resolves with whether Redis has it. */
  async function repeatOne({ script, keys, args }: Write): Promise<boolean> {
    while (!closed.signal.aborted && isSettling()) {
      const outcome = await redis.run(script, keys, args).catch(() => 'away')
      if (outcome !== 'behind' && outcome !== 'away') return true
      await systemClock.pause(outcome === 'behind' ? FILLED_IN_MS : TRIED_AGAIN_MS, closed.signal)
    }
    return false
  }

  /** Sends them again, those of one session in their order. Resolves with the sessions of which Redis has all. */
  async function repeat(): Promise<number> {
    const ofSession = Map.groupBy(writes, ({ hash }) => hash)
    const told = await Promise.all(
      [...ofSession.values()].map(async (inOrder) => {
        let isWhole = true
        for (const write of inOrder) isWhole = (await repeatOne(write)) && isWhole
        return isWhole
      }),
    )
    return told.filter(Boolean).length
  }

  async function repeatTwice(): Promise<void> {
    const count = await repeat()
    if (count > 0) log.info({ count }, 'redis was told again what it had taken for these sessions')
    // What was in flight to the old primary while its connection was closed was taken there.
    const leftMs = settlingMs()
    if (leftMs === 0) return
    await systemClock.pause(leftMs / 2, closed.signal)
    await repeat()
  }

  return {
    note(write) {
      writes.push({ ...write, at: systemClock.monotonicNow() })
      if (writes.length > MOST) writes.shift()
    },
    prune() {
      const oldest = systemClock.monotonicNow() - KEPT_MS
      const from = writes.findIndex(({ at }) => at >= oldest)
      if (from !== 0) writes = from < 0 ? [] : writes.slice(from)
    },
    serverChanged() {
      if (closed.signal.aborted) return
      if (settlingMs() === 0) log.warn({ outcome: 'moved' }, SETTLES)
      settledAt = systemClock.monotonicNow() + SETTLING_MS
      // Not before the connection is said to be ready, which comes in this same turn.
      setImmediate(repeatTwice)
    },
    isSettling,
    async settled(mostMs = Number.POSITIVE_INFINITY) {
      const until = systemClock.monotonicNow() + mostMs
      // Another server may come meanwhile.
      while (isSettling() && systemClock.monotonicNow() < until)
        await systemClock.pause(Math.min(settlingMs(), mostMs))
      return !isSettling()
    },
    async inOrder(send) {
      for (;;) {
        const outcome = await send()
        if (outcome !== 'behind') return outcome
        if (!isSettling()) return 'superseded'
        await systemClock.pause(FILLED_IN_MS)
      }
    },
    close: () => closed.abort(),
  }
}
