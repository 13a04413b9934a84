import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { startServer } from '../bench/process/child.ts'
import { createBrowser } from '../kit/browsers/browser.ts'
import { openSocket, requestHead } from '../kit/endurance/raw-http.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { startChatUpstream } from '../kit/shops/websocket-shop.ts'
import { startRedis, type TestRedis } from '../kit/store/redis.ts'

/** Most resources that one session of the scene uses. */
export const MOST_RESOURCES = 20

/** `heapPercent` of the memory limit, by the chart. */
export const HEAP_MIB = 333

/** Token sizes of Entra ID, in bytes: opaque refresh tokens of 1.2 to 1.6 KB, JWT access tokens of 1.5 to 2.4 KB. */
const REFRESH_TOKEN_BYTES = 1_400
const ACCESS_TOKEN_BYTES = 2_000
/** Groups of an ID token, each a GUID. */
const GROUPS = 10

/** Somebody who is signed in. */
export type SignedIn = {
  /** Head fields of a script's request. */
  readonly fields: Readonly<Record<string, string>>
  /** Asks the API of one resource, 0 to 19; rejects with the status when that is not 200. */
  ask(resource: number): Promise<void>
}

/** One replica of the built product with everything around it; only the replica's process is measured. */
export type Scene = {
  readonly replica: Replica
  readonly port: number
  readonly redis: TestRedis
  readonly store: Redis
  /** An access token of about the size of Entra's. */
  readonly bearer: string
  readonly upstream: string
  /** Life of access tokens that are granted from now on, in seconds. */
  accessTokensLive(seconds: number): void
  refreshes(): number
  signIn(): Promise<SignedIn>
}

type Scope = { after(cleanUp: () => unknown): void }

/** Starts Redis, a provider whose tokens weigh what Entra's do, an API, a chat, and `serve` of `dist/`. */
export async function openScene(t: Scope): Promise<Scene> {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const store = new Redis(redis.url)
  t.after(() => store.disconnect())
  const provider = await startHeavyProvider(t)
  const upstream = await startServer('contenders/json-upstream.ts')
  t.after(upstream.stop)
  const chat = await startChatUpstream(t)
  const names = Array.from({ length: MOST_RESOURCES }, (_, n) => `r${n}`)
  const config = await writeReplicaConfig({
    provider: provider.settings,
    limits: { connectionsPerClient: 100_000, webSocketsPerSession: 10_000 },
    session: { store: { type: 'redis', url: redis.url } },
    resources: Object.fromEntries(names.map((name) => [name, { resource: `https://${name}.example.com` }])),
    routes: [
      ...names.map((name) => ({ path: `/${name}`, upstream: upstream.origin, resource: name })),
      { path: '/chat', upstream: chat.url, resource: 'r0', websocket: true },
    ],
  })
  t.after(() => config.remove())
  const hook = new URL('../kit/endurance/collect-on-signal.ts', import.meta.url).href
  const replica = await startReplica({
    configFile: config.file,
    main: fileURLToPath(new URL('../../dist/main.js', import.meta.url)),
    env: {
      NODE_OPTIONS: `--expose-gc --max-old-space-size=${HEAP_MIB} --import=${hook}`,
      NODE_ENV: 'production',
    },
  })
  t.after(() => replica.stop('SIGKILL'))
  let users = 0

  async function signIn(): Promise<SignedIn> {
    users += 1
    provider.control.user = `user-${users}`
    provider.control.idTokenClaims = claimsOf(users)
    const browser = createBrowser({
      origin: config.publicUrl,
      connect: { [config.publicUrl]: replica.listenUrl },
    })
    await browser.signIn()
    const cookie = browser.cookieHeader()
    browser.close()
    const fields = { host: new URL(config.publicUrl).host, cookie, 'x-csrf': '1' }
    const ask = async (resource: number) => {
      const answer = await fetch(`${replica.listenUrl}/r${resource}/x`, { headers: fields })
      await answer.arrayBuffer()
      if (answer.status !== 200) throw new Error(`r${resource} answered ${answer.status}`)
    }
    return { fields, ask }
  }

  return {
    ...{ replica, redis, store, signIn, upstream: upstream.origin },
    port: Number(new URL(replica.listenUrl).port),
    bearer: `eyJ${randomBytes(ACCESS_TOKEN_BYTES).toString('base64url').slice(3, ACCESS_TOKEN_BYTES)}`,
    accessTokensLive(seconds) {
      provider.control.accessTokenSeconds = seconds
    },
    refreshes: () => provider.counters.refreshCalls,
  }
}

