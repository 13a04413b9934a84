import { join } from 'node:path'
import { freePort } from '../kit/ports.ts'
import { isReady } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'
import type { Field } from './case.ts'
import { startApi } from './contenders/api.ts'
import { IMAGE } from './contenders/cloakroom.ts'
import { requestText, type Scope } from './contenders/contender.ts'
import { runWrk } from './load/wrk.ts'
import { type Figure, figureOf } from './measure.ts'
import { nextMessage, startChild } from './process/child.ts'
import { pin, pinFamily } from './process/cores.ts'
import { familyCpuTimeUs } from './process/cpu-time.ts'

/** Requests a second, and CPU µs of all replicas for each. */
export type Throughput = { readonly name: string; readonly perSecond: Figure; readonly cpuUs: Figure }

/** A core with a load of its own, the port that this goes to, and the process that serves there, with its children. */
type Stack = { readonly core: number; readonly port: number; readonly pid: number }

const CONNECTIONS = 64

/**
 * One replica with its load on one core, two with theirs on two, and Node's cluster module in place of the second replica.
 * A machine of two cores has none left for the load: each core runs one wrk, one API and one replica, so that twice the
 * cores have twice the work. Redis and the sessions in it are shared, as those of pods are.
 */
export async function measureReplicas(field: Field, t: Scope, rounds: number): Promise<Throughput[]> {
  const { cores } = field.world
  const [cloakroom] = field.cloakrooms
  if (!cloakroom) return []
  const requests = (await cloakroom.signIn(64)).map((fields) => requestText('small', fields))
  const [first, second] = [cores.measured, cores.others]
  const apis: string[] = []
  const stacks: Stack[] = []
  for (const core of [first, second]) {
    const api = await startApi(t)
    pinFamily(api.pid, core)
    apis.push(api.origin)
    const replica = await cloakroom.startAnother({ API: api.origin })
    pin(replica.pid, core)
    stacks.push({ core, port: replica.port, pid: replica.pid })
  }
  const clustered = await startCluster(t, field, apis)
  const layouts: readonly { name: string; stacks: readonly Stack[] }[] = [
    { name: 'one replica, one core', stacks: stacks.slice(0, 1) },
    { name: 'two replicas, two cores', stacks },
    {
      name: 'one with two workers of node:cluster, two cores',
      stacks: [first, second].map((core) => ({ core, ...clustered })),
    },
  ]

  async function window(layout: readonly Stack[]) {
    const pids = [...new Set(layout.map(({ pid }) => pid))]
    const cpu = () => pids.reduce((total, pid) => total + familyCpuTimeUs(pid), 0)
    const before = cpu()
    const results = await Promise.all(
      layout.map(({ core, port }) =>
        runWrk({ port, requests, core, connections: CONNECTIONS, seconds: field.seconds }),
      ),
    )
    const answered = results.reduce((total, result) => total + result.requests, 0)
    const perSecond = results.reduce((total, result) => total + (result.requests * 1e6) / result.elapsedUs, 0)
    return { perSecond, cpuUs: (cpu() - before) / answered }
  }

  const seen = layouts.map(() => [] as { perSecond: number; cpuUs: number }[])
  for (let round = -WARM_UP_ROUNDS; round < rounds; round += 1) {
    for (const [n, layout] of layouts.entries()) {
      const one = await window(layout.stacks)
      if (round >= 0) seen[n]!.push(one)
    }
  }
  return layouts.map(({ name }, n) => ({
    name,
    perSecond: figureOf(seen[n]!.map(({ perSecond }) => perSecond)),
    cpuUs: figureOf(seen[n]!.map(({ cpuUs }) => cpuUs)),
  }))
}

/** Together more than the 80,000 requests that a process needs to settle. */
const WARM_UP_ROUNDS = 5

async function startCluster(
  t: Scope,
  { world, cloakrooms }: Field,
  apis: string[],
): Promise<{ port: number; pid: number }> {
  const { dir, configFile } = cloakrooms[0]!
  const [port, adminPort] = [await freePort(), await freePort()]
  const cluster = startChild('contenders/cluster.ts', {
    ...{ MAIN: join(dir, 'dist/main.js'), CONFIG: configFile, APIS: apis.join(',') },
    ...{ PUBLIC_PORT: String(port), ADMIN_PORT: String(adminPort), ...IMAGE },
  })
  t.after(cluster.stop)
  const workers = await nextMessage<number[]>(cluster)
  const adminUrl = `http://127.0.0.1:${adminPort}`
  await eventually('the cluster is ready', () => isReady({ adminUrl }))
  for (const [n, pid] of workers.entries()) pin(pid, n === 0 ? world.cores.measured : world.cores.others)
  return { port, pid: cluster.pid }
}

/** In Markdown, with the gain over the first. */
export function replicaTable(all: readonly Throughput[]): string {
  const [one] = all
  const rows = all.map(({ name, perSecond, cpuUs }) => [
    name,
    `${Math.round(perSecond.median).toLocaleString('en')} (${Math.round(perSecond.min).toLocaleString('en')}–${Math.round(perSecond.max).toLocaleString('en')})`,
    (perSecond.median / one!.perSecond.median).toFixed(2),
    cpuUs.median.toFixed(1),
  ])
  const head = [
    'layout, each core with its own wrk and API',
    'requests/s',
    'gain',
    'CPU µs of replicas a request',
  ]
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
