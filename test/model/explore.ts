import { flawsAtEnd } from './end-check.ts'
import { type Choice, type Configuration, choicesOf, type Run, startRun } from './run.ts'
import { fingerprint, type Precision, symmetriesOf } from './state.ts'

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
  const rejections: unknown[] = []
  const onRejection = (reason: unknown) => rejections.push(reason)
  process.on('unhandledRejection', onRejection)
  let found: Path | undefined
  try {
    while (!found && search.hasMore()) found = await search.runNext(() => rejections.length > 0)
    const counterExample = found && (await retell(configuration, found, rejections))
    return { ...search.seen(), ms: performance.now() - startedAt, counterExample }
  } finally {
    process.off('unhandledRejection', onRejection)
  }
}

function createSearch(
  configuration: Configuration,
  { order = 'depth', precision = 'merged' }: ExploreOptions,
) {
  const renamings = precision === 'exact' ? [new Map()] : symmetriesOf(configuration.wishes)
  const states = new Set<string>()
  const outcomes = new Set<string>()
  const open: Path[] = [[]]
  let head = 0
  const counts = { runs: 0, transitions: 0, ends: 0, longest: 0 }

  /** Runs one path, goes on from its end while there is something new, and returns a path that ends badly. */
  async function runNext(isRejected: () => boolean): Promise<Path | undefined> {
    const path = [...(order === 'depth' ? open.pop()! : open[head++]!)]
    const run = await replay(configuration, path)
    counts.runs += 1
    for (;;) {
      counts.transitions += 1
      if (run.world.violations.length > 0 || isRejected()) return path
      const state = fingerprint(run, renamings, precision)
      if (states.has(state)) break
      states.add(state)
      const choices = choicesOf(run)
      if (choices.length === 0) {
        counts.ends += 1
        outcomes.add(outcomesOf(run))
        if (flawsAtEnd(run).length > 0) return path
        break
      }
      const first = order === 'depth' ? 1 : 0
      for (let i = choices.length - 1; i >= first; i--)
        open.push([...path, order === 'depth' ? i : choices.length - 1 - i])
      if (order === 'breadth') break
      path.push(0)
      await choices[0]!.happen()
    }
    counts.longest = Math.max(counts.longest, path.length)
    await run.world.store.close()
    return undefined
  }

  return {
    runNext,
    hasMore: () => head < open.length,
    seen: () => ({ ...counts, states: states.size, outcomes }),
  }
}

async function replay(configuration: Configuration, path: Path, told?: string[]): Promise<Run> {
  const run = await startRun(configuration)
  for (const index of path) {
    const choice: Choice | undefined = choicesOf(run)[index]
    if (!choice) throw new Error('the same choices led elsewhere: the code is not deterministic')
    const result = await choice.happen()
    told?.push(`${choice.label} → ${result}`)
  }
  return run
}

async function retell(
  configuration: Configuration,
  path: Path,
  rejections: unknown[],
): Promise<CounterExample> {
  const schedule: string[] = []
  const run = await replay(configuration, path, schedule)
  await run.world.store.close()
  const atEnd = choicesOf(run).length === 0 ? flawsAtEnd(run) : []
  const unhandled = rejections.map((reason) => `unhandled rejection: ${reason}`)
  return { flaws: [...new Set([...run.world.violations, ...unhandled, ...atEnd])], schedule }
}

function outcomesOf({ schedule, world }: Run): string {
  const answers = schedule.threads.map(({ actor, outcome = '' }) =>
    world.crashed.has(actor) ? 'crashed' : outcome.replace(/#\d+/, ''),
  )
  return answers.join(' ')
}
