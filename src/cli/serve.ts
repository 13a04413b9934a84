import { parseArgs } from 'node:util'
import { build } from '../app/build.ts'
import { systemClock } from '../async/clock.ts'
import type { Trace } from '../async/trace.ts'
import type { Config } from '../config/config.ts'
import { ConfigError } from '../config/load.ts'
import { didYouMean } from '../config/report/nearest-name.ts'
import { readerThatNotes, type SeenFiles } from '../config/watch.ts'
import { describeError } from '../errors.ts'
import { ListenError } from '../http/server/listeners.ts'
import { createLogger, type Logger } from '../log.ts'
import { installFetch } from '../oidc/token-endpoint/provider-connections.ts'
import { version } from '../version.ts'
import { type CommandIo, usageError } from './command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadCheckedConfig } from './config/config-file.ts'
import { catchStopSignals, endOnUnexpected, mostOpenFiles, openFilesWarning } from './process.ts'
import { catchHangUp, problemsOf, startReloading } from './reload.ts'
import { readTraceSettings } from './trace-settings.ts'

/** Runs the proxy until SIGTERM or SIGINT; resolves with the exit code: 0 drained, 78 bad config, 1 otherwise. */
export async function serveCommand(args: string[], io: CommandIo): Promise<number> {
  const file = configFile(args, io)
  if (file === undefined) return 1
  surviveOutputErrors()
  installFetch()
  const level = logLevel(io)
  if (level === undefined) return EXIT_BAD_CONFIG
  const log = createLogger({ level })
  log.info(
    { version: version(), config: file },
    `cloakroom ${version()} starts with Node.js ${process.versions.node}`,
  )
  const seen: SeenFiles = new Map()
  const config = readConfig({ file, io, log, seen })
  if (!config) return EXIT_BAD_CONFIG
  try {
    return await run(config, { file, io, log, seen })
  } catch (error) {
    if (error instanceof ListenError) {
      const { field, cure, code, cause } = error
      const err = { ...describeError(cause), ...(code === undefined ? {} : { code }) }
      log.error({ config: file, path: field, cure, err }, `cannot start: ${error.message}`)
    } else log.error({ err: describeError(error) }, 'cannot run')
    return 1
  }
}

const USAGE = `usage: cloakroom serve [--config FILE]

Runs the proxy until SIGTERM or SIGINT. SIGHUP, or a change of the file or of a secret it names, reads it again. The log is JSON lines on standard output; LOG_LEVEL: info (default), warn, error.

  --config FILE    default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml
`

/** Those of pino; the log itself uses `info`, `warn` and `error`. */
const LEVELS = new Set(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])

/** Undefined after a message when LOG_LEVEL is no level. An empty one counts as absent: charts and compose files set it so. */
function logLevel({ env, stderr }: CommandIo): string | undefined {
  const written = env.LOG_LEVEL?.trim() || 'info'
  const level = written.toLowerCase()
  if (LEVELS.has(level)) return level
  const nearest = level === 'warning' ? ' (did you mean "warn"?)' : didYouMean(level, [...LEVELS])
  stderr.write(
    `environment variable LOG_LEVEL must be info, warn or error (got ${JSON.stringify(written)})${nearest}\n`,
  )
  return undefined
}

function configFile(args: string[], io: CommandIo): string | undefined {
  try {
    const { values } = parseArgs({ args, options: { config: { type: 'string' } } })
    return configFileName(values.config, io.env)
  } catch (error) {
    usageError({ error, usage: USAGE }, io)
    return undefined
  }
}

/** What `serve` was started with, and what it read. */
type Start = { readonly file: string; readonly io: CommandIo; readonly log: Logger; readonly seen: SeenFiles }

/** A report is for a person at a terminal, so it is printed as it is; the log has the same in one line. */
function readConfig({ file, io, log, seen }: Start): Config | undefined {
  try {
    const { config, warnings } = loadCheckedConfig(file, io, { readFile: readerThatNotes(seen) })
    for (const { path, message } of warnings) log.warn({ config: file, path }, message)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    io.stderr.write(`${error.message}\n`)
    log.error({ config: file, ...problemsOf(error) }, 'cannot start: the configuration is refused')
    return undefined
  }
}

async function run(config: Config, start: Start): Promise<number> {
  const { file, log } = start
  endOnUnexpected(log)
  const signals = start.io.stop ?? catchStopSignals()
  const stopped = signals.first
  const tooMany = openFilesWarning(config.limits.connections, mostOpenFiles())
  if (tooMany !== undefined) log.warn({ config: file, path: 'limits.connections' }, tooMany)
  const hangUp = catchHangUp()
  const trace = await tracesOf(start)
  const cloakroom = await build(config, { log, trace })
  const early = await Promise.race([stopped, undefined])
  if (early !== undefined) {
    await cloakroom.close()
    log.info({ signal: early }, 'stopped before it listened')
    return exitSoon()
  }
  const { publicPort, adminPort } = await cloakroom.listen()
  const facts = { config: file, url: config.publicUrl, count: config.routes.length }
  log.info(facts, `listening on ${publicPort}, admin on ${adminPort}`)
  const stopReloading = startReloading({ ...start, cloakroom, hangUp })
  const signal = await stopped
  stopReloading()
  log.info({ signal }, 'draining: not ready any more')
  signals.onAnother((another) => {
    log.warn({ signal: another }, 'a second signal: the shutdown waits no longer')
    cloakroom.hurry()
  })
  await cloakroom.close()
  log.info({ signal }, 'stopped')
  return exitSoon()
}

/** Time that a discovery, a revocation and the last traces have after everything else has ended. */
const LAST_CALLS_MS = 500

/** Returns the exit code 0, and exits after `LAST_CALLS_MS` even if the provider or the collector does not answer. */
function exitSoon(): number {
  systemClock.after(LAST_CALLS_MS, () => process.exit(0)).unref()
  return 0
}

/** Loads what traces need only where an endpoint is set for them. */
async function tracesOf({ io: { env }, log }: Start): Promise<Trace | undefined> {
  const settings = readTraceSettings(env)
  if (settings.kind === 'wrong') log.error({ cure: settings.cure }, `no traces: ${settings.message}`)
  if (settings.kind !== 'on') return undefined
  const { createTraces } = await import('../admin/traces.ts')
  return createTraces({ env, log, version: version() })
}

/** Keeps the process alive when its output fails: the reader may have left, or the disk may be full. Node would end it. */
function surviveOutputErrors(): void {
  for (const output of [process.stdout, process.stderr]) output.on('error', () => undefined)
}
