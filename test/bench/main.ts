import { spawnSync } from 'node:child_process'
import { globSync, statSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { redisAvailable, startRedis } from '../kit/store/redis.ts'
import { skipWithout } from '../wire/foreign-servers.ts'
import { CASES, type Field, warmUpLanes } from './cases.ts'
import { startApi } from './contenders/api.ts'
import { ORIGINAL, openCloakroom, type World } from './contenders/cloakroom.ts'
import type { Contender, Scope } from './contenders/contender.ts'
import { startLoad } from './load/load-order.ts'
import { wrkAvailable, wrkVersion } from './load/wrk.ts'
import { type Measured, measureLanes, warmUp } from './measure.ts'
import { startServer } from './process/child.ts'
import { pin, twoCores } from './process/cores.ts'
import { caseTable } from './table.ts'

type CaseName = keyof typeof CASES

const ALL_CASES = Object.keys(CASES) as CaseName[]
const QUICK_CASES: CaseName[] = ['small', 'get64k', 'unauthorized']

const USAGE = `usage: npm run bench -- [--quick] [--cases small,cold] [--against DIR] [--rounds 7] [--seconds 3] [--json] [--profile FOLDER]

  CPU time (user and system) for each request, in µs, of Cloakroom and of the least that a proxy on Node can do. The
  measured process has a core to itself; wrk, the API, Redis and the provider share another one. Every process is warmed
  up until its cost has settled; then windows of all take turns, so that ratios are of neighbours in time.

  --quick      ${QUICK_CASES.join(', ')} unless --cases says otherwise, short windows: less than a minute
  --cases      of ${ALL_CASES.join(', ')}
  --against    another checkout of Cloakroom, with its node_modules, which takes part in the same run
  --profile    writes CPU profiles of the Node processes there, which makes them slower

  It needs Linux with two cores, and Debian's packages wrk, nginx-light and redis-server:
  apt-get install -y wrk nginx-light redis-server
`

/** Starts everybody who takes part. */
async function openField(t: Scope, wishes: Wishes): Promise<Field> {
  const { cores, env, against } = wishes
  const load = startLoad()
  t.after(load.stop)
  const api = await startApi(t)
  const redis = await startRedis()
  t.after(() => redis.stop())
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: 7200 } })
  t.after(() => provider.close())
  const world: World = { cores, redis, provider, api: api.origin, env }
  const dirs = [HERE, ...(against ? [against] : [])]
  const cloakrooms: Field['cloakrooms'][number][] = []
  for (const [n, dir] of dirs.entries()) {
    build(dir)
    const name = n === 0 ? 'Cloakroom' : `Cloakroom of ${dir}`
    cloakrooms.push({ dir, ...(await openCloakroom(t, world, { name, dir })) })
  }
  const bearer = provider.issuedSecrets.find((secret) => jwtClaims(secret)?.aud === ORIGINAL) ?? ''
  const bare = await startBare(t, world, { bearer, fields: cloakrooms[0]!.fields })
  return { world, load, bare, cloakrooms, peers: [], seconds: wishes.seconds }
}

async function startBare(
  t: Scope,
  { cores, env, api }: World,
  { bearer, fields }: { bearer: string; fields: Contender['fields'] },
): Promise<Contender> {
  const bare = await startServer('contenders/bare-proxy.ts', { ...env, UPSTREAM: api, BEARER: bearer })
  t.after(bare.stop)
  pin(bare.pid, cores.measured)
  return { name: 'bare node:http + undici', pid: bare.pid, port: bare.port, fields }
}

const HERE = fileURLToPath(new URL('../..', import.meta.url))

/** What is measured is what is shipped: `dist/`, made anew when a source is newer. */
function build(dir: string): void {
  const changedAt = (path: string) => statSync(join(dir, path), { throwIfNoEntry: false })?.mtimeMs ?? 0
  const newest = Math.max(...globSync('src/**/*', { cwd: dir }).map(changedAt))
  if (newest < changedAt('dist/main.js')) return
  const { status, stdout, stderr } = spawnSync('npm', ['run', 'build'], { cwd: dir, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${dir} cannot be built:\n${stdout}${stderr}`)
}

type Wishes = {
  readonly cases: readonly CaseName[]
  readonly rounds: number
  readonly seconds: number
  readonly against: string | undefined
  readonly cores: World['cores']
  readonly env: Record<string, string>
}

/** Measures case by case; `tell` is given each when it is done. */
async function run(wishes: Wishes, tell: (name: CaseName, measured: Measured[]) => void): Promise<void> {
  const cleanUps: (() => unknown)[] = []
  const t = { after: (cleanUp: () => unknown) => void cleanUps.unshift(cleanUp) }
  try {
    pin(process.pid, wishes.cores.others)
    const field = await openField(t, wishes)
    for (const lane of warmUpLanes(field)) await warmUp(lane)
    for (const name of wishes.cases) {
      tell(name, await measureLanes(await CASES[name].lanes(field, t), wishes.rounds))
    }
  } finally {
    for (const cleanUp of cleanUps) await cleanUp()
  }
}

function machine({ rounds, seconds }: Wishes): string {
  const [cpu] = cpus()
  return `Node ${process.version}, ${wrkVersion()}, ${cpus().length} × ${cpu?.model.trim()}; ${rounds} rounds of ${seconds} s; median (min–max)`
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
  options: {
    quick: { type: 'boolean', default: false },
    cases: { type: 'string' },
    against: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    profile: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

const asked = values.cases?.split(',') ?? (values.quick ? QUICK_CASES : ALL_CASES)
const unknown = asked.filter((name) => !Object.hasOwn(CASES, name))
const reason = unknown.length > 0 ? `there is no case ${unknown}; cases: ${ALL_CASES}` : missing()
if (values.help) process.stdout.write(USAGE)
else if (reason) {
  process.stderr.write(`NOT RUN: ${reason}\n`)
  process.exitCode = 1
} else {
  const { profile } = values
  const wishes: Wishes = {
    cases: asked as CaseName[],
    rounds: Number(values.rounds ?? (values.quick ? 5 : 7)),
    seconds: Number(values.seconds ?? (values.quick ? 1 : 3)),
    against: values.against && resolve(values.against),
    cores: twoCores()!,
    env: profile ? { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${resolve(profile)}` } : {},
  }
  const results: Record<string, Measured[]> = {}
  if (!values.json) console.log(machine(wishes))
  await run(wishes, (name, measured) => {
    results[name] = measured
    if (!values.json) console.log(`\n${caseTable(CASES[name], measured)}`)
  })
  if (values.json) console.log(JSON.stringify({ node: process.version, ...wishes, results }))
}
