import { readdirSync, readFileSync } from 'node:fs'

/** User and system time of all threads of a process so far, in microseconds. Linux only. */
export function cpuTimeUs(pid: number): number {
  let nanoseconds = 0
  for (const thread of threadsOf(pid)) {
    // Nanoseconds on a CPU; /proc/PID/stat counts in ticks of 10 ms, too coarse for a short round.
    const [onCpu] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')
    nanoseconds += Number(onCpu)
  }
  return nanoseconds / 1000
}

/** The same, of the process and of all that descend from it: Apache works in children. */
export function familyCpuTimeUs(pid: number): number {
  return familyOf(pid).reduce((total, one) => total + cpuTimeUs(one), 0)
}

/** A process and all that descend from it. */
export function familyOf(pid: number): number[] {
  const children = threadsOf(pid).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  )
  return [pid, ...children.flatMap(familyOf)]
}

function threadsOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`)
}
