/** What is to happen, by time; of the same time, in no particular but always the same order. */
export type Agenda = {
  add(at: number, what: number): void
  take(): { readonly at: number; readonly what: number } | undefined
}

/** A binary heap in two flat arrays: a day of a large fleet is tens of millions of entries. */
export function createAgenda(): Agenda {
  let times = new Float64Array(1_024)
  let things = new Float64Array(1_024)
  let size = 0

  function grow(): void {
    const [oldTimes, oldThings] = [times, things]
    times = new Float64Array(size * 2)
    things = new Float64Array(size * 2)
    times.set(oldTimes)
    things.set(oldThings)
  }

  function put(index: number, at: number, what: number): void {
    times[index] = at
    things[index] = what
  }

  return {
    add(at, what) {
      if (size === times.length) grow()
      let index = size
      size += 1
      while (index > 0) {
        const parent = (index - 1) >> 1
        if (times[parent]! <= at) break
        put(index, times[parent]!, things[parent]!)
        index = parent
      }
      put(index, at, what)
    },
    take() {
      if (size === 0) return undefined
      const first = { at: times[0]!, what: things[0]! }
      size -= 1
      const at = times[size]!
      const what = things[size]!
      let index = 0
      for (;;) {
        let child = 2 * index + 1
        if (child >= size) break
        if (child + 1 < size && times[child + 1]! < times[child]!) child += 1
        if (times[child]! >= at) break
        put(index, times[child]!, things[child]!)
        index = child
      }
      put(index, at, what)
      return first
    },
  }
}
