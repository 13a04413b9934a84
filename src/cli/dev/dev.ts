import { ConfigError } from '../../config/load.ts'
import { readerThatNotes, type SeenFiles, watchFiles } from '../../config/watch.ts'
import { isLoopbackHost } from '../../demo/dev/own-host.ts'
import type { Person } from '../../demo/provider/identity-provider-options.ts'
import { describeError } from '../../errors.ts'
import type { CommandIo } from '../command.ts'
import { EXIT_BAD_CONFIG } from '../config/config-file.ts'
import { untilStopped } from '../process.ts'
import { DEV_USAGE, type DevArguments, readDevArguments } from './arguments.ts'
import { type DevConfig, newDevSecrets, readDevConfig } from './dev-config.ts'
import { type DevServer, startDevServer } from './dev-server.ts'
import { readPersons } from './persons.ts'
import { openStateFile } from './state-file.ts'

const LOOK_EVERY_MS = 500

/**
 * Runs a development server until SIGINT or SIGTERM, or until `stopped` resolves; resolves with 0, 78 for a bad `--config`,
 * 1 otherwise. A `--config` or `--persons` that changes meanwhile is taken by a new start in this process.
 */
export async function devCommand(args: string[], io: CommandIo, stopped?: Promise<unknown>): Promise<number> {
  let given: DevArguments | 'help'
  let wanted: Wanted
  try {
    given = readDevArguments(args)
    if (given === 'help') {
      io.stdout.write(DEV_USAGE)
      return 0
    }
  } catch (error) {
    io.stderr.write(`cloakroom dev: ${describeError(error).message}\n\n${DEV_USAGE}`)
    return 1
  }
  try {
    wanted = readWanted(given, io)
  } catch (error) {
    return refused(error, io)
  }
  if (given.printConfig) {
    io.stdout.write(wanted.devConfig.text)
    return 0
  }
  return run(wanted, io, stopped ?? untilStopped(io.stop))
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

/** Throws ConfigError, or what is wrong with an argument or a file. */
function readWanted(args: DevArguments, io: CommandIo): Wanted {
  const persons = readPersons(args.persons)
  const devConfig = readDevConfig(args, io)
  return { args, persons, devConfig }
}

async function run(wanted: Wanted, io: CommandIo, stopped: Promise<unknown>): Promise<number> {
  const { args } = wanted
  const stateFile = openStateFile(args.port, { env: io.env, folder: process.cwd() })
  const onLogLine = (line: string) => {
    const text = terminalLine(line, args.verbose)
    if (text !== undefined) io.stderr.write(`${text}\n`)
  }
  let server: DevServer | undefined
  async function start(one: Wanted): Promise<void> {
    server = await startDevServer({ ...one, stateFile, onLogLine })
    io.stdout.write(greeting(server, one))
  }
  const failed = Promise.withResolvers<never>()
  const follow = followFiles(args, io, async (next) => {
    await server?.close()
    server = undefined
    await start(next).catch(failed.reject)
  })
  try {
    await start(wanted)
    await Promise.race([stopped, failed.promise])
    return 0
  } catch (error) {
    if (error instanceof ConfigError) return refused(error, io)
    io.stderr.write(`cloakroom dev: ${explain(error, args)}\n`)
    return 1
  } finally {
    await follow.stop()
    await server?.close()
  }
}

/**
 * Calls `restart` with what is wanted when a file of the arguments has changed. One that is bad is told, and what runs
 * stays.
 */
function followFiles(args: DevArguments, io: CommandIo, restart: (next: Wanted) => Promise<void>) {
  const files = [args.config, args.persons].filter((file) => file !== undefined)
  let seen = seenNow(files)
  let restarting: Promise<void> | undefined
  const stop = watchFiles({
    seen: () => seen,
    intervalMs: LOOK_EVERY_MS,
    async onChange() {
      seen = seenNow(files)
      try {
        // Sessions go on, also where the first start was told to forget those of before.
        const next = readWanted({ ...args, fresh: false }, io)
        next.devConfig.load(new Map(), newDevSecrets())
        io.stdout.write(
          `\n  ${files.join(' or ')} has changed: starts again with it. Switches are back where they were.\n`,
        )
        restarting = restart(next)
        await restarting
      } catch (error) {
        refused(error, io)
        io.stderr.write(`  ${files.join(' or ')} has changed, and is not taken; the one before runs on.\n`)
      }
    },
  })
  return {
    async stop(): Promise<void> {
      stop()
      await restarting
    },
  }
}

function seenNow(files: readonly string[]): SeenFiles {
  const seen: SeenFiles = new Map()
  const read = readerThatNotes(seen)
  for (const file of files) {
    try {
      read(file)
    } catch {
      // Noted as one that cannot be read.
    }
  }
  return seen
}

function greeting(server: DevServer, { args, persons, devConfig }: Wanted): string {
  const { publicUrl, panelUrl, issuer, jwksUrl, routes, isContinued } = server
  const lines = routes.map(({ path, upstream, resource }) => {
    const audience = devConfig.apis.find(({ name }) => name === resource)?.audience
    const tokens = audience === undefined ? '' : `   with tokens for ${audience}`
    return `  ${path.padEnd(16)} ${upstream}${tokens}${isLoopbackHost(new URL(upstream).host) ? '' : '   (*)'}`
  })
  if (lines.some((line) => line.endsWith('(*)')))
    lines.push(
      '  (*) not on this machine: no switch reaches it. --app URL or --api PATH=URL names another one.',
    )
  const notes = devConfig.notes.map((note) => `  ${note}\n`).join('')
  return `
  Your application:  ${publicUrl}
  Panel, switches:   ${panelUrl}
  Provider:          ${issuer}   (${devConfig.profile.title}; keys for your APIs: ${jwksUrl})

${lines.join('\n')}

  Sign in as ${persons.map(({ sub }) => sub).join(', ')}.${isContinued ? ' Earlier sessions continue.' : ''}
${notes}  Ctrl+C ends it; sessions continue at the next start${args.fresh ? '' : ' (--fresh forgets them)'}.

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
