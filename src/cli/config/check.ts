import { parseArgs } from 'node:util'
import type { Config } from '../../config/config.ts'
import { ConfigError, formatProblem } from '../../config/report/problem.ts'
import { type CommandIo, usageError } from '../command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadCheckedConfig } from './config-file.ts'

const USAGE = `usage: cloakroom check [--config FILE]

Validates a config file and runs its tests, without network. Every problem is printed as file:line:col.

  --config FILE    default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml
`

/** Validates a config file offline; resolves with 0, 78 when anything in it is wrong, 1 for wrong arguments. */
export async function checkCommand(args: string[], io: CommandIo): Promise<number> {
  let options: { config?: string; help?: boolean }
  try {
    const known = { config: { type: 'string' }, help: { type: 'boolean', short: 'h' } } as const
    options = parseArgs({ args, options: known }).values
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
  if (options.help) {
    io.stdout.write(USAGE)
    return 0
  }
  return checkFile(configFileName(options.config, io.env), io)
}

function checkFile(file: string, io: CommandIo): number {
  try {
    const { config, warnings } = loadCheckedConfig(file, io)
    for (const { path, message, ...place } of warnings) {
      io.stdout.write(`${formatProblem({ ...place, path, message: `warning: ${message}` })}\n`)
    }
    io.stdout.write(`${file}: ok (${summary(config)})\n`)
    return 0
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    io.stdout.write(`${error.message}\n${file}: ${count(error.problems.length, 'problem')}\n`)
    return EXIT_BAD_CONFIG
  }
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
