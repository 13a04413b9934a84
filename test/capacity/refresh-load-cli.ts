import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { CASES } from './cases.ts'
import { chartOf, type Played } from './chart.ts'
import { playRefreshLoad } from './refresh-load.ts'
import { loadTable } from './tables.ts'
import { fileOf, writeTable } from './written.ts'

const USAGE = `usage: npm run refresh-load -- [--seed N] [--only TEXT] [--write]

  Plays mornings at the token endpoint, as a simulation: sign-ins, tokens that end, requests that find them so, the limiter
  and the circuit breaker of each replica, a provider that refuses what is too much. The same seed gives the same figures.
  --write puts the table and the chart into helm/.
`

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    only: { type: 'string', default: '' },
    write: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(USAGE)
else {
  const played: Played[] = []
  for (const load of CASES.filter(({ name }) => name.includes(values.only))) {
    const seeded = values.seed === undefined ? load : { ...load, seed: Number(values.seed) }
    played.push({ load: seeded, report: playRefreshLoad(seeded) })
    process.stderr.write(`… ${load.name}\n`)
  }
  const table = loadTable(played)
  console.log(table)
  if (values.write) {
    writeTable('refresh load', table)
    writeFileSync(fileOf('helm/refresh-load.svg'), chartOf(played))
  }
}
