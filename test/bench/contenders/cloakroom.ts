import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
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
  /** Origin of the API, and of a server that accepts WebSockets. */
  readonly api: string
  readonly chat: string
}

/** One Cloakroom: a process that serves for the whole run, and further ones on the same config and Redis. */
export type Cloakroom = Contender & {
  readonly dir: string
  readonly configFile: string
  readonly keyPrefix: string
  /** The folder of compiled code (NODE_COMPILE_CACHE) that an image of it has; made at the first call. */
  compileCache(): string
  /** Signs so many users in, each with tokens of so many resources. */
  signIn(sessions: number, resources?: number): Promise<Fields[]>
  /** Tells the process that these sessions, or all, have changed, so that the next request of each is cold. */
  dropCopies(hashes?: readonly string[]): Promise<void>
  /** Starts one more process, which knows nothing yet but opens the same sessions. */
  startAnother(
    env?: Record<string, string>,
  ): Promise<Pick<Contender, 'pid' | 'port'> & { stop(): Promise<unknown> }>
}

/** How a Cloakroom is set up beyond the least: more resources, each with a route of its own, and more routes. */
export type Setup = {
  readonly name: string
  readonly dir: string
  readonly resources?: number
  readonly routes?: number
}

/** The resource of the tokens in all requests. */
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
  const compileCache = compileCacheOf(t, dir)

  async function start(env: Record<string, string> = {}): Promise<Replica> {
    const replica = await startReplica({
      configFile: config.file,
      main: join(dir, 'dist/main.js'),
      env: joined({ ...IMAGE, API: world.api }, env),
      output: { stdout: log },
    })
    t.after(() => replica.stop())
    replica.exited.then(({ code, signal }) => {
      // We end it with SIGTERM, which drains it (exit code 0), or with SIGKILL.
      if (code !== 0 && signal !== 'SIGKILL')
        process.stderr.write(
          `${name} ended with ${code ?? signal}:\n${replica.stderr.slice(-30).join('\n')}\n`,
        )
    })
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
    ...{
      name,
      dir,
      fields,
      signIn,
      compileCache,
      keyPrefix,
      configFile: config.file,
      pid: replica.pid,
      port: portOf(replica),
    },
    async dropCopies(hashes) {
      const batch = store.pipeline()
      const keys = hashes ? [] : await store.keys(`${keyPrefix}:*:session`)
      const all = hashes ?? keys.map((key) => /\{(.+)\}/.exec(key)![1]!)
      for (const hash of all) batch.publish(`${keyPrefix}:invalidate`, hash)
      await batch.exec()
      await delay(50)
    },
    async startAnother(env) {
      const another = await start(env)
      return { pid: another.pid, port: portOf(another), stop: () => another.stop() }
    },
  }
}

/** As in a pod of the chart with its memory limit of 512 MiB. */
export const IMAGE = { NODE_ENV: 'production', NODE_OPTIONS: '--max-old-space-size=333' }

/** One environment; options for Node are added to those before. */
function joined(...all: Record<string, string>[]): Record<string, string> {
  const options = all.flatMap(({ NODE_OPTIONS }) => NODE_OPTIONS ?? [])
  return { ...Object.assign({}, ...all), NODE_OPTIONS: options.join(' ') }
}

const WARM = fileURLToPath(new URL('../../image/warm.ts', import.meta.url))

/** Compiles as the Dockerfile does, once. */
function compileCacheOf(t: Scope, dir: string): () => string {
  let folder: string | undefined
  return function compileCache() {
    if (folder !== undefined) return folder
    const made = mkdtempSync(join(tmpdir(), 'cloakroom-bench-compiled-'))
    t.after(() => rmSync(made, { recursive: true, force: true }))
    const args = [WARM, join(dir, 'dist/main.js'), made]
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${dir} cannot be compiled: ${stderr}`)
    folder = made
    return made
  }
}

const portOf = ({ listenUrl }: Replica) => Number(new URL(listenUrl).port)

function configOf({ provider, redis, chat }: World, { resources = 1, routes = 0 }: Setup, keyPrefix: string) {
  const api = FROM_ENVIRONMENT
  const nameOf = (n: number) => (n === 0 ? 'orders' : `resource-${n}`)
  const numbers = Array.from({ length: resources }, (_, n) => n)
  return {
    provider: provider.settings,
    // Idle connections stay until the end of a measurement.
    limits: {
      ...{ connections: 50_000, connectionsPerClient: 50_000, webSocketsPerSession: 10_000 },
      ...{ keepAlive: '10m', headerTimeout: '10m' },
    },
    session: { store: { type: 'redis', url: redis.url, keyPrefix } },
    resources: Object.fromEntries(
      numbers.map((n) => [nameOf(n), { resource: n === 0 ? ORIGINAL : `https://resource-${n}.example.com` }]),
    ),
    routes: [
      { path: '/api', upstream: api, resource: 'orders' },
      { path: '/chat', upstream: chat, resource: 'orders', websocket: true },
      ...numbers.slice(1).map((n) => ({ path: `/${nameOf(n)}`, upstream: api, resource: nameOf(n) })),
      ...Array.from({ length: routes }, (_, n) => ({
        ...{ path: `/tenants/tenant-${n}`, id: `tenant-${n}`, upstream: api, resource: 'orders' },
      })),
      { path: '/', upstream: api, auth: 'anonymous' },
    ],
  }
}

/** Each process may have an API of its own. */
const FROM_ENVIRONMENT = '$' + '{API}'

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
