import { ConfigError } from '../../config/load.ts'
import type { Person } from '../../demo/provider/identity-provider-options.ts'
import { describeError } from '../../errors.ts'
import type { CommandIo } from '../command.ts'
import { EXIT_BAD_CONFIG } from '../config/config-file.ts'
import { untilStopped } from '../process.ts'
import { DEV_USAGE, type DevArguments, readDevArguments } from './arguments.ts'
import { type DevConfig, readDevConfig } from './dev-config.ts'
import { type DevServer, startDevServer } from './dev-server.ts'
import { readPersons } from './persons.ts'
import { openStateFile } from './state-file.ts'

/** Runs a development server until SIGINT or SIGTERM; resolves with 0, 78 for a bad `--config`, 1 otherwise. */
export async function devCommand(args: string[], io: CommandIo): Promise<number> {
  let wanted: DevArguments | 'help'
  let persons: readonly Person[]
  let devConfig: DevConfig
  try {
    wanted = readDevArguments(args)
    if (wanted === 'help') {
      io.stdout.write(DEV_USAGE)
      return 0
    }
  } catch (error) {
    io.stderr.write(`cloakroom dev: ${describeError(error).message}\n\n${DEV_USAGE}`)
    return 1
  }
  try {
    persons = readPersons(wanted.persons)
    devConfig = readDevConfig(wanted, io)
  } catch (error) {
    return refused(error, io)
  }
  if (wanted.printConfig) {
    io.stdout.write(devConfig.text)
    return 0
  }
  return run({ args: wanted, persons, devConfig }, io)
}

function refused(error: unknown, io: CommandIo): number {
  if (error instanceof ConfigError) {
    io.stderr.write(`${error.message}\n`)
    return EXIT_BAD_CONFIG
  }
  io.stderr.write(`cloakroom dev: ${describeError(error).message}\n`)
  return 1
}

type Wanted = {
  readonly args: DevArguments
  readonly persons: readonly Person[]
  readonly devConfig: DevConfig
}

async function run(wanted: Wanted, io: CommandIo): Promise<number> {
  const { args } = wanted
  const stopped = untilStopped()
  const stateFile = openStateFile(args.port, { env: io.env, folder: process.cwd() })
  try {
    const onLogLine = (line: string) => {
      const text = terminalLine(line, args.verbose)
      if (text !== undefined) io.stderr.write(`${text}\n`)
    }
    const server = await startDevServer({ ...wanted, stateFile, onLogLine })
    io.stdout.write(greeting(server, wanted))
    await stopped
    await server.close()
    return 0
  } catch (error) {
    if (error instanceof ConfigError) return refused(error, io)
    io.stderr.write(`cloakroom dev: ${explain(error, args)}\n`)
    return 1
  }
}

function greeting(server: DevServer, { args, persons, devConfig }: Wanted): string {
  const { publicUrl, panelUrl, issuer, jwksUrl, routes, isContinued } = server
  const lines = routes.map(({ path, upstream, resource }) => {
    const audience = devConfig.apis.find(({ name }) => name === resource)?.audience
    return `  ${path.padEnd(16)} ${upstream}${audience === undefined ? '' : `   with tokens for ${audience}`}`
  })
  const notes = devConfig.notes.map((note) => `  ${note}\n`).join('')
  return `
  Your application:  ${publicUrl}
  Panel, switches:   ${panelUrl}
  Provider:          ${issuer}   (${devConfig.profile.title}; keys for your APIs: ${jwksUrl})

${lines.join('\n')}

  Sign in as ${persons.map(({ sub }) => sub).join(', ')}.${isContinued ? ' Sessions of before go on.' : ''}
${notes}  Ctrl+C ends it; sessions go on at the next start${args.fresh ? '' : ' (--fresh forgets them)'}.

`
}

/** A log line for the terminal: what went wrong; with `verbose` each request, too. */
function terminalLine(line: string, isVerbose: boolean): string | undefined {
  const { level, msg, method, path, status, route, code, reason, err } = JSON.parse(line)
  const isRequest = msg === 'request'
  if (level === 'info' && !(isVerbose && isRequest)) return undefined
  const words = isRequest
    ? [status, method, path, route, code, reason]
    : [level, msg, code, reason, err?.message]
  return `  ${words.filter((word) => word !== undefined).join(' ')}`
}

function explain(error: unknown, args: DevArguments): string {
  const { code, port } = error as { code?: unknown; port?: unknown }
  if (code !== 'EADDRINUSE') return describeError(error).message
  const option =
    { [args.port]: '--port', [args.panelPort]: '--panel-port' }[String(port)] ?? '--provider-port'
  const free = Number(port) < 65000 ? Number(port) + 10 : 8080
  return `port ${port} is taken by another program. Stop that one, or choose another port: ${option} ${free}`
}
