import { startRedis } from '../store/redis.ts'
import type { Walk } from './walk.ts'
import { traceWalks } from './walk-scene.ts'

/** Tells what a GET passes through: files and functions in their order; `--calls` as the tree of all calls, `--redis` with a Redis store. */
async function main(): Promise<void> {
  await using scene = new AsyncDisposableStack()
  const redis = process.argv.includes('--redis') ? await startRedis() : undefined
  scene.defer(() => redis?.stop())
  const walks = await traceWalks(redis?.url)
  for (const [name, walk] of Object.entries(walks)) {
    console.log(`\n${name}: ${walk.files.size} files, ${walk.functions} functions, ${walk.switches} switches`)
    for (const line of process.argv.includes('--calls') ? callsOf(walk) : filesOf(walk)) console.log(line)
  }
}

function filesOf({ files }: Walk): string[] {
  return [...files].map(
    ([file, names], index) => `${String(index + 1).padStart(4)}  ${file}: ${[...names].join(', ')}`,
  )
}

/** Only a call that changes the file names it. */
function callsOf({ steps }: Walk): string[] {
  return steps.map(({ depth, name, file, caller }) => {
    const place = file === caller ? '' : `  ${file}`
    return `${'  '.repeat(depth + 1)}${name}${place}`
  })
}

await main()
