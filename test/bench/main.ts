import { spawnSync } from 'node:child_process'
import { cpus } from 'node:os'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { redisAvailable } from '../kit/store/redis.ts'
import { skipWithout } from '../wire/foreign-servers.ts'
import type { Case } from './case.ts'
import type { Scope } from './contenders/contender.ts'
import { type FieldOptions, openField } from './field.ts'
import { GROWTHS } from './growth/growth.ts'
import type { Growth } from './growth/points.ts'
import { growthTable, mergedGrowth } from './growth/table.ts'
import { wrkAvailable, wrkVersion } from './load/wrk.ts'
import { measureLanes, warmUp } from './measure.ts'
import { pin, twoCores } from './process/cores.ts'
import { PROCESS_CASES } from './process-cases.ts'
import { PROFILED, profile } from './profile/profile.ts'
import { profileTable } from './profile/table.ts'
import { measureReplicas, replicaTable, type Throughput } from './replicas.ts'
import { REQUEST_CASES, warmUpLanes } from './request-cases.ts'
import { chartOf, partOf, type Results, resultsOf, summaryOf, writeChart, writePart } from './results.ts'
import { caseTable } from './table.ts'

const CASES: Readonly<Record<string, Case>> = { ...REQUEST_CASES, ...PROCESS_CASES }
const QUICK_CASES = ['small', 'get64k', 'unauthorized']
/** Windows after which a cost is measured although it has not settled: of the processes (80,000 requests), and of each case. */
const QUICK_WARM_UP = { processes: 9, cases: 2 }

const USAGE = `usage: npm run bench -- [--quick] [--cases small,cold] [--against DIR] [--growth [--sizes 100,1000] | --replicas | --profile FOLDER]
                        [--write] [--json] [--rounds 7] [--seconds 3] [--no-peers]

  CPU time (user and system) for each request, in µs, of Cloakroom, of the least that a proxy on Node can do, and of
  others. The measured process has a core to itself; wrk, the API, Redis and the provider share another one. Every process
  is warmed up until its cost has settled; then windows of all take turns, so that ratios are of neighbours in time.

  --quick      ${QUICK_CASES.join(', ')} unless --cases says otherwise, short windows, no peers: less than a minute
  --cases      of ${Object.keys(CASES).join(', ')};
               with --growth of ${Object.keys(GROWTHS).join(', ')};
               with --profile of ${Object.keys(PROFILED).join(', ')}, the first three unless given
  --against    another checkout of Cloakroom, with its node_modules, takes part in the same run
  --growth     how costs grow with sessions, routes, resources and so on, in place of the cases; --sizes 100,1000 in
               place of those of each row
  --replicas   one replica on one core, two on two, and Node's cluster module, in place of the cases
  --profile    where the CPU time of a request goes, by part of Node and of Cloakroom, in place of the cases; with
               --against both trees side by side. CPU profiles are left in that folder for other viewers
  --write      puts the tables into test/README.md (of --growth the rows measured), draws test/bench.svg, and three lines into README.md
  --peers      nginx, http-proxy-middleware, mod_auth_openidc (MOD_AUTH_OPENIDC=FILE takes another build than
               Debian's), oauth2-proxy and Wonderwall take part, which they do anyway without --quick and --against

  It needs Linux with two cores, and Debian's packages wrk, nginx-light and redis-server:
  apt-get install -y wrk nginx-light redis-server
`

type BenchOptions = FieldOptions & {
  readonly cases: readonly string[]
  readonly rounds: number
  readonly setting: string
  /** As in 2026-12-01. */
  readonly date: string
  /** Sizes to measure growth at, in place of those of each row. */
  readonly sizes: readonly number[] | undefined
  /** Folder for CPU profiles. */
  readonly profile: string | undefined
  /** Most windows of a warm-up, where it may not take as long as it needs. */
  readonly mostWarmUp: typeof QUICK_WARM_UP | undefined
}

/** What was measured, and how it is put into the documents. */
type Outcome = { readonly json: unknown; write(): void }

/** Tells the text of each part when it is done. */
type Measure = (t: Scope, options: BenchOptions, tell: (text: string) => void) => Promise<Outcome>

const casesOf: Measure = async (t, options, tell) => {
  const field = await openField(t, options)
  const absent = field.absent.map(({ name, reason }) => `${name} (${reason})`)
  for (const one of absent) process.stderr.write(`NOT MEASURED: ${one}\n`)
  // What is measured on fresh processes needs no warm ones.
  const areNeeded = options.cases.some((name) => Object.hasOwn(REQUEST_CASES, name))
  for (const lane of areNeeded ? warmUpLanes(field) : []) await warmUp(lane, options.mostWarmUp?.processes)
  const cases: Results['cases'][number][] = []
  for (const name of options.cases) {
    const one = CASES[name]!
    try {
      const rounds = Math.min(options.rounds, one.mostRounds ?? options.rounds)
      const lanes = await one.lanes(field, t)
      const measured = await measureLanes(lanes, rounds, options.mostWarmUp?.cases)
      cases.push({ name, case: one, measured })
      tell(caseTable(one, measured))
    } catch (error) {
      notMeasured(one.title, error)
    }
  }
  const results: Results = { setting: options.setting, absent, cases }
  return {
    json: results,
    write() {
      writePart('benchmark', resultsOf(results))
      const small = cases.find(({ name }) => name === 'small')
      const summary = summaryOf(results)
      if (summary) writePart('speed', summary)
      if (small) writeChart(chartOf(small.measured, options.setting.split(';')[0]!))
    },
  }
}

