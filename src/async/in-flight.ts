/** Refreshes that have begun, under whatever configuration: what they bring must be stored before the store closes. */
export type UnderWay = {
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

/** Makes an empty one. */
export function createUnderWay(): UnderWay {
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
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms)
      })
      await Promise.race([settled(), late])
      clearTimeout(timer)
      isOver = true
      return works.size
    },
    isEnding: () => isEnding,
    isOver: () => isOver,
  }
}
