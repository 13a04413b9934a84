import { readdirSync, readFileSync } from 'node:fs'

/** User and system time of all threads of a process so far, in microseconds. Linux only. */
export function cpuTimeUs(pid: number): number {
  let nanoseconds = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    // Nanoseconds on a CPU; /proc/PID/stat counts in ticks of 10 ms, too coarse for a short round.
    const [onCpu] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')
    nanoseconds += Number(onCpu)
  }
  return nanoseconds / 1000
}
