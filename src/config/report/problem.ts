import { excerptOf } from './excerpt.ts'

/** Where a field stands in the file: `['routes', 2, 'upstream']`. */
export type FieldPath = readonly (string | number)[]

/** One thing that is wrong, or worth a warning, in a config file. Holds no secret. */
export type ConfigProblem = {
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly column: number
  /** The field as the operator writes it, e.g. `routes[2].upstream`; empty for the file as a whole. */
  readonly path: string
  readonly message: string
}

/** A config file that cannot be used; its message is the whole report. */
export class ConfigError extends Error {
  readonly problems: readonly ConfigProblem[]

  /** @param text of the file, whose lines the message shows then. */
  constructor(problems: readonly ConfigProblem[], text?: string) {
    super(problems.map((problem) => formatProblem(problem, text)).join('\n'))
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/**
 * `file:line:col  field.path: message`, the form that editors and CI systems make into a link; with the text of the file
 * its line and a caret below.
 */
export function formatProblem(problem: ConfigProblem, text?: string): string {
  const { file, line, column, path, message } = problem
  const excerpt = text === undefined ? '' : excerptOf(problem, text)
  return `${file}:${line}:${column}  ${path === '' ? '' : `${path}: `}${message}${excerpt}`
}

/** A right value, as far as the message of a problem names one. */
export function exampleIn(message: string): string | undefined {
  return (/, e\.g\. (.+)$/s.exec(message) ?? /\(did you mean "([^"]+)"\?\)/.exec(message))?.[1]
}

/** The field's name as the operator writes it: `routes[2].upstream`, `resources["my.api"].scopes`. */
export function fieldName(path: FieldPath): string {
  return path.reduce<string>((name, step) => {
    if (typeof step === 'number') return `${name}[${step}]`
    if (!/^[\w-]+$/.test(step)) return `${name}[${JSON.stringify(step)}]`
    return name === '' ? step : `${name}.${step}`
  }, '')
}
