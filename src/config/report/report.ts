import { finishComplaint } from '../rules/rule.ts'
import { ConfigError, type ConfigProblem, type FieldPath, fieldName } from './problem.ts'

/** A position in the file, both from 1. */
export type Position = { readonly line: number; readonly column: number }

/** Where a field stands and what is written there. */
export type FieldPlace = {
  readonly value: Position
  /** Of its key; an item of a list has none. */
  readonly key?: Position
  /** Before variables are filled in, so that a message cannot show what came from the environment. */
  readonly written: unknown
}

/** Every field of the file by its `fieldName`; the empty name is the whole file. */
export type FieldPlaces = ReadonlyMap<string, FieldPlace>

/** Which half of a line is meant. */
export type Half = 'value' | 'key'

/** One field of the file, there or not, and what can be said about it. */
export type Field = {
  /** A field below this one. */
  at(...steps: FieldPath): Field
  /** The first finding about a field stands: what follows from it would only be noise. */
  problem(message: string, half?: Half, at?: Position): void
  warn(message: string, half?: Half): void
  /** Says nothing about this field any more. */
  excuse(): void
  /** What the operator wrote there, variables not filled in; undefined when nothing. */
  written(): unknown
  line(): number
}

/** Collects what is wrong with one file. */
export type Report = {
  /** The file as a whole. */
  readonly root: Field
  locate(path: FieldPath, message: string): ConfigProblem
  warnings(): readonly ConfigProblem[]
  /** @throws ConfigError with every problem so far, in the order of the file. */
  throwIfAny(): void
}

/** An empty report about `file`. */
export function createReport(file: string, places: FieldPlaces): Report {
  const problems = new Map<string, ConfigProblem | undefined>()
  const warnings: ConfigProblem[] = []
  const locate = (path: FieldPath, message: string, half: Half = 'value'): ConfigProblem => {
    const name = fieldName(path)
    const written = places.get(name)?.written
    return { file, ...placeOf(path, half, places), path: name, message: finishComplaint(message, written) }
  }
  const field = (path: FieldPath): Field => ({
    at: (...steps) => field([...path, ...steps]),
    problem(message, half, at) {
      const name = fieldName(path)
      if (!problems.has(name)) problems.set(name, { ...locate(path, message, half), ...at })
    },
    warn: (message, half) => warnings.push(locate(path, message, half)),
    excuse: () => problems.set(fieldName(path), undefined),
    written: () => places.get(fieldName(path))?.written,
    line: () => placeOf(path, 'value', places).line,
  })
  return {
    root: field([]),
    locate,
    warnings: () => warnings.toSorted(byPosition),
    throwIfAny() {
      const found = [...problems.values()].filter((problem) => problem !== undefined)
      if (found.length > 0) throw new ConfigError(found.sort(byPosition))
    },
  }
}

/** A missing field is shown where its parent begins. */
function placeOf(path: FieldPath, half: Half, places: FieldPlaces): Position {
  const own = places.get(fieldName(path))
  if (own) return (half === 'key' ? own.key : undefined) ?? own.value
  return path.length === 0 ? { line: 1, column: 1 } : placeOf(path.slice(0, -1), 'key', places)
}

function byPosition(a: ConfigProblem, b: ConfigProblem): number {
  return a.line - b.line || a.column - b.column
}
