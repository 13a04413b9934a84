import type { SealedTokens, TokenWrite, TokenWriteOutcome } from '../../src/store/port.ts'
import type { Thread } from './schedule.ts'
import { nameOf, type TokenUse, type World } from './world.ts'

/** What must hold at every single step; anything else goes to `world.violations`. */
export function noteRequest(world: World, refreshToken: string, by: Thread): void {
  const earlier = world.uses.get(refreshToken)
  if (earlier && !isExcused(world, earlier, by)) {
    world.violations.push(`${refreshToken} is used by ${nameOf(earlier.by)} and again by ${nameOf(by)}`)
  }
  world.uses.set(refreshToken, { by, isLost: false })
}

type Written = {
  readonly writer: Thread
  readonly change: TokenWrite
  readonly before: SealedTokens | undefined
  readonly outcome: TokenWriteOutcome
}

/** A write that took effect must be a beginning, or belong to the attempt that was begun last. */
export function noteWrite(world: World, { writer, change, before, outcome }: Written): void {
  if (outcome !== 'written') return
  if (!before) world.violations.push(`${nameOf(writer)} writes to a session that has ended`)
  if (change.attempt?.startsWith('open:')) {
    world.begun.delete(writer)
    world.begun.set(writer, world.clock.pauses)
  } else if (lastBegun(world) !== writer) {
    const begun = lastBegun(world)
    const other = begun ? nameOf(begun) : 'nobody'
    world.violations.push(`${nameOf(writer)} changes the record although ${other} has begun an attempt since`)
  }
}

/**
 * A second use that nothing can avoid: nobody will ever know what became of the first, or one of the two was paused
 * between its beginning and its request for so long that the other had to take it for dead. No fence is at the provider.
 */
function isExcused({ isStrict, crashed, clock, begun }: World, earlier: TokenUse, by: Thread): boolean {
  const wasPaused = (thread: Thread) => clock.pauses > (begun.get(thread) ?? 0)
  return (
    !isStrict && (crashed.has(earlier.by.actor) || earlier.isLost || wasPaused(earlier.by) || wasPaused(by))
  )
}

/** Whose refresh attempt was begun last. */
export function lastBegun({ begun }: World): Thread | undefined {
  return [...begun.keys()].at(-1)
}
