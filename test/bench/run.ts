import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { redisAvailable } from '../kit/store/redis.ts'
import { type Contestant, openArena } from './contestants.ts'
import { cpuTimeUs } from './cpu-time.ts'
import { startLoad } from './load-order.ts'

const USAGE = `usage: npm run bench -- [--rounds 25] [--requests 2500] [--all-cores] [--json] [--profile FOLDER]

  CPU time (user and system, of the proxy's process alone) per proxied request: Cloakroom with a signed-in session,
  an access token and its request log on, and the least that a Node proxy can do, in alternating rounds. Everything
  shares one core unless --all-cores is given: what it costs to wake a process on an idle core says nothing of a proxy,
  and a slow proxy pays it more often. --profile writes a CPU profile of each proxy, which makes both slower.
`

/** Over all rounds. */
type Figure = { readonly median: number; readonly min: number; readonly max: number }

type Wishes = {
  readonly rounds: number
  readonly requests: number
  readonly profile: string | undefined
  readonly cores: string
}

const CONNECTIONS = 64
/** Rounds before the first that counts: the compilers of V8 have settled then. */
const WARM_UP_ROUNDS = 8

async function measure({ rounds, requests, profile }: Wishes) {
  const env = profile ? { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` } : {}
  const arena = await openArena(env as Record<string, string>)
  const load = startLoad()

  async function round({ pid, port, request }: Contestant): Promise<number> {
    const before = cpuTimeUs(pid)
    await load.run({ port, request, requests, connections: CONNECTIONS })
    return (cpuTimeUs(pid) - before) / requests
  }

  try {
    const bare: number[] = []
    const cloakroom: number[] = []
    for (let n = -WARM_UP_ROUNDS; n < rounds; n += 1) {
      const both = [await round(arena.bare), await round(arena.cloakroom)] as const
      if (n < 0) continue
      bare.push(both[0])
      cloakroom.push(both[1])
    }
    return {
      [arena.bare.name]: figureOf(bare),
      [arena.cloakroom.name]: figureOf(cloakroom),
      // Neighbours in time are compared: what else the machine does comes and goes.
      ratio: figureOf(cloakroom.map((us, n) => us / bare[n]!)),
    }
  } finally {
    await load.stop()
    await arena.stop()
  }
}

function figureOf(rounds: readonly number[]): Figure {
  const sorted = rounds.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const median = (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2
  return { median, min: sorted[0]!, max: sorted.at(-1)! }
}

function table(measured: Record<string, Figure>): string {
  const rows = Object.entries(measured).map(([name, { median, min, max }]) => {
    const digits = name === 'ratio' ? 2 : 1
    return name.padEnd(36) + [median, min, max].map((figure) => figure.toFixed(digits).padStart(8)).join('')
  })
  return [`${'CPU µs per proxied request'.padEnd(36)}  median     min     max`, ...rows].join('\n')
}

/** Keeps this process, and so all it starts, on one core; false where the machine does not allow it. */
function pinToOneCore(): boolean {
  const [, core] = /^Cpus_allowed_list:.*?(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  const pinned =
    core && spawnSync('taskset', ['-a', '-c', '-p', core, String(process.pid)], { stdio: 'ignore' })
  return pinned ? pinned.status === 0 : false
}

function setting({ rounds, requests, cores }: Wishes): string {
  return [
    `Node ${process.version}, ${cpus()[0]?.model}, ${cores}; ${rounds} rounds of ${requests} requests each, in turn;`,
    `${CONNECTIONS} keep-alive connections, 800-byte JSON answer; Redis store; one log line a request, to a pipe that is read.`,
  ].join('\n')
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '25' },
    requests: { type: 'string', default: '2500' },
    'all-cores': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(USAGE)
else if (process.platform !== 'linux' || !redisAvailable()) {
  process.stderr.write('NOT RUN: this needs Linux, whose /proc tells CPU times, and redis-server\n')
  process.exitCode = 1
} else {
  const wishes = {
    rounds: Number(values.rounds),
    requests: Number(values.requests),
    profile: values.profile,
    cores: !values['all-cores'] && pinToOneCore() ? 'one core' : `${availableParallelism()} cores`,
  }
  const measured = await measure(wishes)
  if (values.json) console.log(JSON.stringify({ node: process.version, ...wishes, ...measured }))
  else console.log(`${setting(wishes)}\n\n${table(measured)}`)
}
