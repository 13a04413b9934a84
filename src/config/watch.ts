import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { systemClock } from '../async/clock.ts'
import type { ReadTextFile } from './secrets/secret-source.ts'

/** What each file held when a configuration was read from it: a digest, or that it could not be read. */
export type SeenFiles = Map<string, string>

/** Reads text files and notes in `seen` what each that is watched held the first time. @throws the system's error. */
export function readerThatNotes(seen: SeenFiles): ReadTextFile {
  return function readTextFile(path, isWatched = true) {
    const note = (content: string) => void (isWatched && !seen.has(path) && seen.set(path, content))
    try {
      const text = readFileSync(path)
      note(digestOf(text))
      return text.toString('utf8')
    } catch (error) {
      note(UNREADABLE)
      throw error
    }
  }
}

export type FileWatch = {
  /** What the configuration in use, or the last one refused, was read from. */
  readonly seen: () => SeenFiles
  readonly intervalMs: number
  readonly onChange: () => Promise<void>
}

/**
 * Each call looks at the files, and calls `onChange` when one holds something else and none has changed since
 * the look before: a file that is being written is not read. The contents are compared, because a mounted ConfigMap
 * changes by a symbolic link, and network file systems send no events.
 */
export function createFileLook({ seen, onChange }: Omit<FileWatch, 'intervalMs'>): () => Promise<void> {
  let before: SeenFiles | undefined
  return async function look() {
    const now = await digestsOf([...seen().keys()])
    const isStill = before !== undefined && areEqual(before, now)
    before = now
    if (isStill && !areEqual(seen(), now)) await onChange()
  }
}

/** Looks at the files again and again, one interval after the end of the look before. Returns what stops it. */
export function watchFiles({ intervalMs, ...watch }: FileWatch): () => void {
  const look = createFileLook(watch)
  let isStopped = false
  let timer = systemClock.after(intervalMs, lookOn).unref()

  async function lookOn(): Promise<void> {
    await look()
    if (!isStopped) timer = systemClock.after(intervalMs, lookOn).unref()
  }

  return function stop() {
    isStopped = true
    timer.cancel()
  }
}

const UNREADABLE = 'unreadable'

async function digestsOf(paths: readonly string[]): Promise<SeenFiles> {
  const digests = paths.map(async (path): Promise<[string, string]> => {
    const digest = await readFile(path).then(digestOf, () => UNREADABLE)
    return [path, digest]
  })
  return new Map(await Promise.all(digests))
}

function digestOf(text: Buffer): string {
  return createHash('sha256').update(text).digest('base64url')
}

function areEqual(a: SeenFiles, b: SeenFiles): boolean {
  return a.size === b.size && [...a].every(([path, digest]) => b.get(path) === digest)
}
