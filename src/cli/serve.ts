import { parseArgs } from 'node:util'
import { build } from '../app.ts'
import { ConfigError, loadConfigFile } from '../config/load.ts'
import { createLogger, describeError, type Logger } from '../log.ts'
import type { CommandIo } from './io.ts'
import { runRouteTests } from './route-tests.ts'

const EXIT_BAD_CONFIG = 78

/** Runs the proxy until SIGTERM or SIGINT; resolves with the exit code: 0 drained, 78 bad config, 1 otherwise. */
export async function serveCommand(args: string[], io: CommandIo): Promise<number> {
  const { values } = parseArgs({ args, options: { config: { type: 'string' } } })
  const file = values.config ?? io.env.CLOAKROOM_CONFIG ?? 'config/cloakroom.yaml'
  const log = createLogger({ level: io.env.LOG_LEVEL ?? 'info' })
  const config = readConfig(file, io, log)
  if (!config) return EXIT_BAD_CONFIG
  try {
    const cloakroom = await build(config, { log })
    const { publicPort, adminPort } = await cloakroom.listen()
    log.info(
      { config: file, url: config.publicUrl, count: config.routes.length },
      `listening on ${publicPort}, admin on ${adminPort}`,
    )
    const signal = await untilStopped()
    log.info({ signal }, 'draining')
    await cloakroom.close()
    log.info({ signal }, 'stopped')
    return 0
  } catch (error) {
    log.error({ err: describeError(error) }, 'cannot run')
    return 1
  }
}

function readConfig(file: string, io: CommandIo, log: Logger) {
  try {
    const { config, warnings } = loadConfigFile(file, io.env)
    for (const { path, message } of warnings) log.warn({ config: file, path }, message)
    const failures = runRouteTests(config)
    if (failures.length === 0) return config
    io.stderr.write(`${file}: ${failures.length} of its own tests fail; "cloakroom check" shows them\n`)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    io.stderr.write(`${error.message}\n`)
  }
  return undefined
}

function untilStopped(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal))
  })
}
