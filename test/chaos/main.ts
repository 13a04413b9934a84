import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { failuresOf, tableOf, timelinesOf } from './report.ts'
import { runChaos } from './run.ts'

const USAGE = `usage: npm run chaos -- [--seed N] [--seconds 60] [--sessions 50] [--rate 80] [--reuses true|false|auto] [--show CAUSE]

  Three replicas on one Redis, users, and a provider that ends a grant when a refresh token comes twice; replicas and
  Redis are killed and frozen, answers of the provider dropped and delayed. Fails when a token was used twice or a
  session lost without a lost answer to blame, when anybody got somebody else's token, or when anything is left behind.
  --reuses sets provider.reusesRefreshTokens: true and auto offer a token once more after a lost answer, false never.
  --show prints what led to each loss whose cause in the table holds this text.
`

/** Beyond the storm: starting, signing in, recovering, stopping. */
const REST_MS = 300_000

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      seconds: { type: 'string', default: '60' },
      sessions: { type: 'string', default: '50' },
      rate: { type: 'string', default: '80' },
      reuses: { type: 'string', default: 'auto' },
      show: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const reuses = { true: true, false: false, auto: 'auto' as const }[values.reuses]
  if (reuses === undefined) {
    process.stderr.write(`--reuses ${values.reuses}: must be true, false or auto\n`)
    return 2
  }
  const seed = Number(values.seed ?? randomInt(1, 2 ** 31))
  const seconds = Number(values.seconds)
  console.log(`seed ${seed}`)
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      interrupted.abort()
      // A second one, or a clean-up that hangs, ends us at once; every child is killed at our exit.
      process.once(signal, () => process.exit(1))
    })
  }
  setTimeout(() => process.exit(1), seconds * 1000 + REST_MS).unref()
  const report = await runChaos({
    ...{ seed, seconds, sessions: Number(values.sessions), requestsPerSecond: Number(values.rate) },
    ...{ reuses, pace: 1, signal: interrupted.signal },
  })
  const failures = failuresOf(report)
  console.log(tableOf(report))
  if (values.show) console.log(timelinesOf(report, values.show))
  for (const failure of failures) console.log(`FAILED ${failure}`)
  console.log(failures.length === 0 ? 'all as it must be' : `${failures.length} failures`)
  return failures.length === 0 ? 0 : 1
}

process.exitCode = await main().catch((error) => {
  console.error(error instanceof Error && error.name === 'AbortError' ? 'interrupted' : error)
  return 1
})
process.exit()
