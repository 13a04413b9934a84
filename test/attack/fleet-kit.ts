import { createBrowser } from '../kit/browser.ts'
import type { ConfigData } from '../kit/cloakroom-config.ts'
import { field } from '../kit/local-server.ts'
import { startRedis } from '../kit/redis.ts'
import { startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { startRotatingProvider } from '../kit/rotating-provider.ts'
import { bearerToken, startUpstream } from '../kit/upstream.ts'
import type { Scope } from './sign-in-kit.ts'

const APP = 'https://app.example.test'

/** The resources of a fleet's APIs: `/api/NAME` needs a token for `https://NAME.test`. */
export const audienceOf = (name: string) => `https://${name}.test`

/** So many Cloakroom processes on one Redis, in front of one API per resource, and a signed-in browser. */
export async function startFleet(
  t: Scope,
  {
    replicas,
    resources,
    provider: settings,
  }: { replicas: number; resources: string[]; provider?: ConfigData },
) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const redis = await startRedis()
  t.after(() => redis.stop())
  const api = await startUpstream()
  t.after(() => api.close())
  const named = <T>(make: (name: string) => T) =>
    Object.fromEntries(resources.map((name) => [name, make(name)]))
  const shared = await writeReplicaConfig({
    publicUrl: APP,
    provider: { ...provider.settings, ...settings },
    session: { store: { type: 'redis', url: redis.url } },
    resources: named((name) => ({ resource: audienceOf(name), audience: audienceOf(name) })),
    routes: [
      ...resources.map((name) => ({ path: `/api/${name}`, id: name, upstream: api.url, resource: name })),
      { path: '/', id: 'spa', upstream: api.url, auth: 'anonymous' },
    ],
  })
  t.after(() => shared.remove())
  const fleet = await Promise.all(
    Array.from({ length: replicas }, async () => {
      const replica = await startReplica({ configFile: shared.file })
      t.after(() => replica.stop('SIGKILL'))
      return replica
    }),
  )
  const browser = createBrowser({ origin: APP, connect: { [APP]: fleet[0]!.listenUrl } })
  t.after(() => browser.close())
  return {
    ...{ provider, redis, api, fleet, browser },
    /** The request for a resource's token that is not the code's. */
    isRefresh: (form: [string, string][]) => field(form, 'grant_type') === 'refresh_token',
    /** The distinct access tokens that the API was sent on this path. */
    tokensSent: (path: string) => [
      ...new Set(
        api.requests.filter((request) => request.path === path).map((request) => bearerToken(request)),
      ),
    ],
    /** A field of the session's token record, as it is in Redis. */
    async recordField(name: string) {
      const [key = ''] = await redis.cli('KEYS', 'cloakroom:{*}:tokens')
      return (await redis.cli('HGET', key, name))[0]
    },
    /** A counter's sum over the processes that still run. */
    async counted(start: string): Promise<number> {
      const texts = await Promise.all(
        fleet.map(({ adminUrl }) =>
          fetch(`${adminUrl}/metrics`).then(
            (answer) => answer.text(),
            () => '',
          ),
        ),
      )
      const lines = texts
        .join('\n')
        .split('\n')
        .filter((line) => line.startsWith(start))
      return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
    },
  }
}
