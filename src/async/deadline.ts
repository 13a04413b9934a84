import { type Clock, systemClock } from './clock.ts'

const STEP_MS = 50
/** A step counts as this much at most: after a longer one this process stood still. */
const COUNTED_MS = 100

/** Bounds waits; see `createDeadline`. */
export type Deadline = {
  /** What `work` gives; rejects with what `tooLate` makes when that takes too long. `work` sees `isOver` from then on. */
  within<T>(work: (wait: Wait) => Promise<T>): Promise<T>
}

/** One wait in flight. */
export type Wait = { readonly isOver: boolean }

type Waiting = { isOver: boolean; leftMs: number; lookedAt: number; readonly reject: (error: Error) => void }

/**
 * A limit in the time that this process runs: while it stands still, for a garbage collection or for want of a
 * processor, others may well have answered, and that time is not counted against them. It is looked at every 50 ms, of
 * which a pause takes 100 at most; and what has arrived meanwhile is read before a wait is given up.
 */
export function createDeadline(
  limitMs: number,
  tooLate: () => Error,
  clock: Pick<Clock, 'monotonicNow' | 'after'> = systemClock,
): Deadline {
  const waits = new Set<Waiting>()
  let isStepping = false

  function step(): void {
    const now = clock.monotonicNow()
    for (const wait of waits) {
      wait.leftMs -= Math.min(now - wait.lookedAt, COUNTED_MS)
      wait.lookedAt = now
      if (wait.leftMs <= 0) giveUp(wait)
    }
    // Armed anew, not an interval: that would count a pause of several steps more than once.
    isStepping = waits.size > 0
    if (isStepping) clock.after(STEP_MS, step)
  }

  function giveUp(wait: Waiting): void {
    waits.delete(wait)
    setImmediate(() => {
      wait.isOver = true
      wait.reject(tooLate())
    })
  }

  function begin(wait: Waiting): void {
    waits.add(wait)
    if (!isStepping) clock.after(STEP_MS, step)
    isStepping = true
  }

  function end(wait: Waiting): void {
    wait.isOver = true
    waits.delete(wait)
  }

  return {
    // One promise, because `Promise.race` makes four more, and a read of a session has three deadlines at once.
    within<T>(work: (wait: Wait) => Promise<T>): Promise<T> {
      return new Promise((resolve, reject) => {
        const wait: Waiting = { isOver: false, leftMs: limitMs, lookedAt: clock.monotonicNow(), reject }
        const working = work(wait)
        begin(wait)
        working.then(
          (result) => {
            end(wait)
            resolve(result)
          },
          (error) => {
            end(wait)
            reject(error)
          },
        )
      })
    },
  }
}

/** Something that closes, such as a response or a socket, when its client leaves. */
export type Closing = {
  readonly destroyed: boolean
  once(event: 'close', listener: () => void): unknown
  off(event: 'close', listener: () => void): unknown
}

export type WithinOptions<Late> = {
  /** Gives what comes in place of a result that takes too long, or throws what the wait then rejects with. */
  readonly late: () => Late
  /** The machine's unless given. */
  readonly clock?: Pick<Clock, 'pause'>
}

/**
 * Waits for `work` for `ms` at most; rejects as it does. The work itself goes on in any case. Unlike a deadline above it
 * goes by the clock: it bounds the wait of a party outside, such as a client, whose time passes while this process stands still.
 */
export function within<T, Late>(work: Promise<T>, ms: number, options: WithinOptions<Late>): Promise<T | Late>
/** The same, until `closing` closes at the longest; the result is undefined then, also when it had closed before. */
export function within<T, Late>(
  work: Promise<T>,
  ms: number,
  options: WithinOptions<Late> & { readonly closing: Closing },
): Promise<T | Late | undefined>
export function within<T, Late>(
  work: Promise<T>,
  ms: number,
  { late, clock = systemClock, closing }: WithinOptions<Late> & { readonly closing?: Closing },
): Promise<T | Late | undefined> {
  const enough = new AbortController()
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const leave = () => resolve(undefined)
  closing?.once('close', leave)
  if (closing?.destroyed) leave()
  const inTime = clock.pause(ms, enough.signal).then(() => (enough.signal.aborted ? promise : late()))
  return Promise.race([work, promise, inTime]).finally(() => {
    // With a reason, or it would make an error with a stack.
    enough.abort('enough')
    closing?.off('close', leave)
  })
}
