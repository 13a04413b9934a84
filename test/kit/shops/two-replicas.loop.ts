import { playRound, type Round, startReplicas } from './replicas.ts'

/** `node test/kit/shops/two-replicas.loop.ts 20`: plays as many rounds in a row and prints what each measured. */
async function loop(rounds: number): Promise<void> {
  const cleanUps: (() => unknown)[] = []
  const replicas = await startReplicas({ after: (cleanUp) => cleanUps.push(cleanUp) })
  const played: Round[] = []
  try {
    for (let number = 1; number <= rounds; number += 1) {
      const round = await playRound(replicas)
      played.push(round)
      console.log(`round ${number}: ${describe(round)}`)
    }
    const worst = (pick: (round: Round) => number) => Math.max(...played.map(pick))
    console.log(
      `${rounds} rounds; slowest 200 answers ${worst((round) => round.renewalMs).toFixed(0)} ms, ` +
        `slowest logout ${worst((round) => round.logoutSeenMs).toFixed(1)} ms, ` +
        `refresh tokens used twice: ${replicas.provider.counters.reuseDetected}`,
    )
  } finally {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  }
}

function describe({ renewalMs, logoutSeenMs, servedAfterLogout }: Round): string {
  return `200 answers after ${renewalMs.toFixed(0)} ms; logout seen after ${logoutSeenMs.toFixed(1)} ms (${servedAfterLogout} served meanwhile)`
}

await loop(Number(process.argv[2] ?? 20))
