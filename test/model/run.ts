import type { Configuration, FaultKind, Precision } from './configuration.ts'
import { createReplica } from './replica.ts'
import { createSchedule, type Schedule } from './schedule.ts'
import { createWorld, type World } from './world.ts'

/** One run of a configuration, step by step. */
export type Run = {
  readonly configuration: Configuration
  readonly precision: Precision
  readonly world: World
  readonly schedule: Schedule
  readonly faultsLeft: Record<FaultKind, number>
  /** Who took the last step; undefined before the first. */
  lastActor: string | undefined
  stepsTaken: number
}

const NO_FAULTS: Readonly<Record<FaultKind, number>> = {
  crash: 0,
  expiry: 0,
  failedWrite: 0,
  lostAnswer: 0,
  lostRequest: 0,
  lostWrite: 0,
  pause: 0,
}

/** The replica at which the user signs out. It does not crash. */
export const SIGN_OUT = 'S'

/** Resolves when all code has run as far as it can without a step: only microtasks are between two steps. */
export const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Composes the replicas anew and lets every caller ask. */
export async function startRun(configuration: Configuration, precision: Precision): Promise<Run> {
  const { callers, mutation, hasSignOut, faults } = configuration
  const world = await createWorld(configuration)
  const schedule = createSchedule(world.clock)
  for (const actor of new Set(callers.map(({ replica }) => replica))) {
    const replica = createReplica(world, schedule, mutation)
    for (const caller of callers.filter((caller) => caller.replica === actor)) {
      const { resource, as = resource, isForced } = caller
      const ask = isForced ? replica.otherTokenFor : replica.tokenFor
      schedule.start({ actor, caller: as, resource }, () => ask(resource))
    }
  }
  if (hasSignOut) {
    const { signOut } = createReplica(world, schedule)
    schedule.start({ actor: SIGN_OUT, caller: 'sign-out', resource: '' }, signOut)
  }
  await settled()
  const faultsLeft = { ...NO_FAULTS, ...faults }
  return { configuration, precision, world, schedule, faultsLeft, lastActor: undefined, stepsTaken: 0 }
}
