/** Somebody who waits for a place. */
export type Waiter = {
  /** The place is theirs now; they leave it when they are done, or at once if they no longer want it. */
  enter(): void
  /** None fell free in time. */
  giveUp(): void
}

/** A limited number of places, given in order of arrival: nobody is overtaken, and nobody waits longer than they wish. */
export type Places = {
  /** Takes a place if one is free. */
  take(): boolean
  /** Waits for a place for so many ms. Returns what ends the waiting; it does nothing once that is over. */
  wait(waiter: Waiter, forMs: number): () => void
  /** Gives a place back: to whoever waits longest. */
  leave(): void
}

/** Makes places that are all free. */
export function createPlaces(count: number): Places {
  let free = count
  let isServing = false
  const line = new Set<{ waiter: Waiter; timer: NodeJS.Timeout }>()

  function take(): boolean {
    if (free === 0 || line.size > 0) return false
    free--
    return true
  }

  function wait(waiter: Waiter, forMs: number): () => void {
    const timer = setTimeout(() => {
      line.delete(entry)
      waiter.giveUp()
    }, forMs)
    const entry = { waiter, timer }
    line.add(entry)
    return function stopWaiting() {
      clearTimeout(timer)
      line.delete(entry)
    }
  }

  function leave(): void {
    free++
    // Whoever enters may leave at once: the loop below sees to the next, however many do.
    if (isServing) return
    isServing = true
    for (const entry of line) {
      if (free === 0) break
      line.delete(entry)
      clearTimeout(entry.timer)
      free--
      entry.waiter.enter()
    }
    isServing = false
  }
  return { take, wait, leave }
}
