import { parseArgs } from 'node:util'
import { newTally, runFuzz } from './fuzz-run.ts'

/** Plays many cases by hand: `npm run fuzz -- --seed 1 --requests 100000 --minutes 10`. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      requests: { type: 'string', default: '20000' },
      minutes: { type: 'string', default: '30' },
    },
  })
  const seed = Number(values.seed)
  const count = Number(values.requests)
  const began = Date.now()
  const tally = newTally()
  let unexpected = 0
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error) => {
      unexpected += 1
      console.error(event, error)
    })
  }
  const { findings } = await runFuzz({
    ...{ seed, count, tally, deadline: began + Number(values.minutes) * 60_000 },
    onFinding: ({ number, minimal, minimalFaults, faults, outcome }) => {
      console.log(`\ncase ${number} of seed ${seed}`)
      for (const fault of new Set([...minimalFaults, ...faults])) console.log(`  ${fault}`)
      console.log(`  minimal ${JSON.stringify(minimal.bytes)}`)
      if (minimal.cuts.length > 0) console.log(`  in pieces that begin at ${minimal.cuts}`)
      for (const { raw } of outcome.requests) console.log(`  arrived ${JSON.stringify(raw.slice(0, 200))}`)
      for (const { status, code } of outcome.received.answers)
        console.log(`  answered ${status} ${code ?? ''}`)
    },
  })
  const seconds = (Date.now() - began) / 1_000
  const rate = Math.round(tally.cases / seconds)
  console.log(`\nseed ${seed}: ${tally.cases} connections in ${Math.round(seconds)} s (${rate}/s)`)
  console.log(JSON.stringify(tally, undefined, 1))
  console.log(`${findings.length} findings, ${unexpected} unexpected errors`)
  return findings.length + unexpected > 0 ? 1 : 0
}

process.exitCode = await main()
