import type { Cloakroom } from '../app.ts'
import { ConfigError } from '../config/load.ts'
import { readerThatNotes, type SeenFiles, watchFiles } from '../config/watch.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { loadCheckedConfig } from './config-file.ts'
import type { CommandIo } from './io.ts'

export type ReloadingDeps = {
  readonly file: string
  readonly io: CommandIo
  readonly log: Logger
  readonly cloakroom: Pick<Cloakroom, 'reload'>
  /** What the running configuration was read from. */
  readonly seen: SeenFiles
}

/** How often the files are looked at; a change is acted on at the second look. */
const LOOK_EVERY_MS = 1_000

/** Reads the configuration anew on SIGHUP, and when its file or a file it names changed. Returns what stops it. */
export function startReloading(deps: ReloadingDeps): () => void {
  let { seen } = deps
  let last = Promise.resolve()

  async function reloadNow(reason: string): Promise<void> {
    seen = new Map()
    await reloadFrom(seen, reason, deps)
  }
  /** One after the other: each reads what is there when its turn comes. */
  function reload(reason: string): Promise<void> {
    last = last.then(() => reloadNow(reason))
    return last
  }

  const onSignal = () => void reload('SIGHUP')
  process.on('SIGHUP', onSignal)
  const stopWatching = watchFiles({
    seen: () => seen,
    intervalMs: LOOK_EVERY_MS,
    onChange: () => reload('a file changed'),
  })
  return function stop() {
    process.off('SIGHUP', onSignal)
    stopWatching()
  }
}

/** A good file takes over; a bad one is refused whole, and what runs runs on. Never rejects. */
async function reloadFrom(seen: SeenFiles, reason: string, deps: ReloadingDeps): Promise<void> {
  const { file, io, log } = deps
  try {
    const { needRestart } = await deps.cloakroom.reload(() => {
      const { config, warnings } = loadCheckedConfig(file, io.env, readerThatNotes(seen))
      for (const { path, message } of warnings) log.warn({ config: file, path }, message)
      return config
    })
    log.info({ config: file, reason }, 'the configuration was read again and is in use')
    if (needRestart.length === 0) return
    log.warn({ config: file }, `changed, but in use only after a restart: ${needRestart.join(', ')}`)
  } catch (error) {
    const isBad = error instanceof ConfigError
    if (isBad) io.stderr.write(`${error.message}\n`)
    const facts = isBad ? { count: error.problems.length } : { err: describeError(error) }
    log.error({ config: file, reason, ...facts }, 'the new configuration is refused; the one before runs on')
  }
}
