import { ConfigError, type ConfigProblem, type FieldPath, fieldName } from './problem.ts'
import { finishComplaint } from './rule.ts'

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

/** Collects what is wrong. The first finding about a field stands: what follows from it would only be noise. */
export type Report = {
  problem(path: FieldPath, message: string, about?: 'value' | 'key'): void
  warn(path: FieldPath, message: string, about?: 'value' | 'key'): void
  /** Says nothing about this field any more. */
  excuse(path: FieldPath): void
  /** What the operator wrote there, variables not filled in. */
  written(path: FieldPath): unknown
  lineOf(path: FieldPath): number
  locate(path: FieldPath, message: string): ConfigProblem
  warnings(): readonly ConfigProblem[]
  /** @throws ConfigError with every problem so far, in the order of the file. */
  throwIfAny(): void
}

/** An empty report about `file`. */
export function createReport(file: string, places: FieldPlaces): Report {
  const problems = new Map<string, ConfigProblem | undefined>()
  const warnings: ConfigProblem[] = []
  const locate = (path: FieldPath, message: string, about: 'value' | 'key' = 'value'): ConfigProblem => {
    const written = places.get(fieldName(path))?.written
    return {
      file,
      ...placeOf(path, about, places),
      path: fieldName(path),
      message: finishComplaint(message, written),
    }
  }
  return {
    problem(path, message, about) {
      const name = fieldName(path)
      if (!problems.has(name)) problems.set(name, locate(path, message, about))
    },
    warn: (path, message, about) => warnings.push(locate(path, message, about)),
    excuse: (path) => problems.set(fieldName(path), undefined),
    written: (path) => places.get(fieldName(path))?.written,
    lineOf: (path) => placeOf(path, 'value', places).line,
    locate,
    warnings: () => warnings.toSorted(byPosition),
    throwIfAny() {
      const found = [...problems.values()].filter((problem) => problem !== undefined)
      if (found.length > 0) throw new ConfigError(found.sort(byPosition))
    },
  }
}

/** A missing field is shown where its parent begins. */
function placeOf(path: FieldPath, about: 'value' | 'key', places: FieldPlaces): Position {
  const own = places.get(fieldName(path))
  if (own) return (about === 'key' ? own.key : undefined) ?? own.value
  return path.length === 0 ? { line: 1, column: 1 } : placeOf(path.slice(0, -1), 'key', places)
}

function byPosition(a: ConfigProblem, b: ConfigProblem): number {
  return a.line - b.line || a.column - b.column
}
