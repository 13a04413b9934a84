import type { SealedTokens, TokenWrite, TokenWriteOutcome } from '../../src/store/port.ts'
import type { Thread } from './schedule.ts'
import { nameOf, type Spend, type World } from './world.ts'

/** What must hold at every single step; anything else goes to `world.violations`. */
export function noteRequest(world: World, refreshToken: string, by: Thread): void {
  const earlier = world.spends.get(refreshToken)
  if (earlier && !isExcused(world, earlier)) {
    world.violations.push(`${refreshToken} is spent by ${nameOf(earlier.by)} and again by ${nameOf(by)}`)
  }
  world.spends.set(refreshToken, { by, atPause: world.clock.pauses, isLost: false })
}

type Written = {
  readonly writer: Thread
  readonly change: TokenWrite
  readonly before: SealedTokens | undefined
  readonly outcome: TokenWriteOutcome
}

/** A write that took effect must be a beginning, or belong to the spend that was begun last. */
export function noteWrite(world: World, { writer, change, before, outcome }: Written): void {
  if (outcome !== 'written') return
  if (!before) world.violations.push(`${nameOf(writer)} writes to a session that has ended`)
  if (change.spend?.startsWith('open:')) {
    world.begun = writer
  } else if (world.begun !== writer) {
    const begun = world.begun ? nameOf(world.begun) : 'nobody'
    world.violations.push(`${nameOf(writer)} changes the record although ${begun} has begun a spend since`)
  }
}

/** A retry that nothing can avoid: nobody will ever know, or did know in time, what became of the earlier spend. */
function isExcused({ isStrict, crashed, clock }: World, earlier: Spend): boolean {
  return !isStrict && (crashed.has(earlier.by.actor) || earlier.isLost || clock.pauses > earlier.atPause)
}
