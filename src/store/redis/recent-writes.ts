import { systemClock } from '../../async/clock.ts'
import type { Logger } from '../../log.ts'
import type { SessionHash } from '../port.ts'
import type { RedisConnection } from './connection/client.ts'
import type { ScriptName } from './scripts.ts'

/** A write that Redis has taken, word for word. */
type Write = {
  readonly hash: SessionHash
  readonly script: ScriptName
  readonly keys: readonly string[]
  readonly args: readonly (string | number)[]
}

/** What a failover may have lost. */
export type RecentWrites = {
  note(write: Write): void
  /** Forgets what is old; to be called while Redis is there, because what it lost is as old as its outage. */
  prune(): void
  /** Sends them again, those of one session in their order. Never rejects. */
  repeat(): Promise<void>
  /** Sends no more: what is not told by now would keep a process that ends. */
  close(): void
}

/** Longer than Redis is behind with its replicas, and takes to notice that it is no primary any more. */
const KEPT_MS = 5_000
/** Sealed tokens of some KiB each. */
const MOST = 2_000
const TRIES = 20
const TRIED_AGAIN_MS = 250

/**
 * Remembers the writes of the last seconds that must not be lost, and repeats them after a reconnect: Redis replicates
 * behind its answers, so that a replica which takes over may lack them. To be noted are only those that do nothing when
 * they are found done or when anything came after them: token writes are fenced by their version, and a session that has
 * ended ends again. A creation is never repeated, because it could revive what another replica of ours has ended.
 */
export function createRecentWrites(redis: Pick<RedisConnection, 'run'>, log: Logger): RecentWrites {
  let writes: (Write & { readonly at: number })[] = []
  let repeating: Promise<void> | undefined
  const closed = new AbortController()

  function prune(): void {
    const oldest = systemClock.monotonicNow() - KEPT_MS
    const from = writes.findIndex(({ at }) => at >= oldest)
    if (from !== 0) writes = from < 0 ? [] : writes.slice(from)
  }

  /** Resolves with whether Redis has it. */
  async function repeatOne({ script, keys, args }: Write): Promise<boolean> {
    for (let tries = 1; tries <= TRIES && !closed.signal.aborted; tries += 1) {
      try {
        await redis.run(script, keys, args)
        return true
      } catch {
        await systemClock.pause(TRIED_AGAIN_MS, closed.signal)
      }
    }
    return false
  }

  async function repeatAll(): Promise<void> {
    const ofSession = Map.groupBy(writes, ({ hash }) => hash)
    if (ofSession.size === 0) return
    const told = await Promise.all(
      [...ofSession.values()].map(async (inOrder) => {
        let isWhole = true
        for (const write of inOrder) isWhole = (await repeatOne(write)) && isWhole
        return isWhole
      }),
    )
    const count = told.filter(Boolean).length
    if (count === 0) return
    log.info(
      { count },
      'redis was told again what it had taken for these sessions in the seconds before it was lost',
    )
  }

  return {
    note(write) {
      writes.push({ ...write, at: systemClock.monotonicNow() })
      if (writes.length > MOST) writes.shift()
    },
    prune,
    repeat() {
      repeating ??= repeatAll().finally(() => {
        repeating = undefined
      })
      return repeating
    },
    close: () => closed.abort(),
  }
}
