import { availableParallelism, cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { redisAvailable } from '../kit/store/redis.ts'
import { limitTable, planTable, unitTable } from './tables.ts'
import { measureUnitCosts, type UnitCosts } from './unit-costs.ts'
import { writeCosts, writeTable, writtenCosts } from './written.ts'

const USAGE = `usage: npm run capacity -- [--write | --tables | --json]

  Measures what one session, connection and operation costs, on one replica of what was built, with Redis and a provider
  whose tokens weigh what Entra's do, in about two minutes, and prints the tables of helm/README.md. Memory and counts are
  exact; CPU times are medians of the process's own time, which a busy machine still makes longer.
  --write keeps the figures in test/capacity/unit-costs.json and puts the tables into helm/README.md; --tables puts those
  of the kept figures there, without measuring.
`

async function measured(): Promise<UnitCosts> {
  const cleanUps: (() => unknown)[] = []
  const startedAt = performance.now()
  const say = (step: string) =>
    process.stderr.write(`… ${step} (${Math.round((performance.now() - startedAt) / 1000)} s)\n`)
  try {
    const [load = 0] = loadavg()
    const costs = await measureUnitCosts({ after: (cleanUp) => void cleanUps.unshift(cleanUp) }, say)
    return { machine: machine(), load, ...costs }
  } finally {
    for (const cleanUp of cleanUps) await cleanUp()
  }
}

function machine(): UnitCosts['machine'] {
  return {
    ...{ node: process.version, cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism() },
    date: new Date().toISOString().slice(0, 10),
  }
}

function writeTables(costs: UnitCosts): void {
  writeTable('unit costs', unitTable(costs))
  writeTable('sizes', planTable(costs))
  writeTable('limits', limitTable())
}

const { values } = parseArgs({
  options: {
    write: { type: 'boolean', default: false },
    tables: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(USAGE)
else if (values.tables) writeTables(writtenCosts())
else if (process.platform !== 'linux' || !redisAvailable()) {
  process.stderr.write(
    'NOT RUN: this needs Linux, whose /proc tells memory and CPU times, and redis-server\n',
  )
  process.exitCode = 1
} else {
  const costs = await measured()
  if (values.json) console.log(JSON.stringify(costs, undefined, 2))
  else console.log([unitTable(costs), planTable(costs), limitTable()].join('\n\n'))
  if (values.write) {
    writeCosts(costs)
    // From what was kept, so that the tables are of the same rounded figures.
    writeTables(writtenCosts())
  }
}
