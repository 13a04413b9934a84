import { AsyncLocalStorage } from 'node:async_hooks'
import type { Clock } from './clock.ts'

/** What a replica's code can wait for. A `poll` looks again after a while, a `deadline` ends some other wait. */
export type StepKind =
  | 'read'
  | 'lock'
  | 'unlock'
  | 'write'
  | 'end'
  | 'request'
  | 'answer'
  | 'revoke'
  | 'poll'
  | 'deadline'

/** What may go wrong in place of a step's normal course. */
export type StepFault = 'expiry' | 'lostRequest' | 'lostAnswer' | 'failedWrite' | 'lostWrite'

/** One caller at one replica (or a sign-out), and all that its code has learned so far. */
export type Thread = {
  readonly actor: string
  readonly caller: string
  /** Whose token is wished for. */
  readonly resource: string
  /** What each step gave, in order; rounds of polling that came to nothing are cut out. */
  readonly path: string[]
  /** Number of leaps of the clock when the next step was first asked for, by length of the path. */
  readonly reachedAt: number[]
  /** Everything it has been told, uncut; kept only for the exact comparison. */
  readonly history: string[]
  lastRead: string
  /** Position among all callers' first looks at the store. */
  cameAt?: number
  /** How the caller was answered. */
  outcome?: string
}

/** Something that a replica's code has asked for and that has not happened yet. */
export type Step = {
  readonly thread: Thread
  readonly kind: StepKind
  readonly label: string
  /** Clock time at which a wait is over. */
  readonly dueAt: number
  /** Lets it happen; resolves with what the code is told. */
  readonly happen: (fault?: StepFault) => Promise<string>
}

/** Holds all code at its await points; nothing happens until a pending step is told to. */
export type Schedule = {
  readonly pending: Set<Step>
  readonly threads: Thread[]
  /** Starts `work` as that of one caller. */
  start(who: Pick<Thread, 'actor' | 'caller' | 'resource'>, work: () => Promise<string>): void
  /** The caller whose code is running now. */
  thread(): Thread
  /** A promise that settles with `effect` once the step is told to happen. */
  ask<T>(request: {
    kind: StepKind
    label: string
    effect: (fault?: StepFault) => Promise<T> | T
    tell: (result: T) => string
  }): Promise<T>
  /** A wait, over when told so, or when `signal` aborts. */
  pause(ms: number, signal?: AbortSignal): Promise<void>
}

const running = new AsyncLocalStorage<Thread>()

/** Makes an empty schedule on one clock. */
export function createSchedule(clock: Clock): Schedule {
  const pending = new Set<Step>()
  const threads: Thread[] = []
  const learn = learnAt(clock)

  function thread(): Thread {
    const found = running.getStore()
    if (!found) throw new Error('code of no known caller is running')
    return found
  }

  return {
    pending,
    threads,
    thread,
    start(who, work) {
      const started = newThread(who)
      threads.push(started)
      running.run(started, () => {
        work().then(
          (answer) => finish(started, answer),
          (error) => finish(started, error?.code ?? `defect: ${error}`),
        )
      })
    },
    ask({ kind, label, effect, tell }) {
      const asking = thread()
      if (kind === 'lock') asking.lastRead = ''
      asking.reachedAt[asking.path.length] ??= clock.leaps
      const effectOf = async (fault?: StepFault) => effect(fault)
      return new Promise((resolve, reject) => {
        const step: Step = {
          thread: asking,
          kind,
          label,
          dueAt: 0,
          async happen(fault) {
            pending.delete(step)
            return effectOf(fault).then(
              (result) => {
                const told = learn(step, tell(result), fault)
                resolve(result)
                return told
              },
              (error) => {
                const told = learn(step, 'fails', fault)
                reject(error)
                return told
              },
            )
          },
        }
        pending.add(step)
      })
    },
    pause(ms, signal) {
      const asking = thread()
      const kind = signal ? 'deadline' : 'poll'
      return new Promise((resolve) => {
        const end = () => {
          pending.delete(step)
          resolve()
        }
        const happen = async (fault?: StepFault) => {
          const told = learn(step, 'over', fault)
          end()
          return told
        }
        const label = signal ? `${ms} ms` : whatIsPolled(asking)
        const step: Step = { thread: asking, kind, label, dueAt: clock.ms + ms, happen }
        pending.add(step)
        signal?.addEventListener('abort', end)
      })
    },
  }
}

/** Adds to a caller's path what its code was told; a round of polling leaves nothing behind but the time it began. */
function learnAt(clock: Clock) {
  return function learn({ thread, kind, label }: Step, result: string, fault?: StepFault): string {
    const { path, reachedAt, history } = thread
    const told = fault ? `${result} [${fault}]` : result
    history.push(`${kind} ${label} ${told} @${clock.leaps}`)
    if (kind === 'poll') {
      path.length -= ROUNDS[label] ?? 0
      reachedAt.length = Math.min(reachedAt.length, path.length + 1)
      thread.lastRead = ''
      return told
    }
    if (kind === 'read' && thread.outcome === undefined) thread.lastRead = told
    path.push(kind === 'read' ? kind : `${kind} ${kind === 'deadline' ? label : told}`)
    return told
  }
}

/** How many steps one round of each kind of polling takes. */
const ROUNDS: Readonly<Record<string, number>> = { lock: 2, record: 1, retry: 1 }

function whatIsPolled({ path }: Thread): string {
  if (path.at(-1) === 'read') return path.at(-2) === 'lock false' ? 'lock' : 'record'
  return path.at(-1)?.startsWith('write fails') ? 'retry' : 'other'
}

function newThread(who: Pick<Thread, 'actor' | 'caller' | 'resource'>): Thread {
  return { ...who, path: [], reachedAt: [], history: [], lastRead: '' }
}

function finish(thread: Thread, outcome: string): void {
  thread.outcome = outcome
  thread.lastRead = ''
}
