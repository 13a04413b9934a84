import { type Clock, systemClock } from './clock.ts'
import { within } from './deadline.ts'

/** Work that has begun and must be done before the process ends. */
export type InFlightWork = {
  add(work: Promise<unknown>): void
  /**
   * Lets none begin any more, and waits for all that have, at most `ms`; from then on nothing is tried again. Resolves
   * with the number of those that are not done.
   */
  end(ms: number): Promise<number>
  /** Whether nothing new is to begin. */
  isEnding(): boolean
  /** Whether nothing is to be tried again. */
  isOver(): boolean
}

/** Makes a register without work. */
export function createInFlightWork(clock: Pick<Clock, 'pause'> = systemClock): InFlightWork {
  const works = new Set<Promise<unknown>>()
  let isEnding = false
  let isOver = false

  /** What was begun on the way is waited for too. */
  async function settled(): Promise<void> {
    while (works.size > 0 && !isOver) await Promise.allSettled(works)
  }

  return {
    add(work) {
      works.add(work)
      const forget = () => works.delete(work)
      work.then(forget, forget)
    },
    async end(ms) {
      isEnding = true
      await within(settled(), ms, { late: () => undefined, clock })
      isOver = true
      return works.size
    },
    isEnding: () => isEnding,
    isOver: () => isOver,
  }
}
