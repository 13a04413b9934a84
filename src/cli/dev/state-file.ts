import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import type { SavedProvider } from '../../demo/profiles/scripted-provider.ts'
import type { MemoryContents } from '../../store/memory/memory-store.ts'
import type { CommandIo } from '../command.ts'
import type { DevSecrets } from './dev-config.ts'

/** Everything of a development server that outlives it. */
export type DevState = {
  readonly version: 1
  /** The provider's issuer: sessions of another one are no good. */
  readonly issuer: string
  readonly secrets: DevSecrets
  readonly provider: SavedProvider
  readonly store: MemoryContents
  /** Epoch ms. */
  readonly savedAt: number
}

/** The file in which a development server keeps its state; for its user's eyes only. */
export type StateFile = {
  readonly path: string
  /** What was saved last; undefined when nothing was, or nothing that this version reads. */
  read(): DevState | undefined
  /** Replaces it in one step. Throws the system's error. */
  write(state: DevState): void
  remove(): void
}

/**
 * Keeps the state of one project and port: under `node_modules/.cache` where there is a `node_modules`, which no version
 * control sees, else in the user's state folder.
 */
export function openStateFile(
  port: number,
  { env, folder }: { env: CommandIo['env']; folder: string },
): StateFile {
  const modules = join(folder, 'node_modules')
  const home = env.XDG_STATE_HOME || join(homedir(), '.local', 'state')
  const project = createHash('sha256').update(resolve(folder)).digest('hex').slice(0, 12)
  const own = existsSync(modules)
    ? join(modules, '.cache', 'cloakroom-dev')
    : join(home, 'cloakroom-dev', project)
  const path = join(own, `${port}.json`)

  return {
    path,
    read() {
      try {
        const state: unknown = JSON.parse(readFileSync(path, 'utf8'))
        return isState(state) ? state : undefined
      } catch {
        return undefined
      }
    },
    write(state) {
      mkdirSync(own, { recursive: true, mode: 0o700 })
      const next = `${path}.${process.pid}`
      writeFileSync(next, JSON.stringify(state), { mode: 0o600 })
      chmodSync(next, 0o600)
      renameSync(next, path)
    },
    remove: () => rmSync(path, { force: true }),
  }
}

/** Whether a file has the parts that this version writes; what is in them is its own. */
function isState(value: unknown): value is DevState {
  const { version, issuer, savedAt, store, provider, secrets } = (value ?? {}) as Partial<DevState>
  const parts = [store?.sessions, store?.logins, provider?.signIn, provider?.tokens, secrets?.sessionKey]
  const isWhole = [issuer, savedAt, ...parts].every((part) => part !== undefined)
  return version === 1 && isWhole
}
