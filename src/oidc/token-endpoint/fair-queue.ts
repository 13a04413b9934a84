import { BffError } from '../../errors.ts'

export type FairQueueDeps = {
  /** How many may work at the same time. */
  readonly places: number
  /** How many may wait; one more is refused at once. */
  readonly maxWaiting: number
  /** Longest wait for a place, in ms. */
  readonly waitMs: number
  /** Told of every change of the number that waits. */
  readonly observe: (waiting: number) => void
}

/** A limited number of places, given in order of arrival. */
export type FairQueue = {
  /** Runs `work` in a place. Rejects with provider_unavailable when there is none in time, or too many wait already. */
  run<T>(work: () => Promise<T>): Promise<T>
  /** Refuses everybody who waits now. */
  refuseAll(error: BffError): void
}

type Waiter = {
  readonly enter: () => void
  readonly refuse: (error: BffError) => void
  readonly timer: NodeJS.Timeout
  isGone: boolean
  next: Waiter | undefined
}

/**
 * A place that falls free is handed to whoever waits longest, not put back for the next comer to grab: nobody is
 * overtaken, and whoever is refused is refused on time, even while every place hangs.
 */
export function createFairQueue({ places, maxWaiting, waitMs, observe }: FairQueueDeps): FairQueue {
  let taken = 0
  let waiting = 0
  let first: Waiter | undefined
  let last: Waiter | undefined

  function place(): Promise<void> {
    if (waiting >= maxWaiting) return Promise.reject(crowded(waitMs))
    return new Promise((enter, refuse) => {
      const timer = setTimeout(() => {
        leave(waiter)
        refuse(crowded(waitMs))
      }, waitMs)
      const waiter: Waiter = { enter, refuse, timer, isGone: false, next: undefined }
      if (last) last.next = waiter
      else first = waiter
      last = waiter
      waiting += 1
      observe(waiting)
    })
  }

  function leave(waiter: Waiter): void {
    clearTimeout(waiter.timer)
    waiter.isGone = true
    waiting -= 1
    observe(waiting)
    // All wait equally long, so whoever leaves is nearly always the first.
    while (first?.isGone) first = first.next
    if (!first) last = undefined
  }

  function handOver(): void {
    const waiter = first
    if (!waiter) {
      taken -= 1
      return
    }
    leave(waiter)
    waiter.enter()
  }

  return {
    async run(work) {
      if (taken < places) taken += 1
      else await place()
      try {
        return await work()
      } finally {
        handOver()
      }
    },
    refuseAll(error) {
      for (let waiter = first; waiter; waiter = first) {
        leave(waiter)
        waiter.refuse(error)
      }
    },
  }
}

function crowded(waitMs: number): BffError {
  return new BffError('provider_unavailable', 'too many requests wait for the authorization server', {
    retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
  })
}
