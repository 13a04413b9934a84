import { setTimeout as delay } from 'node:timers/promises'
import { bindToGrants, type Grants } from '../../src/tokens/bound-sealing.ts'
import { createSealing, type Sealing } from '../../src/tokens/sealed.ts'
import { sessionKey } from '../kit/cloakroom-config.ts'
import { startRedis } from '../kit/redis.ts'
import { writeReplicaConfig } from '../kit/replica.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/rotating-provider.ts'
import { examineAftermath } from './aftermath.ts'
import { readAppendOnlyFile } from './append-only-file.ts'
import { createCrowd } from './crowd.ts'
import { createDisturbances } from './disturbances.ts'
import { startFleet } from './fleet.ts'
import { audienceOf, type GuardedApis, RESOURCES, startGuardedApis } from './guarded-apis.ts'
import { holdInquest } from './losses.ts'
import { createRefreshLedger } from './refresh-ledger.ts'
import type { ChaosReport } from './report.ts'
import { seededRandom } from './seeded-random.ts'
import { createViolations } from './violations.ts'
import { APP } from './visitors.ts'
import { createWeather } from './weather.ts'

/** What one run is like. */
export type ChaosOptions = {
  readonly seed: number
  /** How long people use the system while it is disturbed. */
  readonly seconds: number
  readonly sessions: number
  readonly requestsPerSecond: number
  /** `provider.reusesRefreshTokens`. With false no token is ever offered twice, so none may be reused either. */
  readonly reuses: 'auto' | false
  /** Pauses between disturbances are multiplied with it. */
  readonly pace: number
  /** Ends the run early, cleaned up. */
  readonly signal?: AbortSignal
}

const TOKEN_SECONDS = 3
const PROVIDER_TIMEOUT_MS = 1_000
/** `timeout.response` of every route: nobody may wait longer for any answer. */
const RESPONSE_MS = 30_000
const REPLICAS = ['a', 'b', 'c']
const REFILL_MS = 500
/** Acknowledged writes survive a kill, and can be read afterwards with the second they were made in. */
const DURABLE = [
  ...['--appendonly', 'yes', '--appendfsync', 'always'],
  ...['--aof-timestamp-enabled', 'yes', '--auto-aof-rewrite-percentage', '0'],
]

/** Plays one run from an empty machine to an empty machine. Rejects only when it cannot even be played. */
export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const cleanUps: (() => unknown)[] = []
  try {
    return await play(options, (cleanUp) => cleanUps.push(cleanUp))
  } finally {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  }
}

async function play(options: ChaosOptions, after: (cleanUp: () => unknown) => void): Promise<ChaosReport> {
  const random = seededRandom(options.seed)
  const violations = createViolations()
  const violation = violations.add
  const provider = await startRotatingProvider({
    control: { interactive: true, accessTokenSeconds: TOKEN_SECONDS },
  })
  after(() => provider.close())
  const weather = createWeather(random.branch('weather'), PROVIDER_TIMEOUT_MS)
  const tokenPath = new URL(provider.endpoints.token).pathname
  const ledger = createRefreshLedger({ tokenPath, chooseFault: weather.chooseFault })
  provider.control.intercept = ledger.intercept
  const redis = await startRedis({ args: DURABLE })
  after(() => redis.stop())
  const apis = await startGuardedApis(provider, violation)
  after(() => apis.close())
  const key = sessionKey()
  const config = await writeReplicaConfig({
    ...configOf(options, { apis, key, redisUrl: redis.url }),
    provider: {
      ...provider.settings,
      // Each replica has an address of its own for it.
      endpoints: { token: `\${TOKEN_ENDPOINT}` },
      timeout: `${PROVIDER_TIMEOUT_MS}ms`,
      reusesRefreshTokens: options.reuses,
    },
  })
  after(() => config.remove())
  const tokenEndpoint = provider.endpoints.token
  const fleet = await startFleet(REPLICAS, { configFile: config.file, tokenEndpoint, violation })
  after(() => fleet.destroy())
  const crowd = createCrowd({
    ...{ size: options.sessions, requestsPerSecond: options.requestsPerSecond },
    ...{ answerWithinMs: RESPONSE_MS, random: random.branch('crowd'), fleet, violation },
  })
  const disturbances = createDisturbances({
    ...{ fleet, redis, weather, random: random.branch('disturbances'), pace: options.pace },
  })

  await crowd.fill()
  await storm(options, async (signal) => {
    const refill = async () => {
      while (!signal.aborted) {
        await crowd.fill()
        await delay(REFILL_MS)
      }
    }
    await Promise.all([crowd.roam(signal), disturbances.run(signal), refill()])
  })
  options.signal?.throwIfAborted()
  await crowd.fill()
  const tokenMs = TOKEN_SECONDS * 1000
  const aftermath = await examineAftermath({ crowd, fleet, redis, tokenMs, violation })
  const [, folder = ''] = await redis.cli('config', 'get', 'dir')
  const [logged, undrained] = [violations.inLogs(fleet.lives), await fleet.stop()]
  for (const text of [...logged, ...undrained]) violation(text)
  const inquest = holdInquest({
    ...{ ledger, visitors: crowd.everybody, sealing: sealingOf(key, provider), lives: fleet.lives },
    ...{ outages: disturbances.outages, providerTimeoutMs: PROVIDER_TIMEOUT_MS },
    written: await readAppendOnlyFile(folder),
  })
  return {
    ...{ options, inquest, aftermath, outcomes: crowd.outcomes, latenciesMs: crowd.latenciesMs },
    ...{ presentations: ledger.presentations, faults: weather.struck, outages: disturbances.outages },
    ...{ kills: disturbances.kills(), storms: disturbances.storms(), present: crowd.present.length },
    violations: [...violations.list, ...provider.violations],
  }
}

/** What opens the refresh tokens in the store, once their session's id is known. */
function sealingOf(key: string, { issuer, clientId }: RotatingProvider): Sealing {
  const grants = { provider: { issuer, clientId } as Grants['provider'], resources: {} }
  return bindToGrants(createSealing([Buffer.from(key, 'base64url')]), grants)
}

function configOf(
  { sessions: _sessions }: ChaosOptions,
  { apis, key, redisUrl }: { apis: GuardedApis; key: string; redisUrl: string },
) {
  return {
    publicUrl: APP,
    session: { keys: [key], store: { type: 'redis', url: redisUrl } },
    resources: Object.fromEntries(
      RESOURCES.map((name) => [name, { resource: audienceOf(name), audience: audienceOf(name) }]),
    ),
    routes: RESOURCES.map((name) => ({
      ...{ path: `/api/${name}`, id: name, resource: name, upstream: apis.url(name) },
      timeout: { response: `${RESPONSE_MS}ms` },
    })),
  }
}

/** Runs `work` for as long as it is to last. */
async function storm(
  { seconds, signal }: ChaosOptions,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const over = AbortSignal.any([AbortSignal.timeout(seconds * 1000), ...(signal ? [signal] : [])])
  await work(over)
}
