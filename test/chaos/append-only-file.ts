import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** One command that Redis has acknowledged, and the second it was written in (epoch ms). */
export type WrittenCommand = { readonly at: number; readonly words: readonly string[] }

/** Every command in the append-only file of a redis-server with `aof-timestamp-enabled`, oldest first. */
export async function readAppendOnlyFile(folder: string): Promise<WrittenCommand[]> {
  const inside = join(folder, 'appendonlydir')
  const parts = (await readdir(inside)).filter((name) => name.endsWith('.incr.aof')).sort()
  const commands: WrittenCommand[] = []
  for (const part of parts) commands.push(...commandsIn(await readFile(join(inside, part))))
  return commands
}

/** RESP arrays of bulk strings, with lines of annotation between them. What a kill has cut short is left out. */
function* commandsIn(file: Buffer): Generator<WrittenCommand> {
  let place = 0
  let at = 0
  const line = (): string | undefined => {
    const end = file.indexOf('\r\n', place)
    if (end < 0) return undefined
    const text = file.toString('latin1', place, end)
    place = end + 2
    return text
  }
  for (let head = line(); head !== undefined; head = line()) {
    const timestamp = /^#TS:(\d+)/.exec(head)?.[1]
    if (timestamp !== undefined) at = Number(timestamp) * 1000
    if (!head.startsWith('*')) continue
    const words: string[] = []
    for (let left = Number(head.slice(1)); left > 0; left -= 1) {
      const length = Number(line()?.slice(1))
      if (!(place + length + 2 <= file.length)) return
      words.push(file.toString('utf8', place, place + length))
      place += length + 2
    }
    yield { at, words }
  }
}
