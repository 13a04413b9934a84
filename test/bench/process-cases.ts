import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from '../kit/ports.ts'
import { isReady } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'
import type { Case, Field } from './case.ts'
import { startBare } from './contenders/bare.ts'
import type { Cloakroom } from './contenders/cloakroom.ts'
import { type Contender, type Fields, type Fresh, requestText } from './contenders/contender.ts'
import { isMiddleware } from './contenders/peers.ts'
import type { Lane } from './measure.ts'
import { cpuTimeUs } from './process/cpu-time.ts'

/**
 * Collects all garbage at SIGUSR2 as V8 does after a long idle time, which frees the young generation as well. That is 0 to
 * 32 MB, depending on what was done last, and would be counted as a part of each connection.
 */
export const COLLECTS = {
  NODE_OPTIONS: `--expose-gc "--import=data:text/javascript,process.on('SIGUSR2',()=>{for(let n=0;n<3;n+=1)globalThis.gc({type:'major',execution:'sync',flavor:'last-resort'})})"`,
}

/** A field of /proc/PID/status or smaps_rollup, in bytes. */
function memoryOf(pid: number, file: 'status' | 'smaps_rollup', field: 'VmRSS' | 'Pss'): number {
  const [, kilobytes] =
    new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/${file}`, 'utf8')) ?? []
  return Number(kilobytes) * 1_024
}

/** Bytes of memory that are a process's own, or its part of what is shared, after all garbage is collected. */
export async function settledMemory(pid: number): Promise<number> {
  process.kill(pid, 'SIGUSR2')
  await delay(1_000)
  return memoryOf(pid, 'smaps_rollup', 'Pss')
}

/** Opens so many connections one after the other, each answered with 200 or 101. */
export async function openMany(port: number, text: string, count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let n = 0; n < count; n += 1) sockets.push(await openAnswered(port, text))
  return sockets
}

function openAnswered(port: number, text: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    socket.once('error', reject)
    socket.once('data', (head) => {
      const [status] = /^HTTP\/1\.1 (200|101) .*/.exec(head.toString('latin1')) ?? []
      if (status) resolve(socket)
      else reject(new Error(`a connection began with ${head.toString('latin1').slice(0, 60)}`))
    })
    socket.on('data', () => undefined)
    socket.write(text)
  })
}

export function closeAll(sockets: readonly Socket[]): void {
  for (const socket of sockets) socket.destroy()
}

/** The handshake of a WebSocket (RFC 6455 §4.1). */
export function webSocketText({ host = '', ...fields }: Fields): string {
  const more = {
    ...{ host, ...fields, Connection: 'Upgrade', Upgrade: 'websocket', Origin: `http://${host}` },
    ...{ 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' },
  }
  return requestText('small', more, '/chat')
}

/** KB for one more connection beside as many, in a fresh process each time: a process keeps memory that it had before. */
function memoryLane(
  { load }: Field,
  {
    name,
    start,
    text,
    warm,
    count,
  }: { name: string; start(): Promise<Fresh>; text: string; warm: string; count: number },
): Lane {
  return {
    ...{ name, warmUpRequests: 0 },
    async window() {
      const { pid, port, stop } = await start()
      await load.run({ port, requests: [warm], count: 3_000, connections: 16 })
      const some = await openMany(port, text, count)
      const before = await settledMemory(pid)
      const more = await openMany(port, text, count)
      const after = await settledMemory(pid)
      closeAll([...some, ...more])
      await stop()
      return { total: (after - before) / 1_000, count }
    },
  }
}

function memoryLanes(field: Field, { text, count }: { text(fields: Fields): string; count: number }): Lane[] {
  const { fields, name } = field.bare
  const common = { text: text(fields), warm: requestText('small', fields), count }
  return [
    memoryLane(field, { name, start: () => startBare(field, COLLECTS), ...common }),
    ...field.cloakrooms.map((one) =>
      memoryLane(field, {
        ...{ name: one.name, start: () => one.startAnother(COLLECTS), count },
        ...{ text: text(one.fields), warm: requestText('small', one.fields) },
      }),
    ),
  ]
}

const HANDSHAKES = 300
/** After so many the cost hardly falls any more. */
const HANDSHAKES_SETTLE_AFTER = 6_000

