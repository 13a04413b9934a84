import { parseArgs } from 'node:util'
import type { Config } from '../../config/config.ts'
import { ConfigError, type ConfigProblem, exampleIn, formatProblem } from '../../config/report/problem.ts'
import { type CommandIo, usageError } from '../command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadCheckedConfig, STDIN } from './config-file.ts'

const USAGE = `usage: cloakroom check [--config FILE] [--no-secrets] [--json] [-]

Validates a config file and runs its tests, without network. Every problem is printed as file:line:col, with its line. Exit code 0, also with warnings; 78 with problems.

  --config FILE    default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml; - reads standard input
  --no-secrets     secret files, and variables of { env: NAME }, need not be there; those that are there are checked
  --json           the report as one JSON object: ok, problems with severity, file, line, col, path, message, example
`

type Options = { config?: string; secrets?: boolean; json?: boolean; help?: boolean }

/** Validates a config file offline; resolves with 0, 78 when anything in it is wrong, 1 for wrong arguments. */
export async function checkCommand(args: string[], io: CommandIo): Promise<number> {
  let options: Options
  try {
    options = optionsOf(args)
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
  if (options.help) {
    io.stdout.write(USAGE)
    return 0
  }
  const result = check(configFileName(options.config, io.env), options, io)
  io.stdout.write(options.json ? inJson(result) : inWords(result))
  return result.config ? 0 : EXIT_BAD_CONFIG
}

/** `-` may stand alone, as of other commands that read a file. */
function optionsOf(args: string[]): Options {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const known = {
    ...{ config: text, help: { ...flag, short: 'h' } },
    ...{ 'no-secrets': flag, json: flag },
  } as const
  const { values, positionals } = parseArgs({ args, options: known, allowPositionals: true })
  const { 'no-secrets': withoutSecrets = false, ...options } = values
  const [file, ...more] = positionals
  if (more.length > 0 || (file !== undefined && (file !== '-' || options.config !== undefined)))
    throw new Error(`unexpected argument ${JSON.stringify(more[0] ?? file)}: name a file with --config FILE`)
  return { ...options, secrets: !withoutSecrets, ...(file === undefined ? {} : { config: file }) }
}

type Result = {
  readonly file: string
  /** Absent when there are problems. */
  readonly config?: Config
  readonly withoutSecrets: boolean
  /** Warnings, when there is a config. */
  readonly problems: readonly ConfigProblem[]
  /** The report in words. */
  readonly report: string
}

function check(name: string, { secrets: requireSecrets = true }: Options, io: CommandIo): Result {
  const common = { file: name === '-' ? STDIN : name, withoutSecrets: !requireSecrets }
  try {
    const { config, text, warnings } = loadCheckedConfig(name, io, { requireSecrets })
    const report = warnings
      .map(({ message, ...place }) => formatProblem({ ...place, message: `warning: ${message}` }, text))
      .join('\n')
    return { ...common, config, problems: warnings, report }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { ...common, problems: error.problems, report: error.message }
  }
}

function inWords({ file, config, problems, report, withoutSecrets }: Result): string {
  const lines = report === '' ? '' : `${report}\n`
  if (!config) return `${lines}${file}: ${count(problems.length, 'problem')}\n`
  return `${lines}${file}: ok (${summary(config)}${withoutSecrets ? '; secrets need not be there' : ''})\n`
}

function inJson({ file, config, problems }: Result): string {
  const severity = config ? 'warning' : 'error'
  const found = problems.map(({ file: own, line, column, path, message }) => ({
    ...{ severity, file: own, line, col: column, path, message },
    example: exampleIn(message) ?? null,
  }))
  return `${JSON.stringify({ file, ok: config !== undefined, problems: found }, null, 2)}\n`
}

function summary({ routes, resources, tests }: Config): string {
  const counted = [
    count(routes.length, 'route'),
    count(Object.keys(resources).length, 'resource'),
    count(tests.length, 'test'),
  ]
  return counted.join(', ')
}

function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? '' : 's'}`
}
