import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, createBrowser } from '../kit/browsers/browser.ts'
import { type Replica, startReplica } from '../kit/replica.ts'
import { startRedis } from '../kit/store/redis.ts'
import { startUpstream, type Upstream } from '../kit/upstream/upstream.ts'
import { type ConfigData, documentedConfig, substituted } from './documented-config.ts'
import { APP, type Api, type ApiName, type ProviderKind, type RealProvider, type Scene } from './provider.ts'

const RELOAD_MS = 15_000

/** Where clean-up is registered. */
type Scope = { after(cleanUp: () => unknown): void }

/** Starts everything around a provider that runs already: Redis, two APIs, a page, and two replicas on the documented config. */
export async function startScene(t: Scope, kind: ProviderKind, provider: RealProvider): Promise<Scene> {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const documented = documentedConfig(kind.section)
  const [orders, billing, spa] = await Promise.all([
    startApi(t, documented, 'orders', provider),
    startApi(t, documented, 'billing', provider),
    startUpstream(),
  ])
  t.after(() => spa.close())
  const files = await startFiles(t, provider.clientSecret)
  const config = substituted(
    documented,
    new Map([
      ...provider.substitutions,
      ['rediss://redis:6379', redis.url],
      ['/run/secrets/client-secret', files.clientSecret],
      ['/run/secrets/session-key', files.sessionKey],
      ['http://orders:8080', orders.upstream.url],
      ['http://billing:8080', billing.upstream.url],
      ['http://spa:80', spa.url],
    ]),
  )
  // Each replica has ports of its own, from its environment.
  const onLoopback = (variable: string) => `127.0.0.1:\${${variable}}`
  const listen = onLoopback('PUBLIC_PORT')
  const admin = { listen: onLoopback('ADMIN_PORT') }
  const { endpoints } = provider
  const { transmitter, audience, authorization } = provider.signals ?? {}
  const reached = {
    provider: {
      ...(config.provider as ConfigData),
      ...(endpoints ? { endpoints } : {}),
      ...(provider.signals ? { sharedSignals: { transmitter, audience, authorization } } : {}),
    },
  }
  await writeFile(files.config, JSON.stringify({ ...config, ...reached, listen, admin }, undefined, 2))
  const start = async () => {
    const replica = await startReplica({ configFile: files.config })
    t.after(() => replica.stop())
    return replica
  }
  const replicas = await Promise.all([start(), start()])
  const browsers: Browser[] = []
  t.after(() => {
    for (const browser of browsers) browser.close()
  })
  return {
    ...{ provider, replicas, apis: { orders, billing } },
    browser() {
      const browser = createBrowser({
        ...{ origin: APP, connect: { [APP]: replicas[0].listenUrl } },
        loopbackIsSecure: true,
      })
      browsers.push(browser)
      return browser
    },
    async signIn(browser, returnUrl = '/home') {
      const query = new URLSearchParams({ returnUrl })
      const page = await browser.navigate(`${APP}/bff/login?${query}`, { from: APP })
      return page.url.origin === APP ? page : provider.passSignIn(browser, page)
    },
    async useClientSecret(secret) {
      const before = await Promise.all(replicas.map(appliedReloads))
      await writeFile(files.clientSecret, secret)
      for (const replica of replicas) replica.signal('SIGHUP')
      const deadline = performance.now() + RELOAD_MS
      for (const [index, replica] of replicas.entries()) {
        while ((await appliedReloads(replica)) <= before[index]!) {
          if (performance.now() > deadline) throw new Error('a replica does not read the new client secret')
          await new Promise((resolve) => setTimeout(resolve, 50))
        }
      }
    },
  }
}

async function startApi(
  t: Scope,
  config: ConfigData,
  name: ApiName,
  provider: RealProvider,
): Promise<Api & { upstream: Upstream }> {
  const routes = config.routes as { id?: string; resource?: string }[]
  const resources = config.resources as Record<string, { scopes?: string[]; audience?: string }>
  const { resource = '' } = routes.find(({ id }) => id === name) ?? {}
  const { scopes = [], audience } = resources[resource] ?? {}
  // A token for the other API is refused here as well, and shows in what came.
  const upstream = await startUpstream(
    audience === undefined ? {} : { jwks: provider.jwks, issuer: provider.issuer, audience },
  )
  t.after(() => upstream.close())
  return { path: `/api/${name}`, upstream, resource, scopes, ...(audience === undefined ? {} : { audience }) }
}

async function startFiles(t: Scope, secret: string) {
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-providers-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const clientSecret = join(folder, 'client-secret')
  const sessionKey = join(folder, 'session-key')
  await writeFile(clientSecret, secret)
  await writeFile(sessionKey, randomBytes(32).toString('base64url'))
  return { clientSecret, sessionKey, config: join(folder, 'cloakroom.yaml') }
}

async function appliedReloads({ adminUrl }: Replica): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  return Number(/^cloakroom_config_reloads_total\{outcome="applied"\} (\d+)$/m.exec(text)?.[1] ?? 0)
}
