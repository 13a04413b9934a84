import type { Socket } from 'node:net'
import type { Field } from '../case.ts'
import { requestText, type Scope } from '../contenders/contender.ts'
import { warmUp } from '../measure.ts'
import { cpuTimeUs } from '../process/cpu-time.ts'
import { requireOpenFiles } from '../process/open-files.ts'
import { COLLECTS, closeAll, openMany, settledMemory, webSocketText } from '../process-cases.ts'
import { SETTLES_AFTER, steady } from '../request-cases.ts'
import type { Point } from './exponent.ts'
import { CPU, type Growth, settledCost } from './points.ts'

/** Idle keep-alive connections, each of which has had an answer. */
export async function connections(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const text = requestText('small', field.cloakrooms[0]!.fields)
  return besideOpen(field, t, { what: 'idle keep-alive connections', text, sizes, filesOfEach: 1 })
}

/** Idle WebSockets. */
export async function webSockets(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const text = webSocketText(field.cloakrooms[0]!.fields)
  return besideOpen(field, t, {
    ...{ what: 'open WebSockets', text, sizes },
    // One to the browser, one to the upstream.
    filesOfEach: 2,
  })
}

type Open = {
  readonly what: string
  /** The request that opens one. */
  readonly text: string
  readonly sizes: readonly number[]
  readonly filesOfEach: number
}

/** The memory of fewer is lost in what the heap grows and shrinks by itself. */
const FEWEST_WEIGHED = 2_000

/** Measures a request while so many are open, and the CPU time and memory of opening one more. */
async function besideOpen(
  field: Field,
  t: Scope,
  { what, text, sizes, filesOfEach }: Open,
): Promise<Growth[]> {
  requireOpenFiles(what, filesOfEach * Math.max(...sizes))
  const { startAnother, ...cloakroom } = field.cloakrooms[0]!
  const { stop, ...fresh } = await startAnother(COLLECTS)
  const one = { ...cloakroom, ...fresh, name: what }
  await warmUp(steady(field, one, 'small', { warmUpRequests: SETTLES_AFTER }))
  const open: Socket[] = []
  t.after(() => closeAll(open))
  const points = { request: [] as Point[], opening: [] as Point[], memory: [] as Point[] }
  let memoryBefore = Number.NaN
  for (const size of sizes) {
    const more = size - open.length
    const before = cpuTimeUs(one.pid)
    open.push(...(await openMany(one.port, text, more)))
    points.opening.push({ size, cost: (cpuTimeUs(one.pid) - before) / more })
    // Requests come before the reading, so that the heap has the same history at each size.
    points.request.push({ size, cost: await settledCost(steady(field, one, 'small')) })
    const memory = await steadyMemory(one.pid)
    if (more >= FEWEST_WEIGHED) points.memory.push({ size, cost: (memory - memoryBefore) / more / 1_000 })
    memoryBefore = memory
    const closed = open.filter(({ destroyed }) => destroyed).length
    if (closed > 0) throw new Error(`${closed} of ${size} ${what} were closed before the end`)
  }
  closeAll(open)
  await stop()
  return [
    { what: `${what} beside it`, measures: CPU, points: points.request },
    { what, measures: 'CPU µs to open one more', points: points.opening },
    { what, measures: 'KB of memory for one more', points: points.memory },
  ]
}

const STEADY_WITHIN = 0.01
const MOST_LOOKS = 8

/** Reads memory until it stays the same, because the heap shrinks in steps after a busy time. */
async function steadyMemory(pid: number): Promise<number> {
  let last = await settledMemory(pid)
  for (let looks = 1; looks < MOST_LOOKS; looks += 1) {
    const now = await settledMemory(pid)
    if (Math.abs(now - last) < STEADY_WITHIN * last) return now
    last = now
  }
  return last
}
