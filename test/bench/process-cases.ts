import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from '../kit/ports.ts'
import { isReady } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'
import type { Case, Field } from './case.ts'
import type { Cloakroom } from './contenders/cloakroom.ts'
import { type Contender, type Fields, requestText } from './contenders/contender.ts'
import type { Lane } from './measure.ts'
import { startServer } from './process/child.ts'
import { pin } from './process/cores.ts'
import { cpuTimeUs } from './process/cpu-time.ts'

/** Collects all garbage at SIGUSR2, so that what is left is needed. */
const COLLECTS = {
  NODE_OPTIONS: `--expose-gc --import=${new URL('../kit/endurance/collect-on-signal.ts', import.meta.url)}`,
}

/** A field of /proc/PID/status or smaps_rollup, in bytes. */
function memoryOf(pid: number, file: 'status' | 'smaps_rollup', field: 'VmRSS' | 'Pss'): number {
  const [, kilobytes] =
    new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/${file}`, 'utf8')) ?? []
  return Number(kilobytes) * 1_024
}

/** Bytes of memory that are a process's own, or its part of what is shared, after all garbage is collected. */
async function settledMemory(pid: number): Promise<number> {
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

type Fresh = Pick<Contender, 'pid' | 'port'> & { stop(): Promise<unknown> }

/** KB that one more connection takes, each time in a fresh process: what a process has once had it keeps for the next. */
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
      const some = await openMany(port, text, count / 4)
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

async function startBare({ world, bearer }: Field, env: Record<string, string>): Promise<Fresh> {
  const more = { UPSTREAM: world.api, CHAT: world.chat, BEARER: bearer }
  const server = await startServer('contenders/bare-proxy.ts', { ...env, ...more }, 'ignore')
  pin(server.pid, world.cores.measured)
  return server
}

const HANDSHAKES = 100

/** CPU ms that a process takes to open a WebSocket and to close it. */
function openingLane({ name, pid, port, fields }: Contender): Lane {
  const text = webSocketText(fields)
  return {
    ...{ name, warmUpRequests: 1_000 },
    async window() {
      const before = cpuTimeUs(pid)
      closeAll(await openMany(port, text, HANDSHAKES))
      await delay(100)
      return { total: (cpuTimeUs(pid) - before) / 1_000, count: HANDSHAKES }
    },
  }
}

/** Starts a process as the image does, with code compiled before, and tells how long that took, in ms, and its resident memory. */
async function timedStart(
  { world }: Field,
  { dir, configFile, compileCache }: Cloakroom,
): Promise<{ ms: number; residentBytes: number }> {
  const ports = { PUBLIC_PORT: String(await freePort()), ADMIN_PORT: String(await freePort()) }
  const program = ['--enable-source-maps', join(dir, 'dist/main.js'), 'serve', '--config', configFile]
  const startedAt = performance.now()
  const child = spawn('taskset', ['-c', String(world.cores.measured), process.execPath, ...program], {
    env: {
      PATH: process.env.PATH,
      NODE_ENV: 'production',
      API: world.api,
      NODE_COMPILE_CACHE: compileCache(),
      ...ports,
    },
    stdio: 'ignore',
  })
  try {
    const adminUrl = `http://127.0.0.1:${ports.ADMIN_PORT}`
    await eventually('the process is ready', () => isReady({ adminUrl }), { everyMs: 2 })
    const ms = performance.now() - startedAt
    await delay(2_000)
    return { ms, residentBytes: memoryOf(child.pid!, 'status', 'VmRSS') }
  } finally {
    child.kill('SIGKILL')
  }
}

async function timedStartOfBare(field: Field) {
  const startedAt = performance.now()
  const { pid, stop } = await startBare(field, {})
  const ms = performance.now() - startedAt
  await delay(1_000)
  const residentBytes = memoryOf(pid, 'status', 'VmRSS')
  await stop()
  return { ms, residentBytes }
}

/** One window is one start. */
function startLanes(field: Field, of: (start: { ms: number; residentBytes: number }) => number): Lane[] {
  const lane = (name: string, start: () => Promise<{ ms: number; residentBytes: number }>): Lane => ({
    ...{ name, warmUpRequests: 0 },
    window: async () => ({ total: of(await start()), count: 1 }),
  })
  return [
    lane(field.bare.name, () => timedStartOfBare(field)),
    ...field.cloakrooms.map((one) => lane(one.name, () => timedStart(field, one))),
  ]
}

/** What a process costs, by the name on the command line. */
export const PROCESS_CASES = {
  connections: {
    ...{ title: 'idle keep-alive connection', measures: 'KB', budget: 13 },
    lanes: async (field) =>
      memoryLanes(field, { text: (fields) => requestText('small', fields), count: 2_000 }),
  },
  websockets: {
    ...{ title: 'WebSocket', measures: 'KB', budget: 26 },
    lanes: async (field) => memoryLanes(field, { text: webSocketText, count: 2_000 }),
  },
  handshakes: {
    ...{ title: 'opening a WebSocket', measures: 'CPU ms', budget: 0.4 },
    lanes: async ({ bare, cloakrooms }) => [bare, ...cloakrooms].map(openingLane),
  },
  start: {
    ...{ title: 'start to ready', measures: 'ms', budget: 400 },
    lanes: async (field) => startLanes(field, ({ ms }) => ms),
  },
  idle: {
    ...{ title: 'resident memory of an idle process', measures: 'MB', budget: 80 },
    lanes: async (field) => startLanes(field, ({ residentBytes }) => residentBytes / 1e6),
  },
} as const satisfies Record<string, Case>
