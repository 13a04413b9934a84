import { createReplica } from './replica.ts'
import { createSchedule, type Schedule, type Step, type StepFault } from './schedule.ts'
import {
  createWorld,
  describeRecord,
  expireLock,
  isLocked,
  type Mutation,
  nameOf,
  type Wish,
  type World,
} from './world.ts'

/** What may go wrong, and how often in one run. */
export type FaultKind = StepFault | 'crash' | 'pause'

/** A system to explore. */
export type Configuration = {
  readonly name: string
  readonly wishes: readonly Wish[]
  readonly faults?: Partial<Record<FaultKind, number>>
  /** Somebody signs the user out, at any point. */
  readonly hasSignOut?: boolean
  /** The operator said that a refresh token which may be spent must not be offered again. */
  readonly isStrict?: boolean
  readonly mutation?: Mutation
}

/** One thing that can happen next. */
export type Choice = { readonly label: string; readonly happen: () => Promise<string> }

/** One run of a configuration, step by step. */
export type Run = {
  readonly configuration: Configuration
  readonly world: World
  readonly schedule: Schedule
  readonly faultsLeft: Record<FaultKind, number>
  /** Who took the last step; undefined before the first. */
  lastActor: string | undefined
  stepsTaken: number
}

/** Longer than any wait of the tokens room but one: 60 s of trying to write. */
const LEAP_MS = 5_000

/** All code has run as far as it can without a step: only microtasks are between two steps. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Composes the replicas anew and lets every caller ask. */
export async function startRun(configuration: Configuration): Promise<Run> {
  const { wishes, mutation, hasSignOut } = configuration
  const world = await createWorld(configuration)
  const schedule = createSchedule(world.clock)
  const actors = new Set(wishes.map(({ replica }) => replica))
  for (const actor of actors) {
    const replica = createReplica(world, schedule, mutation)
    for (const { resource, as = resource } of wishes.filter((wish) => wish.replica === actor))
      schedule.start({ actor, wish: as, resource }, () => replica.tokenFor(resource))
  }
  if (hasSignOut) {
    const signOut = { actor: 'S', wish: 'sign-out', resource: '' }
    schedule.start(signOut, createReplica(world, schedule).signOut)
  }
  const faultsLeft = {
    crash: 0,
    expiry: 0,
    lostRequest: 0,
    lostAnswer: 0,
    failedWrite: 0,
    lostWrite: 0,
    pause: 0,
    ...configuration.faults,
  }
  await settled()
  return { configuration, world, schedule, faultsLeft, lastActor: undefined, stepsTaken: 0 }
}

/** Everything that can happen next; empty at the end. */
export function choicesOf(run: Run): Choice[] {
  const { world, schedule, faultsLeft } = run
  const choices = [...schedule.pending].flatMap((step) => [
    ...(isEnabled(run, step) ? [take(run, step)] : []),
    ...faultsOf(run, step).map((fault) => take(run, step, fault)),
  ])
  const waits = [...schedule.pending].filter((step) => isWait(step) && step.dueAt > world.clock.ms)
  if (choices.length === 0 && waits.length > 0) return [leap(run)]
  if (faultsLeft.pause > 0 && waits.length > 0) choices.push(leap(run, 'pause'))
  return faultsLeft.crash > 0 ? [...choices, ...crashesOf(run)] : choices
}

const isWait = ({ kind }: Pick<Step, 'kind'>) => kind === 'poll' || kind === 'deadline'

/** Whether a step can happen now. To look again before there is anything new would be to stand still. */
export function isEnabled({ world }: Run, { kind, label, dueAt, thread }: Step): boolean {
  if (!isWait({ kind }) || dueAt <= world.clock.ms) return true
  if (kind === 'deadline') return false
  if (label === 'retry' || label === 'other' || (label === 'lock' && !isLocked(world))) return true
  return thread.lastRead !== describeRecord(world, world.record)
}

/** An expiry only matters to whoever comes for the lock next, so it happens just then. */
function faultsOf({ world, faultsLeft }: Run, { kind, label }: Step): StepFault[] {
  const possible: StepFault[] = []
  const isForLock = kind === 'lock' || (kind === 'poll' && label === 'lock')
  if (isForLock && isLocked(world)) possible.push('expiry')
  if (kind === 'request') possible.push('lostRequest')
  if (kind === 'answer') possible.push('lostAnswer')
  if (kind === 'write') possible.push('failedWrite', 'lostWrite')
  return possible.filter((fault) => faultsLeft[fault] > 0)
}

function take(run: Run, step: Step, fault?: StepFault): Choice {
  const { world, faultsLeft } = run
  const { thread, kind, label } = step
  return {
    label: [nameOf(thread).padEnd(10), fault ? `${kind} [${fault}]` : kind, label].join(' '),
    async happen() {
      if (fault) faultsLeft[fault] -= 1
      run.lastActor = thread.actor
      run.stepsTaken += 1
      thread.cameAt ??= run.stepsTaken
      if (fault === 'expiry') await expireLock(world)
      const told = await step.happen(fault)
      await settled()
      return told
    },
  }
}

function leap({ world, faultsLeft }: Run, fault?: 'pause'): Choice {
  return {
    label: fault ? 'time passes [pause]' : 'time passes',
    async happen() {
      if (fault) {
        faultsLeft.pause -= 1
        world.clock.pauses += 1
      }
      world.clock.ms += LEAP_MS
      world.clock.leaps += 1
      return 'patience ends'
    },
  }
}

/**
 * A crash matters by the steps that its replica does not take any more, so it happens right after one of its own, or
 * before its first.
 */
function crashesOf(run: Run): Choice[] {
  const { schedule, world, lastActor } = run
  const alive = new Set([...schedule.pending].map(({ thread }) => thread.actor))
  return [...alive]
    .filter((actor) => actor !== 'S' && (lastActor === undefined || lastActor === actor))
    .map((actor) => ({
      label: `${actor} crashes`,
      async happen() {
        run.faultsLeft.crash -= 1
        world.crashed.add(actor)
        for (const step of schedule.pending) if (step.thread.actor === actor) schedule.pending.delete(step)
        world.isTokenLost = world.record?.refreshToken !== world.provider.current() && isSpender(world, actor)
        return describeRecord(world, world.record)
      },
    }))
}

/** Whether the provider's last answer went to this replica. */
function isSpender({ spends }: World, actor: string): boolean {
  return [...spends.values()].at(-1)?.by.actor === actor
}
