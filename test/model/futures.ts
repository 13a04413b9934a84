import { choicesOf } from './choices.ts'
import type { Configuration } from './configuration.ts'
import { flawsAtEnd } from './end-check.ts'
import { replay } from './explore.ts'
import type { Run } from './run.ts'
import { fingerprint, type Renaming, symmetriesOf } from './state.ts'

/** Checks the checker: whether states that it takes for one really have the same future. */
export type FuturesCheck = {
  readonly exact: number
  readonly merged: number
  /** Pairs of schedules that lead to the same state, as the checker has it, and yet to different ones from there. */
  readonly different: readonly string[]
}

/** Explores a configuration without merging any states, and compares what follows each with what follows its like. */
export async function compareFutures(configuration: Configuration): Promise<FuturesCheck> {
  const symmetries = symmetriesOf(configuration.callers)
  const futures = new Map<string, { readonly future: string; readonly path: string }>()
  const exact = new Set<string>()
  const different: string[] = []
  const open: number[][] = [[]]
  for (let path = open.pop(); path; path = open.pop()) {
    const run = await replay(configuration, path, { precision: 'exact' })
    const isNew = !exact.has(exactly(run))
    exact.add(exactly(run))
    const state = fingerprint({ ...run, precision: 'merged' }, symmetries)
    const choices = isNew ? choicesOf(run).length : 0
    const { violations, store } = run.world
    const flaws = choices === 0 ? [...violations, ...flawsAtEnd(run)] : violations
    await store.close()
    if (!isNew) continue
    const next = Array.from({ length: choices }, (_, index) => [...path, index])
    open.push(...next)
    const future = [...(await statesAfter(configuration, next, symmetries)), flaws.length].join()
    const like = futures.get(state)
    if (like && like.future !== future) different.push(`${like.path} and ${path}`)
    futures.set(state, { future, path: path.join() })
  }
  return { exact: exact.size, merged: futures.size, different }
}

const exactly = (run: Run) => fingerprint(run, [new Map()])

async function statesAfter(
  configuration: Configuration,
  paths: readonly number[][],
  symmetries: readonly Renaming[],
): Promise<string[]> {
  const states = new Set<string>()
  for (const path of paths) {
    const run = await replay(configuration, path, { precision: 'exact' })
    states.add(fingerprint({ ...run, precision: 'merged' }, symmetries))
    await run.world.store.close()
  }
  return [...states].sort()
}
