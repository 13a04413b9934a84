import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { familyOf } from './cpu-time.ts'

/** Which core runs the measured process alone, and which one everything else: load, upstream, Redis, provider. */
export type Cores = { readonly measured: number; readonly others: number }

/**
 * Two of the cores that this process may use; undefined when there is only one. Load and upstream on the measured core
 * would evict its caches between two requests, and the cheaper the measured proxy the more often: it would look dearer
 * than it is, and what is compared with it cheaper.
 */
export function twoCores(): Cores | undefined {
  const [, list = ''] = /^Cpus_allowed_list:\s*(.+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  const cores = list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, n) => first + n)
  })
  return cores.length < 2 ? undefined : { measured: cores.at(-1)!, others: cores[0]! }
}

/** Keeps all threads of a process on one core, and with them whatever it starts from now on. Throws when it cannot. */
export function pin(pid: number, core: number): void {
  const { status, stderr } = spawnSync('taskset', ['-a', '-c', '-p', String(core), String(pid)], {
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`taskset cannot pin process ${pid} to core ${core}: ${stderr}`)
}

/** Keeps a process and all that descend from it on one core. */
export function pinFamily(pid: number, core: number): void {
  for (const one of familyOf(pid)) pin(one, core)
}
