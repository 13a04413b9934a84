import { after } from 'node:test'
import { type Browser, createBrowser } from '../browsers/browser.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'
import { field } from '../local-server.ts'
import { type RotatingOptions, startRotatingProvider } from '../provider/rotating-provider.ts'
import type { Replica } from '../replica.ts'
import { verdict } from '../shops/shop.ts'
import type { TestRedis } from '../store/redis.ts'
import { bearerToken, startUpstream, type Upstream } from '../upstream/upstream.ts'
import { metricsOf, sumOf, takeProcesses } from './processes.ts'
import type { Scope } from './sign-in.ts'

const APP = 'https://app.example.test'

/** The resources of a fleet's APIs: `/api/NAME` needs a token for `https://NAME.test`. */
export const audienceOf = (name: string) => `https://${name}.test`

/** What a fleet is made of. */
export type FleetParts = {
  readonly replicas: number
  /** Names of the resources, each with a route of its own; the first is the one of the sign-in. */
  readonly resources: readonly string[]
  /** More of the `provider:` section. */
  readonly provider?: ConfigData
  /** More of the `routes:`, for all APIs. */
  readonly route?: ConfigData
  /** In place of `resources:`. */
  readonly definitions?: ConfigData
  /** How the scripted provider is set up. */
  readonly scripted?: RotatingOptions
  /** Of the processes. */
  readonly env?: Record<string, string>
}

/** What three processes answer when all answer the same. */
export function same<T>(one: T): T[] {
  return [one, one, one]
}

/** Clean-up for what the tests of one `describe` share, last first, when all of them have run. Call it inside. */
export function suiteScope(): Scope {
  const cleanUps: (() => unknown)[] = []
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  })
  return { after: (cleanUp) => void cleanUps.push(cleanUp) }
}

/** So many Cloakroom processes on one Redis (see `takeProcesses`), in front of one API per resource, and a browser that can sign in. */
export async function startFleet(t: Scope, parts: FleetParts) {
  const { replicas, resources } = parts
  const provider = await startRotatingProvider(parts.scripted)
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const config = {
    publicUrl: APP,
    provider: { ...provider.settings, ...parts.provider },
    resources: parts.definitions ?? indicators(resources),
    routes: routesTo(api.url, resources, parts.route),
  }
  const processes = await takeProcesses({ count: replicas, config, env: parts.env ?? {} })
  t.after(processes.giveBack)
  const { redis, replicas: fleet } = processes
  const someone = (at = 0) => {
    const browser = createBrowser({ origin: APP, connect: { [APP]: fleet[at]!.listenUrl } })
    t.after(() => browser.close())
    return browser
  }
  /** What each process answers this browser on this path. */
  const everywhere = (asking: Browser, path: string) =>
    Promise.all(fleet.map(({ listenUrl: via }) => asking.fetch(path, { via })))
  return {
    ...{ provider, redis, api, fleet, browser: someone(), config, someone, everywhere },
    verdictsEverywhere: async (asking: Browser, path: string) =>
      (await everywhere(asking, path)).map(verdict),
    ...readingsOf({ redis, api, fleet }),
    /** The request for a resource's token that is not the code's. */
    isRefresh: (form: [string, string][]) => field(form, 'grant_type') === 'refresh_token',
    /** Signs somebody in at one of the processes, with a browser of their own. */
    async person(user: string, at = 0) {
      provider.control.user = user
      const browser = someone(at)
      await browser.signIn()
      return browser
    },
    /** Changes members of the file, and tells all processes. Resolves when it is in use. */
    reload: (changes: ConfigData) => processes.reload({ ...config, ...changes }),
  }
}

/** The routes to APIs at one place, and to the page. */
export function routesTo(upstream: string, resources: readonly string[], more: ConfigData = {}) {
  return [
    ...resources.map((name) => ({ path: `/api/${name}`, id: name, upstream, resource: name, ...more })),
    { path: '/', id: 'spa', upstream, auth: 'anonymous' },
  ]
}

/** Resources by RFC 8707 indicator. */
export function indicators(names: readonly string[]): ConfigData {
  return Object.fromEntries(
    names.map((name) => [name, { resource: audienceOf(name), audience: audienceOf(name) }]),
  )
}

/** What can be seen of a fleet from outside. */
function readingsOf({ redis, api, fleet }: { redis: TestRedis; api: Upstream; fleet: readonly Replica[] }) {
  return {
    /** The distinct access tokens that the API was sent on this path. */
    tokensSent: (path: string) => [
      ...new Set(
        api.requests.filter((request) => request.path === path).map((request) => bearerToken(request)),
      ),
    ],
    /** A field of the session's token record, as it is in Redis; of the only session unless told. */
    async recordField(name: string, keyOf = 'cloakroom:{*}:tokens') {
      const [key = ''] = await redis.cli('KEYS', keyOf)
      return (await redis.cli('HGET', key, name))[0]
    },
    /** A counter's sum over the processes that still run. */
    async counted(start: string): Promise<number> {
      return sumOf((await Promise.all(fleet.map(metricsOf))).flat(), start)
    },
    /** How many log lines each process has that hold this text. */
    logged: (text: string) => fleet.map(({ stdout }) => stdout.filter((line) => line.includes(text)).length),
  }
}
