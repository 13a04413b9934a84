import type { Cloakroom } from '../app/build.ts'
import { ConfigError } from '../config/load.ts'
import { readerThatNotes, type SeenFiles, watchFiles } from '../config/watch.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { CommandIo } from './command.ts'
import { loadCheckedConfig } from './config/config-file.ts'

export type ReloadingDeps = {
  readonly file: string
  readonly io: CommandIo
  readonly log: Logger
  readonly cloakroom: Pick<Cloakroom, 'reload'>
  readonly hangUp: ReturnType<typeof catchHangUp>
  /** What the running configuration was read from. */
  readonly seen: SeenFiles
}

/** How often the files are looked at; a change is acted on at the second look. */
const LOOK_EVERY_MS = 1_000

/** Makes SIGHUP call the listener that was set last. It is never removed: without a listener the signal ends the process. */
export function catchHangUp(): { listen(listener: (() => void) | undefined): void } {
  let current: (() => void) | undefined
  process.on('SIGHUP', () => current?.())
  return {
    listen(listener) {
      current = listener
    },
  }
}

/** Reads the configuration anew on SIGHUP, and when its file or a file it names changed. Returns what stops it. */
export function startReloading(deps: ReloadingDeps): () => void {
  const { hangUp } = deps
  let { seen } = deps
  let running: Promise<void> | undefined
  let next: Promise<void> | undefined

  async function reloadNow(reason: string): Promise<void> {
    seen = new Map()
    await reloadFrom(seen, reason, deps)
  }
  /** Reloads run one after the other. One that waits will read the newest file, so many signals become one reload. */
  function reload(reason: string): Promise<void> {
    if (next) return next
    const turn = (running ?? Promise.resolve()).then(() => {
      next = undefined
      running = turn
      return reloadNow(reason)
    })
    next = turn
    return turn
  }

  hangUp.listen(() => void reload('SIGHUP'))
  const stopWatching = watchFiles({
    seen: () => seen,
    intervalMs: LOOK_EVERY_MS,
    onChange: () => reload('a file changed'),
  })
  return function stop() {
    hangUp.listen(undefined)
    stopWatching()
  }
}

/** Applies a good file. Refuses a bad one as a whole: the configuration in use stays. Never rejects. */
async function reloadFrom(seen: SeenFiles, reason: string, deps: ReloadingDeps): Promise<void> {
  const { file, io, log } = deps
  try {
    const { needRestart } = await deps.cloakroom.reload(() => {
      const { config, warnings } = loadCheckedConfig(file, io, { readFile: readerThatNotes(seen) })
      for (const { path, message } of warnings) log.warn({ config: file, path }, message)
      return config
    }, reason)
    log.info({ config: file, reason }, 'the configuration was read again and is in use')
    if (needRestart.length === 0) return
    log.warn({ config: file }, `changed, but in use only after a restart: ${needRestart.join(', ')}`)
  } catch (error) {
    const facts = error instanceof ConfigError ? problemsOf(error) : { err: describeError(error) }
    log.error({ config: file, reason, ...facts }, 'the new configuration is refused; the one before runs on')
  }
}

const MOST_PROBLEMS = 20

/** What is wrong, for one line of the log, which a collector keeps together. */
export function problemsOf({ problems }: ConfigError) {
  return {
    count: problems.length,
    problems: problems.slice(0, MOST_PROBLEMS).map(({ line, path, message }) => ({ line, path, message })),
    cure: 'correct the file; `cloakroom check` shows each problem in its line',
  }
}
