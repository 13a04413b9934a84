import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createBrowser } from '../../kit/browsers/browser.ts'
import type { RotatingProvider } from '../../kit/provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../../kit/replica.ts'
import type { TestRedis } from '../../kit/store/redis.ts'
import { type Cores, pin } from '../process/cores.ts'
import { PATHS } from './api.ts'
import type { Contender, Fields, Scope } from './contender.ts'

/** What the contenders share; all of it runs on the other core. */
export type World = {
  readonly cores: Cores
  readonly redis: TestRedis
  readonly provider: RotatingProvider
  /** Origin of the API. */
  readonly api: string
  /** Environment of measured Node processes. */
  readonly env: Record<string, string>
}

/** One Cloakroom: a process that serves for the whole run, and further ones on the same config and Redis. */
export type Cloakroom = Contender & {
  /** Signs so many users in, each with tokens of so many resources. */
  signIn(sessions: number, resources?: number): Promise<Fields[]>
  /** Tells the process that every session has changed, so that the next request of each is cold. */
  dropCopies(): Promise<void>
  /** Starts one more process, which knows nothing yet but opens the same sessions. */
  startAnother(): Promise<Pick<Contender, 'pid' | 'port'> & { stop(): Promise<unknown> }>
}

/** How a Cloakroom is set up beyond the least: more resources, each with a route of its own, and more routes. */
export type Setup = {
  readonly name: string
  readonly dir: string
  readonly resources?: number
  readonly routes?: number
}

/** The resource that everybody has a token of. */
export const ORIGINAL = 'https://orders.example.com'

/** The path of the API that needs a token of one resource. */
export const pathOfResource = (n: number) => (n === 0 ? PATHS.small : `/resource-${n}/orders/42`)
/** One of the routes that a Cloakroom with many has more. */
export const pathOfRoute = (n: number) => `/tenants/tenant-${n}/orders/42`

/** Starts what was built in `dir`, and signs a user in with a browser's requests. */
export async function openCloakroom(t: Scope, world: World, setup: Setup): Promise<Cloakroom> {
  const { name, dir } = setup
  const keyPrefix = name.replaceAll(/\W+/g, '-')
  const config = await writeReplicaConfig(configOf(world, setup, keyPrefix))
  t.after(() => config.remove())
  const log = openLog(t)

  async function start(): Promise<Replica> {
    const replica = await startReplica({
      configFile: config.file,
      main: join(dir, 'dist/main.js'),
      env: { NODE_ENV: 'production', ...world.env },
      output: { stdout: log },
    })
    t.after(() => replica.stop())
    pin(replica.pid, world.cores.measured)
    return replica
  }

  const replica = await start()

  async function signIn(sessions: number, resources = 1): Promise<Fields[]> {
    const all: Fields[] = []
    for (let n = 0; n < sessions; n += 1) {
      world.provider.control.user = `user-${n}`
      const connect = { [config.publicUrl]: replica.listenUrl }
      const browser = createBrowser({ origin: config.publicUrl, connect })
      await browser.signIn()
      for (let resource = 0; resource < resources; resource += 1) {
        const { status, body } = await browser.fetch(pathOfResource(resource))
        if (status !== 200) throw new Error(`${name}: the signed-in request got ${status}: ${body}`)
      }
      all.push({ host: new URL(config.publicUrl).host, cookie: browser.cookieHeader(PATHS.small) })
      browser.close()
    }
    return all
  }

  const store = new Redis(world.redis.url)
  t.after(() => store.disconnect())
  const [fields = {}] = await signIn(1)
  return {
    ...{ name, fields, signIn, pid: replica.pid, port: portOf(replica) },
    async dropCopies() {
      const batch = store.pipeline()
      for (const key of await store.keys(`${keyPrefix}:*:session`)) {
        batch.publish(`${keyPrefix}:invalidate`, /\{(.+)\}/.exec(key)![1]!)
      }
      await batch.exec()
      await delay(50)
    },
    async startAnother() {
      const another = await start()
      return { pid: another.pid, port: portOf(another), stop: () => another.stop() }
    },
  }
}

const portOf = ({ listenUrl }: Replica) => Number(new URL(listenUrl).port)

function configOf({ provider, redis, api }: World, { resources = 1, routes = 0 }: Setup, keyPrefix: string) {
  const nameOf = (n: number) => (n === 0 ? 'orders' : `resource-${n}`)
  const numbers = Array.from({ length: resources }, (_, n) => n)
  return {
    provider: provider.settings,
    limits: { connectionsPerClient: 100_000 },
    session: { store: { type: 'redis', url: redis.url, keyPrefix } },
    resources: Object.fromEntries(
      numbers.map((n) => [nameOf(n), { resource: n === 0 ? ORIGINAL : `https://resource-${n}.example.com` }]),
    ),
    routes: [
      { path: '/api', upstream: api, resource: 'orders' },
      ...numbers.slice(1).map((n) => ({ path: `/${nameOf(n)}`, upstream: api, resource: nameOf(n) })),
      ...Array.from({ length: routes }, (_, n) => ({
        ...{ path: `/tenants/tenant-${n}`, id: `tenant-${n}`, upstream: api, resource: 'orders' },
      })),
      { path: '/', upstream: api, auth: 'anonymous' },
    ],
  }
}

/** A pipe that is read by another process, as a container's log is: one line a request. */
function openLog(t: Scope): number {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-bench-log-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const fifo = join(folder, 'log')
  spawnSync('mkfifo', [fifo])
  const reader = spawn('sh', ['-c', `cat '${fifo}' > /dev/null`], { stdio: 'ignore' })
  t.after(() => reader.kill())
  const descriptor = openSync(fifo, 'w')
  t.after(() => closeSync(descriptor))
  return descriptor
}
