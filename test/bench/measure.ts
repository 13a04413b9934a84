/** What so many of something cost together, such as the CPU time of requests in µs. */
export type Window = { readonly total: number; readonly count: number }

/** Something whose cost is measured, beside others, in windows that take turns. */
export type Lane = {
  readonly name: string
  /** Until this many requests no cost counts as settled; 0: what is cold is measured, nothing is warmed up. */
  readonly warmUpRequests: number
  window(): Promise<Window>
}

/** Over all rounds. */
export type Figure = { readonly median: number; readonly min: number; readonly max: number }

/** What came of a lane: the cost of one, and that in units of the first lane, round by round. */
export type Measured = {
  readonly name: string
  readonly cost: Figure
  readonly ratio: Figure
  readonly isSettled: boolean
}

/** Two windows in a row that differ by less have settled. */
const SETTLED_WITHIN = 0.03
/** A cost that has not settled by then is measured all the same, and marked. */
const MOST_WARM_UP_WINDOWS = 40

/**
 * Whether the compilers, inline caches and collectors of a process have settled: it has had its requests, and the last
 * two windows differ by less than 3 %. By the difference alone a slow fall looks like a plain.
 */
export function hasSettled(windows: readonly Window[], warmUpRequests: number): boolean {
  const requests = windows.reduce((total, { count }) => total + count, 0)
  const [before, last] = windows.slice(-2).map(costOf)
  if (requests < warmUpRequests || before === undefined || last === undefined) return false
  return Math.abs(last - before) < SETTLED_WITHIN * Math.min(last, before)
}

/** Runs windows until the cost has settled; false when it has not. */
export async function warmUp(
  { warmUpRequests, window }: Lane,
  mostWindows = MOST_WARM_UP_WINDOWS,
): Promise<boolean> {
  if (warmUpRequests === 0) return true
  const windows: Window[] = []
  while (!hasSettled(windows, warmUpRequests)) {
    if (windows.length === mostWindows) return false
    windows.push(await window())
  }
  return true
}

/** Warms all lanes up, then measures one window of each in turn, so often. The first one is what the others are compared with. */
export async function measureLanes(
  lanes: readonly Lane[],
  rounds: number,
  mostWindows = MOST_WARM_UP_WINDOWS,
): Promise<Measured[]> {
  const settled: boolean[] = []
  for (const lane of lanes) settled.push(await warmUp(lane, mostWindows))
  const costs: number[][] = lanes.map(() => [])
  for (let round = 0; round < rounds; round += 1) {
    for (const [n, lane] of lanes.entries()) costs[n]!.push(costOf(await lane.window()))
  }
  return lanes.map(({ name }, n) => ({
    name,
    cost: figureOf(costs[n]!),
    // Neighbours in time are compared: what else the machine does comes and goes.
    ratio: figureOf(costs[n]!.map((cost, round) => cost / costs[0]![round]!)),
    isSettled: settled[n]!,
  }))
}

const costOf = ({ total, count }: Window): number => total / count

/** Median, least and most. NaN of nothing. */
export function figureOf(values: readonly number[]): Figure {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  const median = (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)! }
}
