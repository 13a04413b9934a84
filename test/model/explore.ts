import { choicesOf } from './choices.ts'
import type { Configuration, Precision } from './configuration.ts'
import { flawsAtEnd } from './end-check.ts'
import { type Run, startRun } from './run.ts'
import { fingerprint, outcomeOf, symmetriesOf } from './state.ts'

/** A schedule that ends in something that must not happen. */
export type CounterExample = { readonly flaws: readonly string[]; readonly schedule: readonly string[] }

/** What an exploration has seen. */
export type Exploration = {
  readonly runs: number
  readonly states: number
  readonly transitions: number
  readonly ends: number
  readonly longest: number
  /** How each caller was answered, in every way in which a run can end. */
  readonly outcomes: ReadonlySet<string>
  readonly ms: number
  readonly counterExample?: CounterExample
}

export type ExploreOptions = {
  /** `breadth` finds a shortest counter-example, `depth` needs fewer runs. */
  readonly order?: 'depth' | 'breadth'
  readonly precision?: Precision
}

type Path = readonly number[]

/** A run that takes more steps than this will not end. */
const MAX_STEPS = 300

/**
 * Explores every interleaving of a configuration: each path of choices is run from the start over the real code, and
 * a state that has been seen is not continued again.
 */
export async function explore(
  configuration: Configuration,
  options: ExploreOptions = {},
): Promise<Exploration> {
  const startedAt = performance.now()
  const search = createSearch(configuration, options)
  const { stackTraceLimit } = Error
  process.on('unhandledRejection', search.onRejection)
  // Nobody reads the stack of an error that was meant to happen, and it is dear.
  Error.stackTraceLimit = 0
  try {
    let counterExample: CounterExample | undefined
    while (!counterExample && search.hasMore()) counterExample = await search.runNext()
    return { ...search.seen(), ms: performance.now() - startedAt, counterExample }
  } finally {
    Error.stackTraceLimit = stackTraceLimit
    process.off('unhandledRejection', search.onRejection)
  }
}

function createSearch(
  configuration: Configuration,
  { order = 'depth', precision = 'merged' }: ExploreOptions,
) {
  const symmetries = symmetriesOf(configuration.callers)
  const states = new Set<string>()
  const outcomes = new Set<string>()
  const rejections: string[] = []
  const open: Path[] = [[]]
  let next = 0
  const counts = { runs: 0, transitions: 0, ends: 0, longest: 0 }

  async function runNext(): Promise<CounterExample | undefined> {
    const path = [...(order === 'depth' ? open.pop()! : open[next++]!)]
    const run = await replay(configuration, path, { precision })
    counts.runs += 1
    const isBad = await goOn(run, path)
    counts.longest = Math.max(counts.longest, path.length)
    await run.world.store.close()
    return isBad ? retell(configuration, path, { precision, rejections }) : undefined
  }

  /** Goes on from a path's end while there is something new; true at something that must not happen. */
  async function goOn(run: Run, path: number[]): Promise<boolean> {
    for (;;) {
      counts.transitions += 1
      if (run.world.violations.length + rejections.length > 0 || path.length > MAX_STEPS) return true
      const state = fingerprint(run, precision === 'exact' ? symmetries.slice(0, 1) : symmetries)
      if (states.has(state)) return false
      states.add(state)
      const choices = choicesOf(run)
      if (choices.length === 0) {
        counts.ends += 1
        outcomes.add(outcomeOf(run, symmetries))
        return flawsAtEnd(run).length > 0
      }
      const others = choices.map((_, index) => [...path, index])
      if (order === 'breadth') {
        open.push(...others)
        return false
      }
      open.push(...others.slice(1).reverse())
      path.push(0)
      await choices[0]!.happen()
    }
  }

  return {
    runNext,
    hasMore: () => next < open.length,
    seen: () => ({ ...counts, states: states.size, outcomes }),
    onRejection: (reason: unknown) => void rejections.push(`unhandled rejection: ${reason}`),
  }
}

/** Runs one path of choices from the start. */
export async function replay(
  configuration: Configuration,
  path: Path,
  { precision = 'merged', told }: { precision?: Precision; told?: string[] },
): Promise<Run> {
  const run = await startRun(configuration, precision)
  for (const index of path) {
    const choice = choicesOf(run)[index]
    if (!choice) throw new Error('the same choices led elsewhere: something is not deterministic')
    const result = await choice.happen()
    told?.push(`${choice.label()} → ${result}`)
  }
  return run
}

async function retell(
  configuration: Configuration,
  path: Path,
  { precision, rejections }: { precision: Precision; rejections: readonly string[] },
): Promise<CounterExample> {
  const schedule: string[] = []
  const run = await replay(configuration, path, { precision, told: schedule })
  await run.world.store.close()
  const endless = path.length > MAX_STEPS ? ['there is no end to it'] : []
  const atEnd = choicesOf(run).length === 0 ? flawsAtEnd(run) : []
  return { flaws: [...run.world.violations, ...rejections, ...endless, ...atEnd], schedule }
}
