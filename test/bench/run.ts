import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { type Contestant, openArena } from './contestants.ts'
import { cpuTimeUs } from './cpu-time.ts'
import { startLoad } from './load-order.ts'

const USAGE = `usage: npm run bench -- [--rounds 7] [--requests 8000] [--json] [--profile FOLDER]

  CPU time (user and system, of the proxy's process alone) per proxied request: Cloakroom with a signed-in session,
  an access token and its request log on, and the least that a Node proxy can do, in alternating rounds.
`

/** Microseconds per request. */
type Figure = { readonly median: number; readonly min: number; readonly max: number }

type Wishes = { readonly rounds: number; readonly requests: number; readonly profile: string | undefined }

const CONNECTIONS = 64
/** Rounds before the first that counts: the compilers of V8 have settled then. */
const WARM_UP_ROUNDS = 3

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
    const figures = { bare: figureOf(bare), cloakroom: figureOf(cloakroom) }
    const ratio = figures.cloakroom.median / figures.bare.median
    const names = { bare: arena.bare.name, cloakroom: arena.cloakroom.name }
    return { names, figures, ratio, logLines: arena.logLines() }
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

function table({ names, figures, ratio }: Awaited<ReturnType<typeof measure>>): string {
  const cell = (number: number) => number.toFixed(1).padStart(8)
  const row = (name: string, { median, min, max }: Figure) =>
    `${name.padEnd(36)}${cell(median)}${cell(min)}${cell(max)}`
  return [
    `${'CPU µs per proxied request'.padEnd(36)}  median     min     max`,
    row(names.bare, figures.bare),
    row(names.cloakroom, figures.cloakroom),
    `${'ratio of the medians'.padEnd(36)}${ratio.toFixed(2).padStart(8)}`,
  ].join('\n')
}

function setting({ rounds, requests }: Wishes): string {
  return [
    `Node ${process.version}, ${cpus()[0]?.model} × ${cpus().length}; ${rounds} rounds of ${requests} requests each, in turn;`,
    `${CONNECTIONS} keep-alive connections, 800-byte JSON answer; Redis store; one log line a request, to a pipe that is read.`,
  ].join('\n')
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    requests: { type: 'string', default: '8000' },
    json: { type: 'boolean', default: false },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(USAGE)
else {
  const wishes = {
    rounds: Number(values.rounds),
    requests: Number(values.requests),
    profile: values.profile,
  }
  const measured = await measure(wishes)
  if (values.json) console.log(JSON.stringify({ node: process.version, ...wishes, ...measured }))
  else console.log(`${setting(wishes)}\n\n${table(measured)}`)
}
