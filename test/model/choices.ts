import { type Run, SIGN_OUT, settled } from './run.ts'
import type { Step, StepFault } from './schedule.ts'
import { describeRecord, expireLock, isLocked, nameOf, type World } from './world.ts'

/** One thing that can happen next; `happen` resolves with its outcome in words. */
export type Choice = { readonly label: () => string; readonly happen: () => Promise<string> }

/** Longer than any wait of the tokens room but one: 60 s of trying to write. */
const LEAP_MS = 5_000

/** Everything that can happen next; empty at the end. Time passes when nobody can do anything else. */
export function choicesOf(run: Run): Choice[] {
  const { world, schedule, faultsLeft } = run
  const choices: Choice[] = []
  let isSomebodyWaiting = false
  for (const step of schedule.pending) {
    isSomebodyWaiting ||= isWait(step) && step.dueAt > world.clock.ms
    if (isEnabled(run, step)) choices.push(take(run, step))
    for (const fault of faultsOf(run, step)) choices.push(take(run, step, fault))
  }
  if (choices.length === 0 && isSomebodyWaiting) return [leap(run)]
  if (faultsLeft.pause > 0 && isSomebodyWaiting) choices.push(leap(run, 'pause'))
  return faultsLeft.crash > 0 ? [...choices, ...crashesOf(run)] : choices
}

const isWait = ({ kind }: Pick<Step, 'kind'>) => kind === 'poll' || kind === 'deadline'

/** Whether a step can happen now. To look again before there is anything new would be to stand still. */
export function isEnabled({ world }: Run, { kind, label, dueAt, thread }: Step): boolean {
  if (!isWait({ kind }) || dueAt <= world.clock.ms) return true
  if (kind === 'deadline') return false
  if (label === 'lock' && !isLocked(world)) return true
  const isLook = label === 'lock' || label === 'record'
  return !isLook || thread.lastRead !== describeRecord(world, world.record)
}

/** A lock's expiry only matters to whoever comes for it next, so it happens just then. */
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
  const { thread, kind, label } = step
  return {
    label: () => [nameOf(thread).padEnd(10), fault ? `${kind} [${fault}]` : kind, label].join(' '),
    async happen() {
      if (fault) run.faultsLeft[fault] -= 1
      run.lastActor = thread.actor
      run.stepsTaken += 1
      thread.cameAt ??= run.stepsTaken
      if (fault === 'expiry') await expireLock(run.world)
      const told = await step.happen(fault)
      await settled()
      return told
    },
  }
}

function leap({ world, faultsLeft }: Run, fault?: 'pause'): Choice {
  return {
    label: () => (fault ? 'everybody pauses' : 'time passes'),
    async happen() {
      if (fault) {
        faultsLeft.pause -= 1
        world.clock.pauses += 1
      } else if (world.crashed.size === 0) {
        world.violations.push('everybody waits although nobody has crashed')
      }
      world.clock.ms += LEAP_MS
      world.clock.leaps += 1
      return 'patience ends'
    },
  }
}

/**
 * A crash matters by the steps that its replica does not take any more: to crash right after one of its own steps, or
 * before its first, is the same as to crash at any later point before the next.
 */
function crashesOf(run: Run): Choice[] {
  const { schedule, lastActor, precision } = run
  const isAnywhere = precision === 'exact' || lastActor === undefined
  const alive = new Set([...schedule.pending].map(({ thread }) => thread.actor))
  return [...alive]
    .filter((actor) => actor !== SIGN_OUT && (isAnywhere || lastActor === actor))
    .map((actor) => ({ label: () => `${actor} crashes`, happen: () => crash(run, actor) }))
}

async function crash({ world, schedule, faultsLeft }: Run, actor: string): Promise<string> {
  faultsLeft.crash -= 1
  world.crashed.add(actor)
  for (const step of schedule.pending) if (step.thread.actor === actor) schedule.pending.delete(step)
  world.isTokenLost = world.record?.refreshToken !== world.provider.current() && isLastUser(world, actor)
  return describeRecord(world, world.record)
}

/** Whether the provider's last answer went to this replica. */
function isLastUser({ uses }: World, actor: string): boolean {
  return [...uses.values()].at(-1)?.by.actor === actor
}
