import { counted, idle, PLAIN, renews, setUpEngine, sizesOf } from './engine.ts'

/** What is printed, as one line of JSON. */
export type ScaleReport = {
  readonly sessions: number
  readonly renewals: number
  /** Entries that the fullest map had while renewals were in flight. */
  readonly mostHeld: number
  /** Entries of every map of the engine and its store when all sessions have ended. */
  readonly heldAfter: readonly number[]
  readonly heapGrowthMiB: number
}

const RESOURCES = ['orders', 'billing', 'audit', 'stock', 'search']
const AT_ONCE = 500
/** Run before the heap is measured first, so that what is made once does not count. */
const WARM_UP = 2_000

/** Signs so many users in, renews a token for each of 5 resources for each of them, and ends the sessions. */
async function run(sessions: number): Promise<ScaleReport> {
  const cleanUps: (() => unknown)[] = []
  const { maps, engine } = counted(() =>
    setUpEngine({ after: (cleanUp) => cleanUps.push(cleanUp) }, renews, PLAIN),
  )
  let renewals = 0
  let mostHeld = 0
  async function rounds(count: number): Promise<void> {
    for (let done = 0; done < count; done += AT_ONCE) {
      const holders = await Promise.all(Array.from({ length: AT_ONCE }, () => engine.signedIn()))
      const wanted = holders.flatMap((holder) => RESOURCES.map((resource) => ({ holder, resource })))
      const answers = wanted.map((one) => engine.renew(one))
      mostHeld = Math.max(mostHeld, ...sizesOf(maps))
      renewals += (await Promise.all(answers)).length
      for (const { hash } of holders) await engine.store.sessions.end(hash)
    }
    await idle()
  }
  await rounds(WARM_UP)
  renewals = 0
  const before = heapUsed()
  await rounds(sessions)
  const heapGrowthMiB = Math.round((heapUsed() - before) / 2 ** 20)
  const heldAfter = sizesOf(maps)
  for (const cleanUp of cleanUps) cleanUp()
  return { sessions, renewals, mostHeld, heldAfter, heapGrowthMiB }
}

function heapUsed(): number {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

process.stdout.write(`${JSON.stringify(await run(Number(process.argv[2])))}\n`)
