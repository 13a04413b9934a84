import type { Played } from './chart.ts'
import { planOf, SIZES, sessionsWithin } from './plan.ts'
import type { Operation, UnitCosts } from './unit-costs.ts'

const KB = 1_000
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
const whole = (value: number) => Math.round(value).toLocaleString('en')
const kb = (bytes: number) => `${(bytes / KB).toFixed(1)} kB`
const mib = (bytes: number) => `${whole(bytes / 2 ** 20)} MiB`
const sum = (of: Readonly<Record<string, number>>) => Object.values(of).reduce((total, n) => total + n, 0)

/** The unit costs, as they stand in helm/README.md. */
export function unitTable(costs: UnitCosts): string {
  const { machine, idle, warm, copy, connections, load } = costs
  const { keepAlive, eventStream, webSocket } = connections
  return [
    `Measured ${machine.date} on ${machine.cores} × ${machine.cpu}, Node.js ${machine.node}, run queue ${load.toFixed(0)}.`,
    table(
      ['one of', 'memory of a replica'],
      [
        ['replica, just started', `${mib(idle.rss)} resident, ${mib(idle.pss)} proportional`],
        ['replica that has worked', `${mib(warm.rss)} after all garbage is collected`],
        ['session in the copies, 1 resource', kb(copy['1'])],
        ['session in the copies, 4 resources', kb(copy['4'])],
        ['idle keep-alive connection', kb(keepAlive)],
        ['event stream', kb(eventStream)],
        ['WebSocket', kb(webSocket)],
      ],
    ),
    redisTable(costs),
    operationTable(costs),
  ].join('\n\n')
}

function redisTable({ redisBytes, redisUsedBytes }: UnitCosts): string {
  const columns = [redisBytes['1'], redisBytes['4'], redisBytes['20']]
  const bytes = (name: string) => columns.map((column) => whole(column[name] ?? 0))
  return table(
    ['bytes in Redis', '1 resource', '4 resources', '20 resources'],
    [
      ...KEYS.map((name) => [`\`${name}\``, ...bytes(name)]),
      ['all of a session', ...columns.map((column) => whole(sum(column)))],
      ['by `used_memory`, tables included', '', whole(redisUsedBytes), ''],
    ],
  )
}

const KEYS = ['session', 'tokens', 'about', 'life', 'sub', 'idp']

const OPERATIONS: Readonly<Record<Operation, string>> = {
  warm: 'request, session in the copies',
  cold: 'request, session not in the copies',
  refresh: 'request with a refresh',
  signIn: 'sign-in',
}

function operationTable({ cpuUs, redisCpuUs, commands }: UnitCosts): string {
  const rows = Object.entries(OPERATIONS).map(([operation, name]) => {
    const { published = 0, ...sent } = commands[operation as Operation]
    const ofRedis = operation === 'warm' ? '0' : `${whole(redisCpuUs[operation as 'cold'])} µs`
    const us = cpuUs[operation as Operation]
    return [
      name,
      `${whole(us)} µs`,
      ratio(us, cpuUs.bareProxy),
      sum(sent).toFixed(1),
      ofRedis,
      String(published),
    ]
  })
  return table(
    ['operation', 'CPU of a replica', 'bare proxies', 'commands', 'CPU of Redis', 'published'],
    [
      ...rows.slice(0, 2),
      ['the same, 4 resources', `${whole(cpuUs.cold4)} µs`, ratio(cpuUs.cold4, cpuUs.bareProxy), '', '', ''],
      ...rows.slice(2),
      [
        'hearing of a session that changed elsewhere',
        ...[`${cpuUs.heard.toFixed(1)} µs`, ratio(cpuUs.heard, cpuUs.bareProxy)],
        ...['', `${redisCpuUs.delivered.toFixed(1)} µs`, ''],
      ],
    ],
  )
}

const ratio = (us: number, bare: number) => `× ${(us / bare).toFixed(1)}`

/** From a thousand to ten million sessions. */
export function planTable(costs: UnitCosts): string {
  const rows = SIZES.map((sessions) => {
    const plan = planOf(costs, { sessions })
    const decimals = (value: number) => (value < 10 ? value.toFixed(1) : whole(value))
    return [
      ...[whole(sessions), decimals(plan.requests), whole(plan.replicas), decimals(plan.cores)],
      decimals(plan.peakCores),
      ...[`${whole(plan.heardShare * 100)} %`, mib(plan.memoryRequest)],
      `${(plan.redisBytes / 1e9).toFixed(plan.redisBytes < 1e9 ? 2 : 0)} GB`,
      ...[decimals(plan.redisCores), whole(plan.shards), decimals(plan.providerCalls)],
    ]
  })
  return table(
    [
      ...[
        'sessions',
        'requests/s',
        'replicas',
        'cores, mean',
        'at the peak',
        'of it hearing',
        'memory of one',
      ],
      ...['Redis memory', 'Redis cores', 'primaries', 'provider calls/s'],
    ],
    rows,
  )
}

/** Published limits of providers, and the sessions that they are enough for. */
export function limitTable(): string {
  const limits: [string, number][] = [
    ['Entra External ID, Azure AD B2C: one address, 20/s', 20],
    ['Auth0 Enterprise: a tenant, 100/s', 100],
    ['Entra External ID, Azure AD B2C: a tenant, 200/s', 200],
  ]
  return table(
    ['limit', 'sessions in use at the same time'],
    limits.map(([name, perSecond]) => [name, whole(sessionsWithin(perSecond))]),
  )
}

/** What came of each case of the simulation. */
export function loadTable(all: readonly Played[]): string {
  return table(
    [
      ...['case', 'sign-ins', 'refreshes', 'peak calls/s', 'peak after 9:50', 'mean', 'peak/mean'],
      ...['longest queue', 'p99 wait', 'attempts refused', 'requests answered 503'],
    ],
    all.map(({ load, report }) => [
      ...[load.name, whole(report.signIns), whole(report.served)],
      ...[whole(report.peakCalls), whole(report.peakRenewals), whole(report.meanCalls)],
      (report.peakCalls / report.meanCalls).toFixed(1),
      ...[whole(report.mostQueued), `${(report.p99WaitMs / 1_000).toFixed(1)} s`],
      ...[`${((100 * report.refused) / report.asked).toFixed(1)} %`, whole(report.unserved)],
    ]),
  )
}
