import { readFileSync } from 'node:fs'

/** Open files of a process besides these connections: pipes, connections to the upstream and from wrk. */
const BESIDE = 500

/** Throws when no process may have so many connections open. Children have the limit of this process. */
export function requireOpenFiles(what: string, connections: number): void {
  const needed = connections + BESIDE
  const allowed = openFilesAllowed()
  if (allowed >= needed) return
  throw new Error(`${what} needs ${needed} open files, and ${allowed} are allowed: ulimit -n ${needed}`)
}

/** Node raises the soft limit to the hard one when it starts. */
function openFilesAllowed(): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft)
}