/** Reports a failure and lets the other rows be measured. */
function notMeasured(what: string, error: unknown): void {
  process.stderr.write(`NOT MEASURED: ${what}: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}

const growthOf: Measure = async (t, options, tell) => {
  const field = await openField(t, options)
  const rows: Growth[] = []
  for (const name of options.cases) {
    try {
      const { sizes, rows: measure } = GROWTHS[name]!
      const grown = await measure(field, t, options.sizes ?? sizes)
      rows.push(...grown)
      tell(growthTable(grown, options.date))
    } catch (error) {
      notMeasured(name, error)
    }
  }
  return {
    json: rows,
    // What was not measured this time stays as it was.
    write: () => writePart('growth', mergedGrowth(partOf('growth'), growthTable(rows, options.date))),
  }
}

const profileOf: Measure = async (t, options, tell) => {
  const field = await openField(t, options)
  const profiled = await profile(field, { ...options, folder: options.profile! })
  const text = profileTable(profiled)
  tell(text)
  const json = profiled.map(({ parts, ...one }) => ({ ...one, parts: Object.fromEntries(parts) }))
  return { json, write: () => writePart('profile', `${options.setting.split(';')[0]}\n\n${text}`) }
}

const replicasOf: Measure = async (t, options, tell) => {
  const measured: Throughput[] = await measureReplicas(await openField(t, options), t, options.rounds)
  const text = replicaTable(measured)
  tell(text)
  return { json: measured, write: () => writePart('replicas', `${options.setting}\n\n${text}`) }
}

function settingOf(date: string, rounds: number, seconds: number): string {
  const [cpu] = cpus()
  const { stdout } = spawnSync('lsb_release', ['-ds'], { encoding: 'utf8' })
  const system = stdout?.trim() || 'Linux'
  return `${date}, ${cpus().length} × ${cpu?.model.trim()}, ${system}, Node.js ${process.version}, ${wrkVersion()}; ${rounds} rounds of ${seconds} s, medians (least–most)`
}

/** Why it cannot run here; undefined when it can. */
function missing(): string | undefined {
  if (process.platform !== 'linux' || !twoCores())
    return 'this needs Linux, whose /proc tells CPU times, and two cores'
  if (!wrkAvailable()) return 'wrk is not on PATH: apt-get install -y wrk'
  if (!redisAvailable()) return 'redis-server is not on PATH: apt-get install -y redis-server'
  if (skipWithout('nginx')) return 'nginx is not on PATH: apt-get install -y nginx-light'
  return undefined
}

const { values } = parseArgs({
  allowNegative: true,
  options: {
    quick: { type: 'boolean', default: false },
    cases: { type: 'string' },
    against: { type: 'string' },
    growth: { type: 'boolean', default: false },
    replicas: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    peers: { type: 'boolean' },
    sizes: { type: 'string' },
    profile: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

/** What `--cases` may name. */
const CHOICES = values.growth ? GROWTHS : values.profile ? PROFILED : CASES
const PROFILED_CASES = ['small', 'unauthorized', 'get64k']

function optionsOf(): BenchOptions {
  const { quick, growth, replicas, against, profile } = values
  const rounds = Number(values.rounds ?? (quick ? 3 : 7))
  const seconds = Number(values.seconds ?? (quick || growth || profile ? 1 : 3))
  const date = new Date().toISOString().slice(0, 10)
  const all = profile ? PROFILED_CASES : quick && !growth ? QUICK_CASES : Object.keys(CHOICES)
  return {
    cases: values.cases?.split(',') ?? all,
    ...{ rounds, seconds, date, setting: settingOf(date, rounds, seconds), cores: twoCores()! },
    against: against && resolve(against),
    sizes: values.sizes?.split(',').map(Number),
    profile: profile && resolve(profile),
    mostWarmUp: quick ? QUICK_WARM_UP : undefined,
    peers: values.peers ?? !(quick || against || growth || replicas || profile),
  }
}

async function run(options: BenchOptions): Promise<void> {
  const cleanUps: (() => unknown)[] = []
  const t = { after: (cleanUp: () => unknown) => void cleanUps.unshift(cleanUp) }
  const tell = (text: string) => (values.json ? undefined : console.log(`\n${text}`))
  pin(process.pid, options.cores.others)
  // Every child ends with us, also when a signal ends us.
  process.setMaxListeners(100)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  tell(options.setting)
  try {
    const { growth, replicas, profile } = values
    const measure = growth ? growthOf : replicas ? replicasOf : profile ? profileOf : casesOf
    const { json, write } = await measure(t, options, tell)
    if (values.json) console.log(JSON.stringify(json))
    if (values.write) write()
  } finally {
    for (const cleanUp of cleanUps) await cleanUp()
  }
}

const unknown = values.cases?.split(',').filter((name) => !Object.hasOwn(CHOICES, name)) ?? []
const reason =
  unknown.length > 0 ? `there is no ${unknown}, there are ${Object.keys(CHOICES).join(', ')}` : missing()
if (values.help) process.stdout.write(USAGE)
else if (reason) {
  process.stderr.write(`NOT RUN: ${reason}\n`)
  process.exitCode = 1
} else await run(optionsOf())
