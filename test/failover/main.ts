import { parseArgs } from 'node:util'
import { DISTURBANCES, play, type Result } from './run.ts'

const USAGE = `usage: npm run failover -- [--sessions 24] [--only TEXT] [--rounds 1]

  Users whose tokens are renewed every second or two, on two replicas, while a primary of a Redis with sentinels or of a
  Redis Cluster is killed, hangs, is replaced or gives slots away. The provider ends a grant when a refresh token comes
  twice. Fails when anybody is signed out, a cookie is touched, or any answer is another than 200 or 503 store_unavailable.
  --only plays those whose name holds TEXT.
`

/** Far beyond what one takes. */
const ROUND_MS = 90_000

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      sessions: { type: 'string', default: '24' },
      only: { type: 'string', default: '' },
      rounds: { type: 'string', default: '1' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const chosen = DISTURBANCES.filter(({ name, store, durability }) =>
    `${store}, ${name}, durability ${durability}`.includes(values.only),
  )
  const rounds = Array.from({ length: Number(values.rounds) }, () => chosen).flat()
  let failures = 0
  console.log(HEAD.join(' | '))
  for (const disturbance of rounds) {
    const cleanUps: (() => unknown)[] = []
    const tooLate = setTimeout(() => process.exit(1), ROUND_MS)
    try {
      const result = await play(disturbance, Number(values.sessions), { after: (f) => void cleanUps.push(f) })
      console.log(rowOf(result).join(' | '))
      for (const failure of failuresOf(result)) {
        failures += 1
        console.log(`FAILED ${result.name}: ${failure}`)
      }
    } finally {
      for (const cleanUp of cleanUps.reverse()) await cleanUp()
      clearTimeout(tooLate)
    }
  }
  console.log(failures === 0 ? 'all as it must be' : `${failures} failures`)
  return failures === 0 ? 0 : 1
}

const HEAD = [
  ...['what happens', 'requests', '503 store_unavailable', 'other answers', 'longest outage of a session'],
  ...['channel heard again after', 'renewals', 'signed out', 'reuse alarms'],
]

const IN_AN_OUTAGE = '503 store_unavailable'

function rowOf(result: Result): string[] {
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
  return [
    ...[result.name, String(result.requests), String(result.answers[IN_AN_OUTAGE] ?? 0)],
    ...[others(result).join(', ') || '-', seconds(result.longestOutageMs), seconds(result.heardAfterMs)],
    ...[result.refreshes, result.signedOut, result.reuseAlarms].map(String),
  ]
}

const others = ({ answers }: Result) =>
  Object.entries(answers).flatMap(([key, count]) =>
    ['200', IN_AN_OUTAGE].includes(key) ? [] : [`${count} ${key}`],
  )

function failuresOf(result: Result): string[] {
  return [
    ...others(result).map((answer) => `answered ${answer}`),
    ...(result.signedOut > 0 ? [`${result.signedOut} users were signed out`] : []),
    ...(result.reuseAlarms > 0 ? [`${result.reuseAlarms} refresh tokens came twice`] : []),
    ...(result.cookiesTouched > 0 ? [`${result.cookiesTouched} refusals set a cookie`] : []),
  ]
}

process.exitCode = await main()
