import type { Field } from '../case.ts'
import type { Scope } from '../contenders/contender.ts'
import { figureOf, type Lane, warmUp } from '../measure.ts'
import type { Point } from './exponent.ts'

/** How one cost grows with one size. */
export type Growth = { readonly what: string; readonly measures: string; readonly points: readonly Point[] }

/** Measures rows of the table, at these sizes unless others are given. */
export type Measure = {
  readonly sizes: readonly number[]
  rows(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]>
}

/** What most rows measure. */
export const CPU = 'CPU µs a request'

const WINDOWS = 3

/** The median of a few windows once the cost has settled. */
export async function settledCost(lane: Lane): Promise<number> {
  await warmUp(lane)
  const costs: number[] = []
  for (let n = 0; n < WINDOWS; n += 1) {
    const { total, count } = await lane.window()
    costs.push(total / count)
  }
  return figureOf(costs).median
}

/** Measures one size after the other. */
export async function pointsOf(
  sizes: readonly number[],
  costOf: (size: number) => Promise<number>,
): Promise<Point[]> {
  const points: Point[] = []
  for (const size of sizes) points.push({ size, cost: await costOf(size) })
  return points
}
