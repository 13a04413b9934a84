import { explore } from './explore.ts'
import { LARGE_SYSTEMS, SMALL_SYSTEMS } from './systems.ts'

/** `npm run model`: explores everything and prints a line for each system; exit code 1 if anything goes wrong. */
async function main(): Promise<void> {
  console.log('  states     runs  longest   seconds')
  for (const system of [...SMALL_SYSTEMS, ...LARGE_SYSTEMS]) {
    const { states, runs, longest, ms, counterExample } = await explore(system)
    const figures = [`${states}`.padStart(8), `${runs}`.padStart(8), `${longest}`.padStart(8)]
    console.log(...figures, (ms / 1000).toFixed(1).padStart(9), ` ${system.name}`)
    if (!counterExample) continue
    console.log([...counterExample.flaws, ...counterExample.schedule].join('\n'))
    process.exitCode = 1
  }
}

await main()
