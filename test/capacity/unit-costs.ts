import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { startLoad } from '../bench/load/load-order.ts'
import { startServer } from '../bench/process/child.ts'
import { cpuTimeUs } from '../bench/process/cpu-time.ts'
import { openSocket, requestHead } from '../kit/endurance/raw-http.ts'
import { eventually } from '../kit/shops/deadline.ts'
import {
  askAll,
  commandsOf,
  dropCopies,
  HEAP_MIB,
  heldBy,
  MOST_RESOURCES,
  openScene,
  type Scene,
  type SignedIn,
  signInMany,
} from './scene.ts'

/** What one of each costs. Bytes, and microseconds of CPU time. */
export type UnitCosts = {
  readonly machine: {
    readonly node: string
    readonly cpu: string
    readonly cores: number
    readonly date: string
  }
  /** Processor time that was not ours while it was measured: the run queue of the last minute. */
  readonly load: number
  /** Bytes that V8 may take in a replica. */
  readonly heapLimit: number
  readonly idle: { readonly rss: number; readonly pss: number; readonly heap: number }
  /** After a warm-up: what a replica holds before the things below are added. */
  readonly warm: { readonly rss: number }
  /** One session in the copies of a replica, by the number of its resources. */
  readonly copy: Readonly<Record<'1' | '4', number>>
  /** Heap and buffers for each connection, those to the upstream included; without what the kernel holds. */
  readonly connections: Readonly<Record<'keepAlive' | 'webSocket' | 'eventStream', number>>
  /** Keys of one session in Redis, by the number of its resources, and what each takes. */
  readonly redisBytes: Readonly<Record<'1' | '4' | '20', Readonly<Record<string, number>>>>
  /** `used_memory` for each session of four resources, tables and all. */
  readonly redisUsedBytes: number
  /** Commands for each; `published`: messages that every replica hears. */
  readonly commands: Readonly<Record<Operation, Readonly<Record<string, number>>>>
  /** CPU time of a replica for each; of cold requests by the number of the session's resources. */
  readonly cpuUs: Readonly<Record<Operation | 'bareProxy' | 'cold4' | 'heard', number>>
  /** CPU time of redis-server for each; `delivered`: for each replica that a published message goes to. */
  readonly redisCpuUs: Readonly<Record<Exclude<Operation, 'warm'> | 'delivered', number>>
}

/** `warm`: a request of a session that the replica has a copy of; `cold`: of one that it has none of. */
export type Operation = 'warm' | 'cold' | 'refresh' | 'signIn'

type Scope = { after(cleanUp: () => unknown): void }

/** Far more than one-time effects; few enough for two minutes. */
const SESSIONS = 200
const CONNECTIONS = 2_000
const STREAMS = 400
/** In one round. */
const SIGN_INS = 10
const ROUNDS = 9
const COLD_ROUNDS = 8
const ROUND_REQUESTS = 1_500

/** Measures everything on one replica of the built product. @param say told of each step. */
export async function measureUnitCosts(
  t: Scope,
  say: (step: string) => void,
): Promise<Omit<UnitCosts, 'machine' | 'load'>> {
  const scene = await openScene(t)
  const idle = await idleOf(scene)
  say('signing in')
  const usedBefore = await usedMemory(scene)
  const four = await signInMany(scene, SESSIONS, 4)
  const redisUsedBytes = ((await usedMemory(scene)) - usedBefore) / SESSIONS
  const one = await signInMany(scene, SESSIONS, 1)
  const signIn = await medianCpu(scene, ROUNDS, { each: SIGN_INS }, async () => {
    for (let n = 0; n < SIGN_INS; n += 1) await scene.signIn()
  })
  say('Redis')
  const redisBytes = {
    '1': await keysOf(scene, 1),
    '4': await keysOf(scene, 4),
    '20': await keysOf(scene, MOST_RESOURCES),
  }
  const commands = await countCommands(scene, one)
  say('copies in the process')
  const copies1 = await measureCopies(scene, one)
  const copies4 = await measureCopies(scene, four)
  say('refreshes')
  const refresh = await measureRefreshes(scene, one)
  say('requests, in turn with the bare proxy')
  const warm = await measureWarm(t, scene, one[0]!)
  const messages = await measureHeard(scene)
  const warmed = await heldBy(scene.replica)
  say('connections')
  const keepAlive = await measureOpen(scene, CONNECTIONS, () => openKeepAlive(scene, one[0]!))
  const eventStream = await measureOpen(scene, STREAMS, () => openEventStream(scene, one[0]!))
  const webSocket = await measureOpen(scene, STREAMS, () => openWebSocket(scene, one[0]!))
  return {
    ...{ heapLimit: HEAP_MIB * 2 ** 20, idle, redisBytes, redisUsedBytes, commands },
    warm: { rss: warmed.rss },
    copy: { '1': copies1.bytes, '4': copies4.bytes },
    connections: { keepAlive, eventStream, webSocket },
    cpuUs: {
      ...{ bareProxy: warm.bare, warm: warm.cloakroom, cold: copies1.cpuUs, cold4: copies4.cpuUs },
      ...{ refresh: refresh.cpuUs, signIn: signIn.cpuUs, heard: messages.heard },
    },
    redisCpuUs: {
      ...{ cold: copies1.redisCpuUs, refresh: refresh.redisCpuUs, signIn: signIn.redisCpuUs },
      delivered: messages.delivered,
    },
  }
}

