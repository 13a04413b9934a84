/** Work in flight, as the work itself sees it. */
export type Flight = {
  /** Its result was forgotten meanwhile: the next caller does not share it. */
  readonly isForgotten: boolean
}

/** Work that runs once at a time for each key: a caller that comes while it runs shares its result, or its failure. */
export type SingleFlight<Value, Group = undefined> = {
  /** Whether work for `key` runs now. */
  has(key: string): boolean
  /** The result of the work that runs for `key`, or else of `work`, which begins now. `group`: what `forget` forgets it by. */
  share(
    key: string,
    work: (flight: Flight) => Promise<Value>,
    ...group: Group extends undefined ? [] : [group: Group]
  ): Promise<Value>
  /** Leaves running work to those that share it already: of one group, or all. What comes from now on begins anew. */
  forget(...group: Group extends undefined ? [] : [group?: Group]): void
}

type Running<Value> = {
  isForgotten: boolean
  readonly key: string
  readonly group: unknown
  result?: Promise<Value>
}

/** Makes a single flight in which no work runs. */
export function createSingleFlight<Value, Group = undefined>(): SingleFlight<Value, Group> {
  const flights = new Map<string, Running<Value>>()
  const groups = new Map<unknown, Set<Running<Value>>>()

  function add(flight: Running<Value>): void {
    flights.set(flight.key, flight)
    if (flight.group === undefined) return
    const members = groups.get(flight.group)
    if (members) members.add(flight)
    else groups.set(flight.group, new Set([flight]))
  }

  function remove(flight: Running<Value>): void {
    if (flights.get(flight.key) === flight) flights.delete(flight.key)
    const members = groups.get(flight.group)
    members?.delete(flight)
    if (members?.size === 0) groups.delete(flight.group)
  }

  return {
    has: (key) => flights.has(key),

    share(key, work, ...[group]) {
      const running = flights.get(key)?.result
      if (running) return running
      const flight: Running<Value> = { isForgotten: false, key, group }
      const result = work(flight)
      flight.result = result
      add(flight)
      const over = () => remove(flight)
      result.then(over, over)
      return result
    },

    forget(...[group]) {
      for (const flight of group === undefined ? flights.values() : (groups.get(group) ?? [])) {
        flight.isForgotten = true
        remove(flight)
      }
    },
  }
}

/** The same for work of one kind: what is returned runs `work`, or shares the run that is in flight. */
export function singleFlight<Value>(work: () => Promise<Value>): () => Promise<Value> {
  const flights = createSingleFlight<Value>()
  return () => flights.share('', work)
}
