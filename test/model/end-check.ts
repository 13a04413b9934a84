import { lastBegun } from './observer.ts'
import type { Run } from './run.ts'
import type { Thread } from './schedule.ts'
import { describeRecord, nameOf } from './world.ts'

const CALLERS_ARE_TOLD = [
  'session_required',
  'reauthentication_required',
  'provider_unavailable',
  'store_unavailable',
  'signed out',
]

/** What must hold when nothing can happen any more; one line for each thing that does not. */
export function flawsAtEnd(run: Run): string[] {
  const { world, schedule } = run
  const callers = schedule.threads.filter(({ actor }) => !world.crashed.has(actor))
  return [
    ...callers.flatMap((thread) => flawsOfAnswer(thread)),
    ...(isUndisturbed(run) ? callers.flatMap(flawsOfUndisturbedAnswer) : []),
    ...needlessRefreshes(run),
    ...(isRecordSafe(run) ? flawsOfRecord(run) : []),
    ...(run.configuration.hasSignOut ? flawsAfterSignOut(run) : []),
  ]
}

/** Every surviving caller is answered: with a token of its resource, or with a refusal that we have a word for. */
function flawsOfAnswer(thread: Thread): string[] {
  const { outcome } = thread
  if (outcome === undefined) return [`${nameOf(thread)} is never answered`]
  if (CALLERS_ARE_TOLD.includes(outcome) || isOwnToken(thread)) return []
  return [`${nameOf(thread)} is answered with ${outcome}`]
}

/** A refresh is paid for once: who comes later finds its token in the store. */
function needlessRefreshes({ world, configuration, schedule }: Run): string[] {
  if (configuration.hasSignOut || Object.keys({ ...configuration.faults }).length > 0) return []
  const resources = new Set(schedule.threads.map(({ resource }) => resource))
  return [...resources]
    .filter((resource) => world.provider.issued(resource) > 1)
    .map((resource) => `${resource} is refreshed more than once`)
}

/** Nothing but, perhaps, an expired lock has come between. */
function isUndisturbed({ world, configuration }: Run): boolean {
  const { expiry: _, ...others } = { ...configuration.faults }
  return !configuration.hasSignOut && world.clock.leaps === 0 && Object.keys(others).length === 0
}

/** No fault has taken away what only one replica knew: then all must be as it should be in the end. */
function isRecordSafe({ world, configuration }: Run): boolean {
  const { pause, lostAnswer } = { ...configuration.faults }
  return !world.isTokenLost && !configuration.hasSignOut && !configuration.isStrict && !pause && !lostAnswer
}

/** No lost write: the store ends with the provider's newest refresh token, and with no refresh attempt in flight. */
function flawsOfRecord({ world }: Run): string[] {
  const { provider, record } = world
  const flaws: string[] = []
  if (provider.reuses() > 0) flaws.push('a rotated refresh token was offered again')
  if (record?.refreshToken !== provider.current())
    flaws.push(`the store holds ${describeRecord(world, record)}, the provider takes ${provider.current()}`)
  const begun = lastBegun(world)
  if (record?.attempt && (!begun || !world.crashed.has(begun.actor)))
    flaws.push(`a mark stays: ${describeRecord(world, record)}`)
  return flaws
}

function flawsOfUndisturbedAnswer(thread: Thread): string[] {
  return isOwnToken(thread) ? [] : [`${nameOf(thread)} gets ${thread.outcome} although nothing was wrong`]
}

/** Nothing is revived, and no refresh token that would still be taken is left behind. */
function flawsAfterSignOut({ world }: Run): string[] {
  const flaws: string[] = []
  if (world.record) flaws.push(`the session has ended, but there is ${describeRecord(world, world.record)}`)
  const isLeftBehind = !world.provider.isDead() && world.crashed.size === 0
  if (isLeftBehind) flaws.push(`${world.provider.current()} came after the end and was not revoked`)
  return flaws
}

function isOwnToken({ outcome, resource }: Thread): boolean {
  return outcome?.startsWith(`${resource}#`) ?? false
}
