import { type Debugger, Session } from 'node:inspector/promises'
import { pathToFileURL } from 'node:url'
import { getCallSites } from 'node:util'
import { ROOT } from './source-files.ts'

/** One call of one of our functions; what follows an `await` in it is no call of its own. */
export type Step = {
  /** Path below the root, e.g. `src/http/edge.ts`. */
  readonly file: string
  /** As V8 names it, with the line of an anonymous one. */
  readonly name: string
  /** The file of the nearest of our functions below it on the stack, packages between them left aside. */
  readonly caller: string | undefined
  /** How many of our functions are below it on the stack. */
  readonly depth: number
}

/** What a request passes through, in the order of its calls. */
export type Walk = {
  readonly steps: readonly Step[]
  /** The functions of each file, both in the order in which they were reached first. */
  readonly files: ReadonlyMap<string, ReadonlySet<string>>
  /** Number of different functions. */
  readonly functions: number
  /** Calls from a function in one file to a function in another one. */
  readonly switches: number
}

/**
 * Follows what this process does in `src/` until `send` resolves; `send` is called twice and must do the same both
 * times, each time after `prepare`, which is not followed. Nothing is instrumented: V8's coverage says which functions one call of `send` reaches, and a breakpoint at the
 * entry of each, whose condition takes a note and never holds, says in which order the next one does. What timers begin
 * belongs to no request and is left out.
 */
export async function traceWalk(
  send: () => Promise<unknown>,
  prepare: () => Promise<unknown> = async () => undefined,
): Promise<Walk> {
  const session = new Session()
  session.connect()
  try {
    await session.post('Profiler.enable')
    // For as long as it counts, V8 inlines nothing: a breakpoint in an inlined function is passed by.
    await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false })
    await prepare()
    const reached = await functionsReached(session, send)
    const steps: Step[] = []
    Reflect.set(globalThis, NOTE, (name: string) => noteStep(steps, name))
    await session.post('Debugger.enable')
    for (const one of reached) await noteEntries(session, one)
    await prepare()
    steps.length = 0
    await send()
    return summaryOf(steps)
  } finally {
    session.disconnect()
    Reflect.deleteProperty(globalThis, NOTE)
  }
}

/** Of the global that the conditions of the breakpoints call. */
const NOTE = '__noteStepOfWalk'
const OURS = pathToFileURL(`${ROOT}src/`).href
/** What stands around Cloakroom: the scripted provider of the walk. */
const DEMO = `${OURS}demo/`

type Reached = { readonly scriptId: string; readonly name: string; readonly range: readonly [number, number] }

async function functionsReached(session: Session, send: () => Promise<unknown>): Promise<Reached[]> {
  // Reading the counters sets them to 0.
  await session.post('Profiler.takePreciseCoverage')
  await send()
  const { result } = await session.post('Profiler.takePreciseCoverage')
  return result
    .filter(({ url }) => url.startsWith(OURS))
    .flatMap(({ scriptId, functions }) =>
      functions.flatMap(({ functionName, ranges: [whole] }) =>
        whole && whole.count > 0
          ? { scriptId, name: functionName, range: [whole.startOffset, whole.endOffset] as const }
          : [],
      ),
    )
}

async function noteEntries(session: Session, { scriptId, name, range }: Reached): Promise<void> {
  // Stripped types leave blanks, so that places are those of the source file.
  const { scriptSource } = await session.post('Debugger.getScriptSource', { scriptId })
  const [start, end] = range.map((offset) => placeOf(scriptSource, scriptId, offset))
  const { locations } = await session.post('Debugger.getPossibleBreakpoints', {
    ...{ start: start!, end, restrictToFunction: true },
  })
  const lines = scriptSource.split('\n')
  const entry = locations.find((place) => !isLoopVariable(lines[place.lineNumber]!, place.columnNumber!))
  const label = JSON.stringify(name || `(line ${start!.lineNumber + 1})`)
  if (entry) await session.post('Debugger.setBreakpoint', { location: entry, condition: `${NOTE}(${label})` })
}

function placeOf(text: string, scriptId: string, offset: number): Debugger.Location {
  const before = text.slice(0, offset).split('\n')
  return { scriptId, lineNumber: before.length - 1, columnNumber: before.at(-1)!.length }
}

/** The `one` of `for (const one of all)`, which is reached only if there is one, and after `all`. */
function isLoopVariable(line: string, column: number): boolean {
  return /\bfor (await )?\(const (?!.* of )[^=]*$/.test(line.slice(0, column))
}

function noteStep(steps: Step[], name: string): void {
  const sites = getCallSites(200)
  if (sites.some(({ functionName }) => functionName === 'listOnTimeout')) return
  const [file, caller, ...further] = sites
    .filter(({ scriptName }) => scriptName.startsWith(OURS) && !scriptName.startsWith(DEMO))
    .map(({ scriptName }) => `src/${scriptName.slice(OURS.length)}`)
  const depth = caller === undefined ? 0 : further.length + 1
  if (file !== undefined) steps.push({ file, name, caller, depth })
}

function summaryOf(steps: readonly Step[]): Walk {
  const files = new Map<string, Set<string>>()
  for (const { file, name } of steps) files.set(file, (files.get(file) ?? new Set()).add(name))
  return {
    ...{ steps, files },
    functions: [...files.values()].reduce((sum, names) => sum + names.size, 0),
    switches: steps.filter(({ file, caller }) => caller !== undefined && caller !== file).length,
  }
}
