import { once } from 'node:events'
import { createServer, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { createBrowser } from '../kit/browsers/browser.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import {
  PUSH_AUTHORIZATION,
  type SsfTransmitter,
  startSsfTransmitter,
} from '../kit/provider/ssf-transmitter.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { APP, type Scope } from '../kit/shops/shop.ts'
import { startRedis } from '../kit/store/redis.ts'

/** What a user keeps open while he is signed in. */
export type Kind = 'events' | 'download' | 'websocket'

/** One session, and the answer that it has open at another replica than the one of its sign-in. */
export type OpenSession = {
  readonly user: string
  readonly sid: string
  readonly kind: Kind
  /** When the last byte had come, by `performance.now()`; undefined while it is open. */
  endedAt(): number | undefined
  /** Bytes or messages that came so far. */
  received(): number
  /** The status of `B/user` at each replica. */
  look(): Promise<readonly number[]>
}

/** Replicas on one Redis, a provider, a transmitter of its Shared Signals, and an API whose answers never end. */
export type Scene = {
  readonly provider: RotatingProvider
  readonly transmitter: SsfTransmitter
  readonly fleet: readonly Pick<Replica, 'listenUrl'>[]
  /** Of this process, Redis, and the replicas that are processes. */
  readonly pids: { readonly test: number; readonly redis: number; readonly replicas: readonly number[] }
  /** Signs in at one replica and opens the answer at the next. */
  open(user: string, at: number, kind: Kind): Promise<OpenSession>
}

const TICK_MS = 1_000

/** The replicas of a scene. */
export type Replicas = {
  readonly replicas: number
  /** Each in a process of its own; all in this one otherwise, which is sooner done. */
  readonly areProcesses: boolean
}

/** Starts everything. */
export async function startScene(t: Scope, { replicas, areProcesses }: Replicas): Promise<Scene> {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const transmitter = await startSsfTransmitter()
  t.after(() => transmitter.close())
  const sharedSignals = {
    ...{ transmitter: transmitter.issuer, audience: transmitter.audience },
    authorization: PUSH_AUTHORIZATION,
  }
  const redis = await startRedis()
  t.after(() => redis.stop())
  const upstream = await startEndlessApi(t)
  const config = {
    publicUrl: APP,
    provider: { ...provider.settings, sharedSignals },
    session: { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] },
    resources: {},
    routes: [{ path: '/', id: 'endless', upstream, websocket: true }],
  }
  const start = areProcesses ? await processes(t, config) : () => startCloakroom(config)
  const fleet = await Promise.all(
    Array.from({ length: replicas }, async () => {
      const replica = await start()
      t.after(() => ('close' in replica ? replica.close() : replica.stop('SIGKILL')))
      return replica
    }),
  )
  let count = 0
  return {
    ...{ provider, transmitter, fleet },
    pids: {
      ...{ test: process.pid, redis: redis.pid },
      replicas: fleet.flatMap((one) => ('pid' in one ? one.pid : [])),
    },
    async open(user, at, kind) {
      const sid = `sid-${++count}`
      provider.control.user = user
      provider.control.idTokenClaims = { sid }
      const browser = createBrowser({ origin: APP, connect: { [APP]: fleet[at % replicas]!.listenUrl } })
      t.after(() => browser.close())
      await browser.signIn()
      const { listenUrl } = fleet[(at + 1) % replicas]!
      const opened = await OPEN[kind](t, listenUrl, browser.cookieHeader())
      const look = () =>
        Promise.all(
          fleet.map(async ({ listenUrl: via }) => (await browser.fetch('/bff/user', { via })).status),
        )
      return { user, sid, kind, look, ...opened }
    },
  }
}

async function processes(t: Scope, config: ConfigData): Promise<() => Promise<Replica>> {
  const shared = await writeReplicaConfig(config)
  t.after(() => shared.remove())
  return () => startReplica({ configFile: shared.file })
}

async function startEndlessApi(t: Scope): Promise<string> {
  const server = createServer((req, res) => {
    const isStream = req.url === '/events'
    res.writeHead(200, { 'content-type': isStream ? 'text/event-stream' : 'application/octet-stream' })
    const piece = isStream ? 'data: tick\n\n' : Buffer.alloc(1_024)
    res.write(piece)
    const ticking = setInterval(() => res.write(piece), TICK_MS)
    res.once('close', () => clearInterval(ticking))
  })
  const upgrades = new WebSocketServer({ server })
  upgrades.on('connection', (socket) => {
    const ticking = setInterval(() => socket.send('tick'), TICK_MS)
    socket.on('error', () => {}).once('close', () => clearInterval(ticking))
    socket.send('tick')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of upgrades.clients) socket.terminate()
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

type Opened = Pick<OpenSession, 'endedAt' | 'received'>
type Open = (t: Scope, listenUrl: string, cookie: string) => Promise<Opened>

const openAnswer =
  (path: string): Open =>
  async (t, listenUrl, cookie) => {
    const headers = { host: new URL(APP).host, cookie, 'x-csrf': '1' }
    const req = request(listenUrl + path, { headers, agent: false })
    t.after(() => req.destroy())
    req.end()
    const [res] = (await once(req, 'response')) as [IncomingMessage]
    if (res.statusCode !== 200) throw new Error(`${path} was answered with ${res.statusCode}`)
    req.on('error', () => {})
    let [endedAt, received]: [number | undefined, number] = [undefined, 0]
    res.on('error', () => {})
    res.on('data', ({ length }: Buffer) => {
      received += length
    })
    res.once('close', () => {
      endedAt = performance.now()
    })
    return { endedAt: () => endedAt, received: () => received }
  }

async function openWebSocket(t: Scope, listenUrl: string, cookie: string): Promise<Opened> {
  const headers = { host: new URL(APP).host, cookie }
  const socket = new WebSocket(`${listenUrl.replace('http', 'ws')}/chat`, { origin: APP, headers })
  t.after(() => socket.terminate())
  let [endedAt, received]: [number | undefined, number] = [undefined, 0]
  socket.on('message', () => {
    received += 1
  })
  await once(socket, 'open')
  socket.on('error', () => {})
  socket.once('close', () => {
    endedAt = performance.now()
  })
  return { endedAt: () => endedAt, received: () => received }
}

const OPEN: Readonly<Record<Kind, Open>> = {
  events: openAnswer('/events'),
  download: openAnswer('/download'),
  websocket: openWebSocket,
}
