import { ConfigError, type LoadedConfig, loadConfigFile } from '../config/load.ts'
import type { CommandIo } from './io.ts'
import { runRouteTests } from './route-tests.ts'

/** Exit code of a command whose configuration is wrong (EX_CONFIG of sysexits.h). */
export const EXIT_BAD_CONFIG = 78

/** The config file a command reads: `--config`, else `$CLOAKROOM_CONFIG`, else config/cloakroom.yaml. */
export function configFileName(option: string | undefined, env: CommandIo['env']): string {
  return option ?? (env.CLOAKROOM_CONFIG || 'config/cloakroom.yaml')
}

/** Reads a config file and runs its own tests. @throws ConfigError when anything is wrong with either. */
export function loadCheckedConfig(
  file: string,
  env: CommandIo['env'],
  readFile?: (path: string) => string,
): LoadedConfig {
  const loaded = loadConfigFile(file, env, readFile)
  const failures = runRouteTests(loaded.config)
  if (failures.length === 0) return loaded
  throw new ConfigError(failures.map(({ path, message }) => loaded.problemAt(path, message)))
}
