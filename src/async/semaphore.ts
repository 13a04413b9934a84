import { type Clock, systemClock, type Timer } from './clock.ts'
import { heapShare } from './expiring-map.ts'
import type { Pace } from './pace.ts'

/** Waits for a permit. */
export type Waiter<Refusal> = {
  /** The permit is taken for it now. It is released when the work is done, or at once if it is not wanted any more. */
  enter(): void
  /** It gets none: not in time, because too many wait already, or because all who waited were refused. */
  refuse(refusal: Refusal): void
}

export type SemaphoreOptions<Refusal> = {
  /** How many may be held at the same time. */
  readonly permits: number
  /** Makes the refusal of a waiter that got no permit in time, or came when `maxWaiting` waited already. */
  readonly refusal: () => Refusal
  /** How many may wait; no limit unless given. */
  readonly maxWaiting?: number
  /** Told of every change of the number that waits. */
  readonly observe?: (waiting: number) => void
  /** The machine's unless given. */
  readonly clock?: Pick<Clock, 'after'>
}

/** A limited number of permits, given in order of arrival: a newcomer overtakes no waiter. */
export type Semaphore<Refusal> = {
  /** Takes a permit if one is free. */
  tryAcquire(): boolean
  /** Whether one more would have to wait, and may not. */
  isFull(): boolean
  /** Waits for a permit, `forMs` at most. Returns what ends the waiting early; it does nothing once that is over. */
  wait(waiter: Waiter<Refusal>, forMs: number): () => void
  /** Gives a permit back: to the longest waiter, if any waits. */
  release(): void
  /** Runs `work` with a permit, after waiting for it `waitMs` at most. Rejects with the refusal, else as `work` does. */
  run<T>(work: () => Promise<T>, waitMs: number): Promise<T>
  /** From now on permits are taken no faster than this allows; as fast as they come unless given. */
  paceBy(pace: Pick<Pace, 'delayMs' | 'began'> | undefined): void
  /** Refuses every waiter of now. */
  refuseAll(refusal: Refusal): void
}

/** A waiter in the line, a list linked both ways: of 50,000 any may leave in no time. */
type Entry<Refusal> = {
  readonly waiter: Waiter<Refusal>
  readonly timer: Timer
  previous: Entry<Refusal> | undefined
  next: Entry<Refusal> | undefined
  isWaiting: boolean
}

/** Part of the heap for all requests in one line, and what one of them takes there with its session: measured 28 KB. */
const WAITING_SHARE = 1 / 5
const WAITING_BYTES = 32_768

/** How many requests may wait: `most`, or what the heap has room for. A process that runs out of memory ends for all users. */
export function mostWaiting(most: number): number {
  return Math.min(most, Math.floor(heapShare(WAITING_SHARE) / WAITING_BYTES))
}

/** A permit that is released goes to the longest waiter at once, so a refusal comes in time while every permit hangs. */
export function createSemaphore<Refusal>(options: SemaphoreOptions<Refusal>): Semaphore<Refusal> {
  const { permits, refusal, maxWaiting = Number.POSITIVE_INFINITY, observe, clock = systemClock } = options
  let free = permits
  let waiting = 0
  let first: Entry<Refusal> | undefined
  let last: Entry<Refusal> | undefined
  let isServing = false
  let pace: Pick<Pace, 'delayMs' | 'began'> | undefined
  let turn: Timer | undefined

  function tryAcquire(): boolean {
    if (free === 0 || first || (pace && pace.delayMs() > 0)) return false
    take()
    return true
  }

  const isFull = () => waiting >= maxWaiting && (free === 0 || first !== undefined)

  function take(): void {
    free--
    pace?.began()
  }

  /** Plans to serve the first waiter when it is its turn; false when that is now. */
  function mustWaitForTurn(): boolean {
    const ms = pace?.delayMs() ?? 0
    if (ms <= 0) return false
    turn ??= clock.after(ms, () => {
      turn = undefined
      serve()
    })
    return true
  }

  function wait(waiter: Waiter<Refusal>, forMs: number): () => void {
    if (waiting >= maxWaiting) {
      waiter.refuse(refusal())
      return () => {}
    }
    const timer = clock.after(forMs, () => {
      leave(entry)
      waiter.refuse(refusal())
    })
    const entry: Entry<Refusal> = { waiter, timer, previous: last, next: undefined, isWaiting: true }
    if (last) last.next = entry
    else first = entry
    last = entry
    waiting += 1
    observe?.(waiting)
    if (pace) serve()
    return () => leave(entry)
  }

  function leave(entry: Entry<Refusal>): void {
    if (!entry.isWaiting) return
    entry.isWaiting = false
    entry.timer.cancel()
    const { previous, next } = entry
    if (previous) previous.next = next
    else first = next
    if (next) next.previous = previous
    else last = previous
    waiting -= 1
    observe?.(waiting)
  }

  function release(): void {
    free++
    serve()
  }

  function serve(): void {
    // A waiter may release within `enter`: the loop below serves the next, so that the stack stays flat.
    if (isServing) return
    isServing = true
    while (first && free > 0 && !mustWaitForTurn()) {
      const entry = first
      leave(entry)
      take()
      entry.waiter.enter()
    }
    isServing = false
  }

  async function run<T>(work: () => Promise<T>, waitMs: number): Promise<T> {
    if (!tryAcquire()) await new Promise<void>((enter, refuse) => wait({ enter, refuse }, waitMs))
    try {
      return await work()
    } finally {
      release()
    }
  }

  function refuseAll(reason: Refusal): void {
    for (let entry = first; entry; entry = first) {
      leave(entry)
      entry.waiter.refuse(reason)
    }
  }
  return {
    ...{ tryAcquire, isFull, wait, release, run, refuseAll },
    paceBy(next) {
      pace = next
      turn?.cancel()
      turn = undefined
      serve()
    },
  }
}
