import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

/** Why nothing can be measured here, for `skip`; false where it can. */
export const NOT_MEASURABLE = process.platform === 'linux' ? false : 'needs /proc'

const MB = 1_000_000

/** Bytes of memory a process has now (`VmRSS`), and the most it had since `forgetPeak` (`VmHWM`). */
export function memoryOf(pid: number): { readonly now: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const kilobytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1])
  return { now: kilobytes('VmRSS') * 1_024, peak: kilobytes('VmHWM') * 1_024 }
}

/** Makes the kernel's own note of the largest memory begin anew; where that is forbidden, the samples alone count. */
export function forgetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, '5')
  } catch {
    // A peak of before can only make the figures worse than they are.
  }
}

/** Open file descriptors of a process. */
export function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** What one stretch of time cost a process in memory. Bytes. */
export type MemoryStretch = { readonly base: number; readonly peak: number; readonly growth: number }

/** Watches a process, every 50 ms and by the kernel's own note, while `work` is under way. */
export async function watchMemory(pid: number, work: () => Promise<unknown>): Promise<MemoryStretch> {
  forgetPeak(pid)
  const base = memoryOf(pid).now
  let peak = base
  const look = () => {
    const { now, peak: noted } = memoryOf(pid)
    peak = Math.max(peak, now, noted)
  }
  const sampler = setInterval(look, 50)
  try {
    await work()
  } finally {
    clearInterval(sampler)
  }
  look()
  return { base, peak, growth: peak - base }
}

/** Bytes as whole and tenth MB. */
export function inMb(bytes: number): string {
  return `${(bytes / MB).toFixed(1)} MB`
}

/** Bytes that wait in the kernel, both ways, on every loopback connection with one of these ports. Linux only. */
export function bytesInKernel(ports: readonly number[]): number {
  const wanted = new Set(ports)
  let bytes = 0
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local, remote, , queues] = line.trim().split(/\s+/)
    if (!local || !remote || !queues) continue
    if (!wanted.has(portOf(local)) && !wanted.has(portOf(remote))) continue
    for (const queue of queues.split(':')) bytes += Number.parseInt(queue, 16)
  }
  return bytes
}

/** The port of `0100007F:1F90`. */
function portOf(address: string): number {
  return Number.parseInt(address.split(':')[1]!, 16)
}

/** Tells whether the end that listens at `port` still holds the connection from a client's port. Looks every 200 ms at most. */
export function connectionsTo(port: number): (clientPort: number) => boolean {
  let clientPorts = new Set<number>()
  let lookedAt = 0
  return function isOpen(clientPort) {
    if (performance.now() - lookedAt > 200) {
      clientPorts = establishedAt(port)
      lookedAt = performance.now()
    }
    return clientPorts.has(clientPort)
  }
}

const ESTABLISHED = '01'

function establishedAt(port: number): Set<number> {
  const found = new Set<number>()
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local, remote, state] = line.trim().split(/\s+/)
    if (state === ESTABLISHED && portOf(local!) === port) found.add(portOf(remote!))
  }
  return found
}