/** CPU ms that a process takes to open a WebSocket and to close it. */
function openingLane({ name, pid, port, fields }: Contender): Lane {
  const text = webSocketText(fields)
  return {
    ...{ name, warmUpRequests: HANDSHAKES_SETTLE_AFTER },
    async window() {
      const before = cpuTimeUs(pid)
      closeAll(await openMany(port, text, HANDSHAKES))
      await delay(100)
      return { total: (cpuTimeUs(pid) - before) / 1_000, count: HANDSHAKES }
    },
  }
}

/** A start until the process was ready. */
type Started = { readonly pid: number; readonly ms: number; stop(): unknown }

/** Starts a process as the image does, with code compiled before. */
async function timedStart({ world }: Field, { dir, configFile, compileCache }: Cloakroom): Promise<Started> {
  const ports = { PUBLIC_PORT: String(await freePort()), ADMIN_PORT: String(await freePort()) }
  const program = [join(dir, 'dist/main.js'), 'serve', '--config', configFile]
  const cache = { NODE_COMPILE_CACHE: compileCache() }
  const startedAt = performance.now()
  const child = spawn('taskset', ['-c', String(world.cores.measured), process.execPath, ...program], {
    env: { PATH: process.env.PATH, NODE_ENV: 'production', API: world.api, ...cache, ...ports },
    stdio: 'ignore',
  })
  const stop = () => child.kill('SIGKILL')
  try {
    const adminUrl = `http://127.0.0.1:${ports.ADMIN_PORT}`
    await eventually('the process is ready', () => isReady({ adminUrl }), { everyMs: 2 })
    return { pid: child.pid!, ms: performance.now() - startedAt, stop }
  } catch (error) {
    stop()
    throw error
  }
}

async function timedStartOfBare(field: Field): Promise<Started> {
  const startedAt = performance.now()
  const bare = await startBare(field, {})
  return { ...bare, ms: performance.now() - startedAt }
}

function startsOf(field: Field): { name: string; start(): Promise<Started> }[] {
  return [
    { name: field.bare.name, start: () => timedStartOfBare(field) },
    ...field.cloakrooms.map((one) => ({ name: one.name, start: () => timedStart(field, one) })),
  ]
}

/** One window is one start. */
function startLanes(field: Field): Lane[] {
  return startsOf(field).map(({ name, start }) => ({
    ...{ name, warmUpRequests: 0 },
    async window() {
      const { ms, stop } = await start()
      await stop()
      return { total: ms, count: 1 }
    },
  }))
}

/** V8 gives back what the start left after half a minute without work. */
const UNTIL_IDLE_MS = 60_000

/** One window is one process. The processes of all lanes are idle in the same minute. */
function idleLanes(field: Field): Lane[] {
  const starts = startsOf(field)
  async function round(): Promise<number[]> {
    const all: Started[] = []
    for (const { start } of starts) all.push(await start())
    await delay(UNTIL_IDLE_MS)
    const resident = all.map(({ pid }) => memoryOf(pid, 'status', 'VmRSS') / 1e6)
    for (const { stop } of all) await stop()
    return resident
  }
  let megabytes: Promise<number[]>
  return starts.map(({ name }, n) => ({
    ...{ name, warmUpRequests: 0 },
    async window() {
      if (n === 0) megabytes = round()
      return { total: (await megabytes)[n]!, count: 1 }
    },
  }))
}

/** What a process costs, by the name on the command line. */
export const PROCESS_CASES = {
  connections: {
    ...{ title: 'idle keep-alive connection', measures: 'KB', budget: 13 },
    lanes: async (field) =>
      memoryLanes(field, { text: (fields) => requestText('small', fields), count: 3_000 }),
  },
  websockets: {
    ...{ title: 'WebSocket', measures: 'KB', budget: 26 },
    lanes: async (field) => memoryLanes(field, { text: webSocketText, count: 3_000 }),
  },
  handshakes: {
    ...{ title: 'opening a WebSocket', measures: 'CPU ms', budget: 0.4 },
    lanes: async ({ bare, cloakrooms, peers }) =>
      [bare, ...peers.filter(isMiddleware), ...cloakrooms].map(openingLane),
  },
  start: {
    ...{ title: 'start to ready', measures: 'ms', budget: 400 },
    lanes: async (field) => startLanes(field),
  },
  idle: {
    ...{ title: 'resident memory of an idle process', measures: 'MB', budget: 80, mostRounds: 3 },
    lanes: async (field) => idleLanes(field),
  },
} as const satisfies Record<string, Case>
