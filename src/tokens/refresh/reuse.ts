import { clockWaiting } from '../../async/clock.ts'
import { createExpiringMap } from '../../async/expiring-map.ts'
import type { AttemptMark, SessionHash } from '../../store/port.ts'

/** Whether a refresh token is offered again that may have been spent already (RFC 9700 §4.14.2). */
export type Reuse = {
  /** Whether a refresh token with this mark may be offered. */
  allows(mark: AttemptMark): boolean
  /** The owner's name in a mark; it tells other replicas whether this one has seen the provider rotate. */
  signed(owner: string): string
  /** Told of every refresh that worked: whether it brought another refresh token. */
  learn(hasRotated: boolean): void
  /** Whether the owner of this session's open spend has had its time to come back with an answer. */
  isOutlived(hash: SessionHash, mark: AttemptMark): boolean
  outlive(hash: SessionHash, mark: AttemptMark): void
}

/** Who is forgotten waits once more. */
const MAX_HELD = 10_000
const HELD_MS = 3_600_000

const ROTATES = 'rotates:'

/**
 * With `auto` it is offered once more after a lost answer: as a rule the provider has not acted on it, and if it has, the
 * user signs in again either way. After a refusal that may have burnt it, it is offered only to a provider that has been
 * seen to leave its refresh tokens as they are: one that rotates them would end the whole grant, living access tokens with
 * it. While another replica's spend is open, it is not offered to one that has been seen to rotate, by us or by that
 * replica: that may stand still, paused or starved of its processor, and have the next token in its socket. Measured with
 * 32 people and a replica that was stopped for longer than its lock: offered, all 32 grants were lost; left alone, none,
 * because the replica stored what it had once it ran again.
 */
export function createReuse(setting: boolean | 'auto'): Reuse {
  let rotates: boolean | undefined
  const { elapsedMs: monotonicNow } = clockWaiting
  const outlived = createExpiringMap<SessionHash, AttemptMark>({ monotonicNow, max: MAX_HELD })
  return {
    allows(mark) {
      if (setting !== 'auto') return setting
      if (mark.startsWith('open:')) return rotates !== true && !mark.startsWith(`open:${ROTATES}`)
      return mark !== 'burnt' || rotates === false
    },
    signed: (owner) => (rotates === true ? ROTATES + owner : owner),
    learn(hasRotated) {
      rotates = rotates === true || hasRotated
    },
    isOutlived: (hash, mark) => outlived.get(hash) === mark,
    outlive: (hash, mark) => outlived.set(hash, mark, HELD_MS),
  }
}
