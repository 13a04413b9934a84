import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type ConfigData, configWith } from './config/cloakroom-config.ts'
import { freePort } from './ports.ts'

/** Another build is tested with `CLOAKROOM_MAIN`, such as the bundle of the image. */
const MAIN = process.env.CLOAKROOM_MAIN ?? fileURLToPath(new URL('../../src/main.ts', import.meta.url))

/** A config file for replicas; each gets its own ports through `${PUBLIC_PORT}` and `${ADMIN_PORT}`. */
export type ReplicaConfig = {
  readonly file: string
  readonly publicUrl: string
  /** Writes the file anew, as an operator would before a reload. */
  rewrite(overrides: ConfigData): Promise<void>
  remove(): Promise<void>
}

/** How a process ended. */
export type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null }

/** One Cloakroom process. */
export type Replica = {
  readonly pid: number
  /** Where to send requests for `publicUrl`; use it as `via` of the scripted browser. */
  readonly listenUrl: string
  readonly adminUrl: string
  /** Lines so far. */
  readonly stdout: string[]
  readonly stderr: string[]
  readonly exited: Promise<Exit>
  signal(signal: NodeJS.Signals): void
  /** Lets this process end while it runs; it ends with it. */
  unref(): void
  /** Signals it and waits for its end; SIGTERM unless given. */
  stop(signal?: NodeJS.Signals): Promise<Exit>
}

/** Writes one config file that several replicas can share; `publicUrl` is a port nobody listens on unless overridden. */
export async function writeReplicaConfig(overrides: ConfigData): Promise<ReplicaConfig> {
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-'))
  const file = join(folder, 'cloakroom.yaml')
  const place = {
    publicUrl: `http://127.0.0.1:${await freePort()}`,
    listen: `127.0.0.1:${fromEnvironment('PUBLIC_PORT')}`,
    adminListen: `127.0.0.1:${fromEnvironment('ADMIN_PORT')}`,
  }
  const first = configWith(overrides, place)
  const write = (config: ConfigData) => writeFile(file, JSON.stringify(config, undefined, 2))
  await write(first)
  return {
    file,
    publicUrl: String(first.publicUrl),
    rewrite: (changes) => write(configWith({ session: first.session, ...changes }, place)),
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

function fromEnvironment(name: string): string {
  return `\${${name}}`
}

/** Two replicas on one config file, ended with the test. */
export async function startTwoReplicas(
  t: { after(cleanUp: () => unknown): void },
  config: ConfigData,
): Promise<[Replica, Replica]> {
  const shared = await writeReplicaConfig(config)
  t.after(() => shared.remove())
  const start = async () => {
    const replica = await startReplica({ configFile: shared.file })
    t.after(() => replica.stop())
    return replica
  }
  return Promise.all([start(), start()])
}

/** Runs `serve --config FILE` and resolves when `/readyz` says 200; rejects with its output when it ends before. */
export async function startReplica(options: {
  configFile: string
  /** The program; `src/main.ts` unless given. */
  main?: string
  env?: Record<string, string>
  readyTimeoutMs?: number
  /** File descriptors in place of the pipes that are read; `stdout` and `stderr` stay empty then. */
  output?: { readonly stdout: number; readonly stderr?: number }
}): Promise<Replica> {
  for (let attempt = 1; ; attempt += 1) {
    const ports = { PUBLIC_PORT: String(await freePort()), ADMIN_PORT: String(await freePort()) }
    const replica = spawnReplica(options, { ...ports, ...options.env })
    try {
      await untilReady(replica, options.readyTimeoutMs ?? 60_000)
      return replica
    } catch (error) {
      // Another process may take a free port before ours listens.
      if (attempt === 3 || !outputOf(replica).includes('EADDRINUSE')) throw error
    }
  }
}

function spawnReplica(
  { configFile, main = MAIN, output }: Parameters<typeof startReplica>[0],
  env: Record<string, string>,
): Replica {
  // A test runner's own variables would make the child report as if it were a test.
  const { NODE_TEST_CONTEXT: _context, NODE_OPTIONS: _options, ...inherited } = process.env
  // What is loaded at a start is not collected again and again. A test with options of its own may measure memory.
  const flags = env.NODE_OPTIONS ? [] : ['--min-semi-space-size=16']
  const child = spawn(process.execPath, [...flags, main, 'serve', '--config', configFile], {
    env: { ...inherited, ...env },
    stdio: ['ignore', output?.stdout ?? 'pipe', output?.stderr ?? 'pipe'],
  })
  const endWithUs = () => child.kill('SIGKILL')
  process.once('exit', endWithUs)
  const exited = new Promise<Exit>((resolve) => {
    child.once('close', (code, signal) => {
      process.off('exit', endWithUs)
      resolve({ code, signal })
    })
  })
  return {
    pid: child.pid ?? 0,
    listenUrl: `http://127.0.0.1:${env.PUBLIC_PORT}`,
    adminUrl: `http://127.0.0.1:${env.ADMIN_PORT}`,
    stdout: collectLines(child.stdout),
    stderr: collectLines(child.stderr),
    exited,
    signal: (signal) => child.kill(signal),
    unref: () => unrefChild(child),
    stop: (signal = 'SIGTERM') => {
      child.kill(signal)
      return exited
    },
  }
}

/** Neither the child nor its pipes keep this process alive from now on. */
export function unrefChild(child: ChildProcess): void {
  child.unref()
  // Pipes of children are sockets, which their types do not say.
  for (const pipe of [child.stdout, child.stderr]) (pipe as Socket | null)?.unref()
}

function collectLines(input: Readable | null): string[] {
  const collected: string[] = []
  if (input) createInterface({ input }).on('line', (line) => collected.push(line))
  return collected
}

async function untilReady(replica: Replica, timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs
  let ended: Exit | undefined
  void replica.exited.then((exit) => {
    ended = exit
  })
  while (ended === undefined) {
    if (await isReady(replica)) return
    if (Date.now() > deadline) {
      await replica.stop('SIGKILL')
      throw new Error(`replica is not ready after ${timeoutMs} ms:\n${outputOf(replica)}`)
    }
    await delay(50)
  }
  throw new Error(
    `replica ended with ${ended.code ?? ended.signal} before it was ready:\n${outputOf(replica)}`,
  )
}

/** Whether `/readyz` of an admin listener says 200. */
export function isReady({ adminUrl }: Pick<Replica, 'adminUrl'>): Promise<boolean> {
  // Whoever else holds that port may accept and never answer.
  return fetch(`${adminUrl}/readyz`, { signal: AbortSignal.timeout(1_000) }).then(
    async (answer) => {
      await answer.arrayBuffer()
      return answer.status === 200
    },
    () => false,
  )
}

function outputOf({ stdout, stderr }: Replica): string {
  return [...stderr, ...stdout].slice(-30).join('\n')
}
