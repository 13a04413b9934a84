import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../ports.ts'
import { unrefChild } from '../replica.ts'
import { redisCommand } from './redis-command.ts'

/** A real redis-server of one test. */
export type TestRedis = {
  readonly url: string
  readonly port: number
  /** Of the process that runs now. */
  readonly pid: number
  /** Freezes it: connections stay open, nothing answers. */
  pause(): void
  resume(): void
  /** Ends it at once, as a crash does. */
  kill(): Promise<void>
  isRunning(): boolean
  /** Starts it again on the same port, empty; kills it first if it runs. */
  restart(): Promise<void>
  /** Ends it and removes its folder. */
  stop(): Promise<void>
  /** Lets this process end while it runs; it ends with it. */
  unref(): void
  /** One command on a connection of its own; gives the lines of the answer as redis-cli prints them. */
  cli(...args: string[]): Promise<string[]>
}

/** What a test may ask of its redis-server. */
export type TestRedisOptions = {
  /** `requirepass`, and what `cli` authenticates with. */
  readonly password?: string
  /** More lines of redis.conf as command-line arguments, e.g. `['--maxmemory', '2mb']`. */
  readonly args?: readonly string[]
  /** The program, such as that of Valkey; `redis-server` unless given. */
  readonly program?: string
  /** Lines of a sentinel.conf: it is a sentinel then. */
  readonly sentinel?: readonly string[]
}

/** Whether redis-server is on this machine. */
export function redisAvailable(): boolean {
  return spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0
}

/** For a test's `skip` option: why it cannot run here, or false. */
export function skipWithoutRedis(): string | false {
  return redisAvailable() ? false : 'NOT RUN: redis-server is not installed on this machine'
}

/** Starts a redis-server on a free port, with nothing kept on disk. Throws when it does not come up within 30 s. */
export async function startRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-redis-'))
  const port = await freePort()
  let server = await launch(port, folder, options)
  const killWithUs = () => {
    server.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
  process.once('exit', killWithUs)
  let isUnref = false

  const isRunning = () => server.exitCode === null && server.signalCode === null

  async function kill(): Promise<void> {
    if (!isRunning()) return
    server.ref()
    const gone = new Promise((resolve) => server.once('exit', resolve))
    server.kill('SIGKILL')
    await gone
  }

  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return server.pid!
    },
    pause: () => void server.kill('SIGSTOP'),
    resume: () => void server.kill('SIGCONT'),
    ...{ kill, isRunning },
    async restart() {
      await kill()
      server = await launch(port, folder, options)
      if (isUnref) unrefChild(server)
    },
    async stop() {
      process.removeListener('exit', killWithUs)
      await kill()
      await rm(folder, { recursive: true, force: true })
    },
    unref() {
      isUnref = true
      unrefChild(server)
    },
    cli: (...args) => redisCommand(port, args, options),
  }
}

/** A sentinel writes what it learns into its file, so that one that is started again goes on with that. */
function sentinelFile(folder: string, lines: readonly string[]): string {
  const file = join(folder, 'sentinel.conf')
  if (!existsSync(file)) writeFileSync(file, `${lines.join('\n')}\n`)
  return file
}

function launch(
  port: number,
  folder: string,
  { password, args = [], program = 'redis-server', sentinel }: TestRedisOptions,
): Promise<ChildProcess> {
  const server = spawn(
    program,
    [
      ...(sentinel ? [sentinelFile(folder, sentinel), '--sentinel'] : ['--save', '', '--appendonly', 'no']),
      ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder],
      ...(password ? ['--requirepass', password] : []),
      ...args,
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  return new Promise((resolve, reject) => {
    const tooLate = setTimeout(() => {
      server.kill('SIGKILL')
      reject(new Error('redis-server did not come up within 30 s'))
    }, 30_000)
    let output = ''
    server.stdout.on('data', (chunk) => {
      output += chunk
      if (!/ready to accept connections|Sentinel ID is/i.test(output)) return
      clearTimeout(tooLate)
      output = ''
      resolve(server)
    })
    server.once('error', reject)
    server.once('exit', (code) => {
      clearTimeout(tooLate)
      reject(new Error(`redis-server ended with ${code}: ${output.slice(-300)}`))
    })
  })
}
