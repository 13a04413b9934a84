import { type Clock, systemClock } from './clock.ts'
import { within } from './deadline.ts'

/** What is in flight now, each in a slot of its own. */
export type InFlight<T> = {
  /** Notes one; returns its slot. */
  add(one: T): number
  /** Forgets the one in this slot; false when it is there no more. */
  remove(slot: number, one: T): boolean
  /** How many are in flight. */
  count(): number
  /** All that are in flight now. */
  values(): T[]
}

/**
 * Nothing is in flight yet. Not a Set: V8 leaves its outgrown tables behind, and what they name outlives every collection
 * of the young. With one slot after the other for each request that tripled the time spent on collecting.
 */
export function createInFlight<T extends object>(): InFlight<T> {
  const slots: (T | undefined)[] = []
  const free: number[] = []
  return {
    add(one) {
      const slot = free.pop() ?? slots.length
      slots[slot] = one
      return slot
    },
    remove(slot, one) {
      if (slots[slot] !== one) return false
      slots[slot] = undefined
      free.push(slot)
      return true
    },
    count: () => slots.length - free.length,
    values: () => slots.filter((one) => one !== undefined),
  }
}

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

/** No work has begun yet. */
export function createInFlightWork(clock: Pick<Clock, 'pause'> = systemClock): InFlightWork {
  const works = createInFlight<Promise<unknown>>()
  let isEnding = false
  let isOver = false

  /** What was begun on the way is waited for too. */
  async function settled(): Promise<void> {
    while (works.count() > 0 && !isOver) await Promise.allSettled(works.values())
  }

  return {
    add(work) {
      const slot = works.add(work)
      const forget = () => works.remove(slot, work)
      work.then(forget, forget)
    },
    async end(ms) {
      isEnding = true
      await within(settled(), ms, { late: () => undefined, clock })
      isOver = true
      return works.count()
    },
    isEnding: () => isEnding,
    isOver: () => isOver,
  }
}