async function idleOf({ replica }: Scene) {
  const rollup = readFileSync(`/proc/${replica.pid}/smaps_rollup`, 'utf8')
  const kilobytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1])
  const { heap } = await heldBy(replica)
  return { rss: kilobytes('Rss') * 1_024, pss: kilobytes('Pss') * 1_024, heap }
}

type Cpu = { readonly cpuUs: number; readonly redisCpuUs: number }

/** For each of what one round does, the median of the rounds: what else a machine does makes caches cold, now and then. */
async function medianCpu(
  { replica, redis }: Scene,
  rounds: number,
  { each, before }: { readonly each: number; readonly before?: () => Promise<void> },
  round: (n: number) => Promise<void>,
): Promise<Cpu> {
  const ours: number[] = []
  const ofRedis: number[] = []
  for (let n = 0; n < rounds; n += 1) {
    await before?.()
    const start = [cpuTimeUs(replica.pid), cpuTimeUs(redis.pid)] as const
    await round(n)
    ours.push((cpuTimeUs(replica.pid) - start[0]) / each)
    ofRedis.push((cpuTimeUs(redis.pid) - start[1]) / each)
  }
  return { cpuUs: median(ours), redisCpuUs: median(ofRedis) }
}

/** The middle one. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

async function usedMemory({ store }: Scene): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await store.info('memory'))?.[1])
}

/** The keys that one sign-in leaves, each with its bytes; what comes and goes is not among them. */
async function keysOf(scene: Scene, resources: number): Promise<Record<string, number>> {
  const { store } = scene
  const before = new Set(await store.keys('*'))
  await signInMany(scene, 1, resources)
  // A look at the session in the list of sessions is written behind the answer.
  await delay(300)
  const bytes: Record<string, number> = {}
  for (const key of await store.keys('*')) {
    const name = /:(sub|idp):|\}:(session|tokens|about|life)$/.exec(key)
    if (before.has(key) || !name) continue
    bytes[name[1] ?? name[2]!] = Number(await store.call('MEMORY', 'USAGE', key, 'SAMPLES', '0'))
  }
  return bytes
}

const COUNTED = 40

async function countCommands(scene: Scene, one: readonly SignedIn[]): Promise<UnitCosts['commands']> {
  const some = one.slice(0, COUNTED)
  const each = (counts: Readonly<Record<string, number>>) =>
    Object.fromEntries(
      Object.entries(counts).map(([name, n]) => [name, Math.round((n / COUNTED) * 100) / 100]),
    )
  await dropCopies(scene)
  const cold = each(await commandsOf(scene, () => askAll(scene, some)))
  const warm = each(await commandsOf(scene, () => askAll(scene, some)))
  const signIn = each(
    await commandsOf(scene, async () => {
      for (let n = 0; n < COUNTED; n += 1) await scene.signIn()
    }),
  )
  // With its tokens in the copy, a session's next resource costs one refresh and nothing else.
  await askAll(scene, some)
  const refresh = each(await commandsOf(scene, () => askAll(scene, some, 1)))
  return { cold, warm, signIn, refresh }
}

/** Asks with all sessions, whose copies then are all that the process holds more than when they are gone again. */
async function measureCopies(scene: Scene, sessions: readonly SignedIn[]) {
  const drop = () => dropCopies(scene)
  const cold = { each: sessions.length, before: drop }
  // The compilers of V8 have settled after the first.
  await medianCpu(scene, COLD_ROUNDS, cold, () => askAll(scene, sessions))
  const cpu = await medianCpu(scene, COLD_ROUNDS, cold, () => askAll(scene, sessions))
  const bytes: number[] = []
  for (let round = 0; round < 3; round += 1) {
    await drop()
    const empty = await heldBy(scene.replica)
    const startedAt = performance.now()
    await askAll(scene, sessions)
    const full = await heldBy(scene.replica)
    // Copies are trusted for 5 s; those that were let go meanwhile would make the rest look small.
    if (performance.now() - startedAt < 5_000) bytes.push((full.heap - empty.heap) / sessions.length)
  }
  return { bytes: median(bytes), ...cpu }
}

/** Each session's next resource is one refresh; what the request around it costs is not taken off. */
async function measureRefreshes(scene: Scene, sessions: readonly SignedIn[]): Promise<Cpu> {
  const before = scene.refreshes()
  // Some have had the second resource already.
  const cpu = await medianCpu(scene, ROUNDS, { each: sessions.length }, (n) => askAll(scene, sessions, 2 + n))
  const asked = ROUNDS * sessions.length
  if (scene.refreshes() - before !== asked)
    throw new Error(`${asked} requests made ${scene.refreshes() - before} refreshes`)
  return cpu
}

