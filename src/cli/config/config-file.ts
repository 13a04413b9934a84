import {
  ConfigError,
  type ConfigSource,
  type LoadedConfig,
  loadConfig,
  loadConfigFile,
} from '../../config/load.ts'
import { type CommandIo, readStdin } from '../command.ts'
import { runRouteTests } from './route-tests.ts'
import { type RouteWarning, routeWarnings } from './route-warnings.ts'

/** Exit code of a command whose configuration is wrong (EX_CONFIG of sysexits.h). */
export const EXIT_BAD_CONFIG = 78

/** What standard input is called in messages. */
export const STDIN = '<stdin>'

/** The config file a command reads: `--config`, else `$CLOAKROOM_CONFIG`, else config/cloakroom.yaml. */
export function configFileName(option: string | undefined, env: CommandIo['env']): string {
  return option ?? (env.CLOAKROOM_CONFIG || 'config/cloakroom.yaml')
}

/**
 * Reads a config file, or standard input for `-`, and runs its own tests.
 * @throws ConfigError when anything is wrong with either.
 */
export function loadCheckedConfig(
  file: string,
  io: Pick<CommandIo, 'env' | 'readStdin'>,
  options: Pick<ConfigSource, 'readFile' | 'requireSecrets'> = {},
): LoadedConfig {
  const loaded =
    file === '-'
      ? loadConfig({ text: readStdin(io), file: STDIN, env: io.env, ...options })
      : loadConfigFile(file, io.env, options)
  const failures = runRouteTests(loaded.config)
  const located = ({ path, message }: RouteWarning) => loaded.problemAt(path, message)
  if (failures.length > 0) throw new ConfigError(failures.map(located), loaded.text)
  return { ...loaded, warnings: [...loaded.warnings, ...routeWarnings(loaded.config).map(located)] }
}

/** The same for a command that cannot go on without: a report on standard error, and undefined, when anything is wrong. */
export function loadOrReport(
  file: string,
  io: Pick<CommandIo, 'env' | 'readStdin' | 'stderr'>,
  options: Pick<ConfigSource, 'readFile' | 'requireSecrets'> = {},
): LoadedConfig | undefined {
  try {
    return loadCheckedConfig(file, io, options)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    io.stderr.write(`${error.message}\n`)
    return undefined
  }
}
