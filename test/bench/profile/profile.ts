import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Field } from '../case.ts'
import { startBare } from '../contenders/bare.ts'
import { type Ask, type Contender, requestText } from '../contenders/contender.ts'
import type { Lane } from '../measure.ts'
import { SETTLES_AFTER, steady } from '../request-cases.ts'
import { type Span, timesOf } from './parts.ts'
import type { Profiled } from './table.ts'

/** Short enough to see small parts, long enough not to slow what is measured. */
const INTERVAL_US = 500

/** What may be profiled, by the name on the command line. */
export const PROFILED: Readonly<Record<string, { readonly title: string; readonly ask: Ask }>> = {
  small: { title: 'GET, 800 B', ask: 'small' },
  unauthorized: { title: '401', ask: 'small' },
  get64k: { title: 'GET, 64 KiB', ask: 'large' },
  post16k: { title: 'POST of 16 KiB', ask: 'upload' },
}

type Profiling = {
  readonly folder: string
  readonly cases: readonly string[]
  readonly rounds: number
}

/**
 * Measures where the CPU time goes. Fresh processes write a CPU profile from start to end; they are warmed up and then have
 * windows in turn. Only the samples of the windows count. The profiles stay in `folder`.
 */
export async function profile(field: Field, { folder, cases, rounds }: Profiling): Promise<Profiled[]> {
  const env = {
    NODE_OPTIONS: `--cpu-prof --cpu-prof-interval=${INTERVAL_US} --cpu-prof-dir=${folder}`,
  }
  const started = [
    { name: 'bare', contender: field.bare, ...(await startBare(field, env)) },
    ...(await Promise.all(
      // The older tree comes first.
      field.cloakrooms.toReversed().map(async (contender, n, all) => ({
        ...{ name: n === all.length - 1 ? 'now' : `before (${revisionOf(contender.dir)})`, contender },
        ...(await contender.startAnother(env)),
      })),
    )),
  ].map(({ contender, ...fresh }) => ({ ...fresh, contender: { ...contender, ...fresh } }))
  const lanes = cases.flatMap((id) =>
    started
      .filter(({ contender }) => id !== 'unauthorized' || !contender.isOpen)
      .map(({ name, contender }) => ({
        ...{ title: PROFILED[id]!.title, name, pid: contender.pid, lane: laneOf(field, id, contender) },
        ...{ spans: [] as Span[], total: 0, count: 0 },
      })),
  )
  for (const { lane } of lanes) await warmUpOnce(lane)
  for (let round = 0; round < rounds; round += 1) {
    for (const one of lanes) {
      const from = monotonicUs()
      const { total, count } = await one.lane.window()
      one.spans.push({ from, to: monotonicUs() })
      one.total += total
      one.count += count
    }
  }
  // A profile is written at the end of its process.
  for (const { stop } of started) await stop()
  return lanes.map(({ title, name, pid, spans, total, count }) => {
    const times = timesOf(profileOf(folder, pid), spans)
    const parts = new Map([...times].map(([part, us]) => [part, us / count]))
    return { title, contender: name, cpuUs: total / count, parts }
  })
}

/** Warms a process up. Does not wait until its cost has settled, which takes minutes on a busy machine. */
async function warmUpOnce({ warmUpRequests, window }: Lane): Promise<void> {
  for (let count = 0; count < warmUpRequests; ) count += (await window()).count
}

function laneOf(field: Field, id: string, contender: Contender): Lane {
  const { ask } = PROFILED[id]!
  const warmUpRequests = id === 'small' ? SETTLES_AFTER : 20_000
  if (id !== 'unauthorized') return steady(field, contender, ask, { warmUpRequests })
  const { cookie: _, ...fields } = contender.fields
  const requests = [requestText(ask, fields)]
  return steady(field, contender, ask, { warmUpRequests, requests, expectRefusals: true })
}

const monotonicUs = () => Number(process.hrtime.bigint() / 1_000n)

/** Node names profiles CPU.DATE.TIME.PID.THREAD.NUMBER.cpuprofile. */
function profileOf(folder: string, pid: number) {
  const name = readdirSync(folder).find((file) => new RegExp(`^CPU\\.\\d+\\.\\d+\\.${pid}\\.0\\.`).test(file))
  if (!name) throw new Error(`process ${pid} has left no CPU profile in ${folder}`)
  return JSON.parse(readFileSync(join(folder, name), 'utf8'))
}

function revisionOf(dir: string): string {
  const { status, stdout } = spawnSync('git', ['-C', dir, 'rev-parse', '--short', 'HEAD'], {
    encoding: 'utf8',
  })
  return status === 0 ? stdout.trim() : basename(dir)
}
