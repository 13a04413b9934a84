import { setTimeout as delay } from 'node:timers/promises'
import { examineAftermath } from './aftermath.ts'
import { readAppendOnlyFile } from './append-only-file.ts'
import { createCrowd } from './crowd.ts'
import { createDisturbances } from './disturbances.ts'
import { holdInquest } from './losses.ts'
import type { ChaosReport } from './report.ts'
import { openScene, PROVIDER_TIMEOUT_MS, RESPONSE_MS, type SceneOptions, TOKEN_SECONDS } from './scene.ts'
import { seededRandom } from './seeded-random.ts'
import { createViolations } from './violations.ts'

/** What one run is like. */
export type ChaosOptions = {
  readonly seed: number
  /** How long people use the system while it is disturbed. */
  readonly seconds: number
  readonly sessions: number
  readonly requestsPerSecond: number
  /** `provider.reusesRefreshTokens`. With false no token is ever offered twice, so none may be reused either. */
  readonly reuses: boolean | 'auto'
  /** Pauses between disturbances are multiplied with it. */
  readonly pace: number
  /** Ends the run early, cleaned up. */
  readonly signal?: AbortSignal
}

const REFILL_MS = 500

/** Plays one run and leaves nothing running behind. Rejects only when it cannot be played, or `signal` ends it. */
export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const cleanUps: (() => unknown)[] = []
  try {
    return await play(options, (cleanUp) => cleanUps.push(cleanUp))
  } finally {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  }
}

async function play(options: ChaosOptions, after: SceneOptions['after']): Promise<ChaosReport> {
  const { seed, sessions, requestsPerSecond, reuses, pace } = options
  const random = seededRandom(seed)
  const violations = createViolations()
  const violation = violations.add
  const scene = await openScene({ random, reuses, after, violation })
  const { fleet, redis, ledger, weather, sealing } = scene
  const crowd = createCrowd({
    ...{ size: sessions, requestsPerSecond, answerWithinMs: RESPONSE_MS },
    ...{ random: random.branch('crowd'), fleet, violation },
  })
  const disturbances = createDisturbances({
    ...{ fleet, redis, weather, random: random.branch('disturbances'), pace },
  })

  await crowd.fill()
  await duringStorm(options, [crowd.roam, disturbances.run, (signal) => refill(crowd, signal)])
  await crowd.fill()
  const tokenMs = TOKEN_SECONDS * 1000
  const aftermath = await examineAftermath({ crowd, fleet, redis, tokenMs, violation })
  const [, folder = ''] = await redis.cli('config', 'get', 'dir')
  for (const text of await fleet.stop()) violation(text)
  for (const text of violations.inLogs(fleet.lives)) violation(text)
  const inquest = holdInquest({
    ...{ ledger, visitors: crowd.everybody, sealing, lives: fleet.lives, outages: disturbances.outages },
    ...{ providerTimeoutMs: PROVIDER_TIMEOUT_MS, written: await readAppendOnlyFile(folder) },
  })
  return {
    ...{ options, inquest, aftermath, outcomes: crowd.outcomes, latenciesMs: crowd.latenciesMs },
    ...{ presentations: ledger.presentations, faults: weather.struck, outages: disturbances.outages },
    ...{ kills: disturbances.kills(), storms: disturbances.storms(), present: crowd.present.length },
    violations: [...violations.list, ...scene.providerViolations],
  }
}

/** Runs all of them side by side until the time is up, or one of them fails; resolves when every one has ended. */
async function duringStorm(
  { seconds, signal }: ChaosOptions,
  works: readonly ((signal: AbortSignal) => Promise<void>)[],
): Promise<void> {
  const failed = new AbortController()
  const limits = [AbortSignal.timeout(seconds * 1000), failed.signal, ...(signal ? [signal] : [])]
  const over = AbortSignal.any(limits)
  const running = works.map((work) => work(over))
  for (const one of running) one.catch(() => failed.abort())
  await Promise.allSettled(running)
  await Promise.all(running)
  signal?.throwIfAborted()
}

/** Whoever lost a session comes back as somebody else. */
async function refill(crowd: { fill(): Promise<void> }, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await crowd.fill()
    await delay(REFILL_MS)
  }
}