async function measureWarm(t: Scope, scene: Scene, { fields }: SignedIn) {
  const bare = await startServer('contenders/bare-proxy.ts', {
    UPSTREAM: scene.upstream,
    BEARER: scene.bearer,
  })
  t.after(bare.stop)
  const load = startLoad()
  t.after(load.stop)
  const requests = [requestHead('GET', '/r0/x', { connection: 'keep-alive', ...fields })]
  const round = async ({ pid, port }: { pid: number; port: number }) => {
    const before = cpuTimeUs(pid)
    await load.run({ port, requests, count: ROUND_REQUESTS, connections: 64 })
    return (cpuTimeUs(pid) - before) / ROUND_REQUESTS
  }
  const figures = { bare: [] as number[], cloakroom: [] as number[] }
  for (let n = -4; n < ROUNDS; n += 1) {
    const both = [await round(bare), await round({ pid: scene.replica.pid, port: scene.port })] as const
    if (n < 0) continue
    figures.bare.push(both[0])
    figures.cloakroom.push(both[1])
  }
  return { bare: median(figures.bare), cloakroom: median(figures.cloakroom) }
}

const MESSAGES = 5_000
const LISTENERS = 10

/** What it costs a replica to hear that another one changed a session which it has no copy of, and Redis to tell it. */
async function measureHeard({ store, replica, redis }: Scene) {
  const heard: number[] = []
  const ofRedis: number[] = []
  const others: Redis[] = []
  for (let round = 0; round < 6; round += 1) {
    // Other replicas, as Redis sees them, for the second half.
    if (round === 3)
      for (let n = 0; n < LISTENERS; n += 1) {
        others.push(store.duplicate())
        await others.at(-1)!.subscribe('cloakroom:invalidate')
      }
    const before = [cpuTimeUs(replica.pid), cpuTimeUs(redis.pid)] as const
    for (let sent = 0; sent < MESSAGES; sent += 500) {
      const batch = store.pipeline()
      for (let n = 0; n < 500; n += 1) batch.publish('cloakroom:invalidate', hashLike(sent + n))
      await batch.exec()
    }
    await delay(200)
    heard.push((cpuTimeUs(replica.pid) - before[0]) / MESSAGES)
    ofRedis.push((cpuTimeUs(redis.pid) - before[1]) / MESSAGES)
  }
  for (const other of others) other.disconnect()
  const delivered = (median(ofRedis.slice(3)) - median(ofRedis.slice(0, 3))) / LISTENERS
  return { heard: median(heard), delivered: Math.max(0, delivered) }
}

const hashLike = (n: number) => `${n}`.padStart(43, 'A')

/** Opens so many, tells what each takes, and closes them; the first tenth warms up. */
async function measureOpen(
  { replica }: Scene,
  count: number,
  open: () => Promise<() => void>,
): Promise<number> {
  const openMany = async (many: number) => {
    const closers: (() => void)[] = []
    for (let begun = 0; begun < many; begun += 50)
      closers.push(...(await Promise.all(Array.from({ length: 50 }, open))))
    return closers
  }
  const close = (closers: readonly (() => void)[]) => {
    for (const one of closers) one()
    return delay(1_000)
  }
  await close(await openMany(Math.max(count / 10, 50)))
  const before = await heldBy(replica)
  const closers = await openMany(count)
  const during = await heldBy(replica)
  await close(closers)
  return (during.heap - before.heap) / count
}

/** Connections that have each made a signed-in request, and wait for the next. */
async function openKeepAlive({ port }: Scene, { fields }: SignedIn): Promise<() => void> {
  return openSaying(port, requestHead('GET', '/r0/x', { connection: 'keep-alive', ...fields }), '}')
}

async function openEventStream({ port }: Scene, { fields }: SignedIn): Promise<() => void> {
  return openSaying(port, requestHead('GET', '/chat', { ...fields, accept: 'text/event-stream' }), 'hello')
}

async function openWebSocket({ port }: Scene, { fields }: SignedIn): Promise<() => void> {
  const upgrade = {
    ...{ ...fields, origin: `http://${fields.host}`, connection: 'Upgrade', upgrade: 'websocket' },
    ...{ 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' },
  }
  return openSaying(port, requestHead('GET', '/chat', upgrade), '\r\n\r\n')
}

/** Sends a head and waits until the answer is a success that holds these words. */
async function openSaying(port: number, head: string, words: string): Promise<() => void> {
  const socket = await openSocket(port)
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  socket.write(head)
  await eventually('the connection is open', () => text.includes(words))
  if (!/^HTTP\/1\.1 (200|101) /.test(text)) throw new Error(text.slice(0, 200))
  return () => socket.destroy()
}
