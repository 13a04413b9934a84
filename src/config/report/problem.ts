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

/** A config file that cannot be used; its message is the whole report, one line for each problem. */
export class ConfigError extends Error {
  readonly problems: readonly ConfigProblem[]

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map(formatProblem).join('\n'))
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/** `file:line:col  field.path: message`, the form that editors and CI systems make into a link. */
export function formatProblem({ file, line, column, path, message }: ConfigProblem): string {
  return `${file}:${line}:${column}  ${path === '' ? '' : `${path}: `}${message}`
}

/** The field's name as the operator writes it: `routes[2].upstream`, `resources["my.api"].scopes`. */
export function fieldName(path: FieldPath): string {
  return path.reduce<string>((name, step) => {
    if (typeof step === 'number') return `${name}[${step}]`
    if (!/^[\w-]+$/.test(step)) return `${name}[${JSON.stringify(step)}]`
    return name === '' ? step : `${name}.${step}`
  }, '')
}
