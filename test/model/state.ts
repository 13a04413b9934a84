import { hash } from 'node:crypto'
import { isEnabled } from './choices.ts'
import type { Caller } from './configuration.ts'
import type { Run } from './run.ts'
import type { Step, Thread } from './schedule.ts'
import { describeRecord, nameOf } from './world.ts'

/** A renaming of replicas and resources that leaves the configuration as it is. */
export type Renaming = ReadonlyMap<string, string>

/**
 * A fingerprint of everything that the future can depend on: the store, the provider, the faults that are left, and of
 * each caller what its code has been told. The code between two steps is deterministic, so the same tellings lead to the
 * same place. Told and forgotten: what was read before the last read or before the lock, and rounds of polling.
 */
export function fingerprint(run: Run, renamings: readonly Renaming[]): string {
  const shared = describeWorld(run)
  const threads = run.schedule.threads.map((thread) => describeThread(run, thread))
  const order = describeOrder(run)
  const candidates = renamings.map((renaming) =>
    [
      rename(shared, renaming),
      ...threads.map((text) => rename(text, renaming)).sort(),
      ...order(renaming),
    ].join('\n'),
  )
  return hash('md5', candidates.sort()[0]!, 'base64')
}

function describeWorld({ world, faultsLeft }: Run): string {
  const { clock, lock, provider, uses, crashed } = world
  const parts: unknown[] = [describeRecord(world, world.record), Object.values(faultsLeft), clock.leaps]
  if (lock) parts.push('locked by', world.owners.get(lock.owner), lock.atLeap)
  parts.push(provider.current(), provider.isDead(), provider.reuses())
  for (const [token, { by, isLost }] of uses) parts.push(token, nameOf(by), isLost)
  const begun = [...world.begun].map(([thread, pauses]) => [nameOf(thread), pauses])
  parts.push(clock.pauses > 0 ? begun : begun.at(-1))
  parts.push([...crashed], world.isTokenLost)
  return parts.join(' ')
}

function describeThread(run: Run, thread: Thread): string {
  const { world, schedule, precision } = run
  const { outcome = '', path, reachedAt, lastRead, history } = thread
  const steps = [...schedule.pending].filter((step) => step.thread === thread)
  const pending = steps.map((step) => describeStep(run, step)).sort()
  const name = nameOf(thread)
  if (precision === 'exact') return [name, history, outcome, pending].join('|')
  if (world.crashed.has(thread.actor)) return [name, 'crashed', outcome].join('|')
  if (pending.length === 0 && outcome) return [name, 'done', outcome].join('|')
  const isPolling = steps.some(({ kind }) => kind === 'poll')
  const times = world.clock.leaps > 0 ? reachedAt.slice(0, path.length + 1) : []
  return [name, path, times, isPolling ? '' : lastRead, outcome, pending].join('|')
}

function describeStep(run: Run, step: Step): string {
  const { kind, label, dueAt } = step
  if (kind === 'poll') return `poll ${label} ${isEnabled(run, step)} ${dueAt <= run.world.clock.ms}`
  return kind === 'deadline' ? `${kind} ${label} ${dueAt - run.world.clock.ms}` : `${kind} ${label}`
}

/** In a replica, callers take their turns in the order in which they came back from their first look. */
function describeOrder({ schedule, world }: Run): (renaming: Renaming) => string[] {
  const waiting = schedule.threads.filter(
    ({ actor, outcome }) => outcome === undefined && !world.crashed.has(actor),
  )
  const came = waiting.filter(({ cameAt }) => cameAt !== undefined).sort((a, b) => a.cameAt! - b.cameAt!)
  return (renaming) => {
    const names = came.map((thread) => rename(nameOf(thread), renaming))
    const actors = [...new Set(names.map((name) => name[0]!))].sort()
    return actors.map((actor) => names.filter((name) => name.startsWith(actor)).join(' then '))
  }
}

function rename(text: string, renaming: Renaming): string {
  if (renaming.size === 0) return text
  return text.replace(/\b(?:[A-C]|orders|billing)\b/g, (name) => renaming.get(name) ?? name)
}

/** The renamings under which a configuration stays as it is; the first one changes nothing. */
export function symmetriesOf(callers: readonly Caller[]): Renaming[] {
  const replicas = permutationsOf([...new Set(callers.map(({ replica }) => replica))])
  const resources = permutationsOf([...new Set(callers.map(({ resource }) => resource))])
  const text = (renaming: Renaming) =>
    callers
      .map(({ replica, resource, as = resource, isForced }) => `${replica}.${as} of ${resource} ${isForced}`)
      .map((caller) => rename(caller, renaming))
      .sort()
      .join()
  const all = replicas.flatMap((some) => resources.map((others) => new Map([...some, ...others])))
  return all.filter((renaming) => text(renaming) === text(new Map()))
}

function permutationsOf(names: readonly string[]): [string, string][][] {
  const orders = (rest: readonly string[]): string[][] =>
    rest.length === 0
      ? [[]]
      : rest.flatMap((first) =>
          orders(rest.filter((name) => name !== first)).map((others) => [first, ...others]),
        )
  return orders(names).map((order) => order.flatMap((to, i) => (to === names[i] ? [] : [[names[i]!, to]])))
}

/** How each caller was answered, the same for runs that differ in names only. */
export function outcomeOf({ schedule, world }: Run, renamings: readonly Renaming[]): string {
  const answers = schedule.threads.map((thread) => {
    const { outcome = 'nothing', actor } = thread
    return `${nameOf(thread)}: ${world.crashed.has(actor) ? 'crashed' : outcome.replace(/#\d+/, '')}`
  })
  return renamings
    .map((renaming) =>
      answers
        .map((answer) => rename(answer, renaming))
        .sort()
        .join(', '),
    )
    .sort()[0]!
}