/** What Entra ID says of a member of some groups, beside the claims that every provider sends. */
function claimsOf(user: number): Record<string, unknown> {
  const guid = () =>
    randomBytes(16)
      .toString('hex')
      .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
  return {
    ...{ sid: guid(), oid: guid(), tid: guid(), ver: '2.0', name: `Robin Example ${user}` },
    preferred_username: `robin.example.${user}@contoso.example`,
    email: `robin.example.${user}@contoso.example`,
    groups: Array.from({ length: GROUPS }, guid),
  }
}

const PADDED = '~'

/** Pads tokens to their size, and takes the padding off again when a refresh token comes back. */
async function startHeavyProvider(t: Scope) {
  const padded = (token: string, bytes: number) =>
    `${token}${PADDED}${randomBytes(bytes).toString('base64url')}`.slice(0, bytes)
  const provider = await startRotatingProvider({
    control: {
      accessTokenSeconds: 3_600,
      editAnswer(answer) {
        answer.access_token = padded(String(answer.access_token), ACCESS_TOKEN_BYTES)
        answer.refresh_token = padded(String(answer.refresh_token), REFRESH_TOKEN_BYTES)
      },
      intercept({ form }) {
        for (const pair of form) if (pair[0] === 'refresh_token') pair[1] = pair[1].split(PADDED)[0]!
        return false
      },
    },
  })
  t.after(() => provider.close())
  return provider
}

/** What a process holds after all garbage has been collected. Bytes. */
export type Held = { readonly rss: number; readonly heap: number }

/** Collects all garbage of the replica, then tells what it holds: V8's heap with buffers outside, and the whole process. */
export async function heldBy({ stderr, signal }: Replica): Promise<Held> {
  const seen = stderr.length
  signal('SIGUSR2')
  const line = await eventually('the process tells what it holds', () =>
    stderr.slice(seen).find((text) => text.startsWith('{"inside"')),
  )
  const { rss, heapUsed, external } = (JSON.parse(line) as { inside: Record<string, number> }).inside
  return { rss: rss!, heap: heapUsed! + external! }
}

/** Sessions with so many tokens each. */
export async function signInMany(scene: Scene, count: number, resources: number): Promise<SignedIn[]> {
  const all: SignedIn[] = []
  for (let n = 0; n < count; n += 1) {
    const signedIn = await scene.signIn()
    for (let resource = 0; resource < resources; resource += 1) await signedIn.ask(resource)
    all.push(signedIn)
  }
  return all
}

const AT_ONCE = 32
const lines = new Map<number, Socket[]>()

/** Asks the API of one resource with each session once, over connections that stay; rejects when an answer is not 200. */
export async function askAll({ port }: Scene, sessions: readonly SignedIn[], resource = 0): Promise<void> {
  const sockets =
    lines.get(port) ?? (await Promise.all(Array.from({ length: AT_ONCE }, () => openSocket(port))))
  lines.set(port, sockets)
  let next = 0
  await Promise.all(
    sockets.map(async (socket) => {
      while (next < sessions.length) {
        const { fields } = sessions[next++]!
        const status = await statusOf(socket, requestHead('GET', `/r${resource}/x`, fields))
        if (status !== '200') throw new Error(`r${resource} answered ${status}`)
      }
    }),
  )
}

/** Sends one request; resolves with the status once the JSON of the API, or the end of the connection, has come. */
function statusOf(socket: Socket, head: string): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const over = () => {
      socket.off('data', more).off('close', over)
      resolve(text.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length))
    }
    const more = (chunk: Buffer) => {
      text += chunk.toString('latin1')
      if (text.endsWith('}')) over()
    }
    socket.on('data', more).once('close', over)
    socket.write(head)
  })
}

/** Tells the replica that every session has changed, so that the next request of each is cold. */
export async function dropCopies({ store }: Scene): Promise<void> {
  const batch = store.pipeline()
  for (const key of await store.keys('*:session')) {
    batch.publish('cloakroom:invalidate', /\{(.+)\}/.exec(key)![1]!)
  }
  await batch.exec()
  await delay(50)
}

/** The commands that a replica sends while `work` is under way, without its heartbeats, by name. */
export async function commandsOf(
  { store }: Scene,
  work: () => Promise<unknown>,
): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {}
  const monitor = await store.monitor()
  monitor.on('monitor', (_time: string, args: string[], source: string) => {
    const [name = ''] = args
    // What a script calls is not sent.
    const command = name.toUpperCase()
    if (source === 'lua' ? command !== 'PUBLISH' : args.some((arg) => arg.startsWith('heartbeat '))) return
    const label = source === 'lua' ? 'published' : command
    if (label === 'published' && args[2]?.startsWith('heartbeat ')) return
    counts[label] = (counts[label] ?? 0) + 1
  })
  try {
    await work()
    await delay(300)
  } finally {
    monitor.disconnect()
  }
  return counts
}
