import { bindToGrants, createSealing, type Grants, type Sealing } from '../../src/tokens/record/sealing.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { writeReplicaConfig } from '../kit/replica.ts'
import { startRedis, type TestRedis } from '../kit/store/redis.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { audienceOf, type GuardedApis, RESOURCES, startGuardedApis } from './guarded-apis.ts'
import { createRefreshLedger, type RefreshLedger } from './refresh-ledger.ts'
import type { SeededRandom } from './seeded-random.ts'
import { APP } from './visitors.ts'
import { createWeather, type Weather } from './weather.ts'

/** Everything that runs, before anybody signs in and anything is disturbed. */
export type Scene = {
  readonly redis: TestRedis
  readonly fleet: Fleet
  readonly ledger: RefreshLedger
  readonly weather: Weather
  /** Opens the refresh tokens in the store, once their session's id is known. */
  readonly sealing: Sealing
  /** What the provider found wrong with a request. */
  readonly providerViolations: readonly string[]
}

export type SceneOptions = {
  readonly random: SeededRandom
  /** `provider.reusesRefreshTokens`. */
  readonly reuses: boolean | 'auto'
  /** Registers a clean-up; the last one registered runs first. */
  readonly after: (cleanUp: () => unknown) => void
  readonly violation: (text: string) => void
}

/** Life of an access token: renewed from half of it on. */
export const TOKEN_SECONDS = 3
/** How long a replica waits for the provider. */
export const PROVIDER_TIMEOUT_MS = 1_000
/** `timeout.response` of every route: nobody may wait longer for any answer. */
export const RESPONSE_MS = 30_000

const REPLICAS = ['a', 'b', 'c']
/** Acknowledged writes survive a kill, and can be read afterwards with the second they were made in. */
const DURABLE = [
  ...['--appendonly', 'yes', '--appendfsync', 'always'],
  ...['--aof-timestamp-enabled', 'yes', '--auto-aof-rewrite-percentage', '0'],
]

/** Starts a provider that detects reuse, four APIs, a durable Redis and three replicas. */
export async function openScene({ random, reuses, after, violation }: SceneOptions): Promise<Scene> {
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
    ...configOf(apis, { key, redisUrl: redis.url }),
    provider: {
      ...provider.settings,
      // Each replica has an address of its own for it.
      endpoints: { token: `\${TOKEN_ENDPOINT}` },
      timeout: `${PROVIDER_TIMEOUT_MS}ms`,
      reusesRefreshTokens: reuses,
    },
  })
  after(() => config.remove())
  const tokenEndpoint = provider.endpoints.token
  const fleet = await startFleet(REPLICAS, { configFile: config.file, tokenEndpoint, violation })
  after(() => fleet.destroy())
  const sealing = sealingOf(key, provider)
  return { redis, fleet, ledger, weather, sealing, providerViolations: provider.violations }
}

function configOf(apis: GuardedApis, { key, redisUrl }: { key: string; redisUrl: string }) {
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

function sealingOf(key: string, { issuer, clientId }: { issuer: string; clientId: string }): Sealing {
  const grants = { provider: { issuer, clientId } as Grants['provider'], resources: {} }
  return bindToGrants(createSealing([Buffer.from(key, 'base64url')]), grants)
}
