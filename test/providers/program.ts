import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { get } from 'node:http'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

/** A program that runs beside us. */
export type Program = {
  readonly pid: number
  /** What it printed last, for when something fails. */
  readonly output: () => string
  /** SIGTERM to it and its children, SIGKILL after 10 s. */
  stop(): Promise<void>
}

/** How a program is started. */
export type ProgramOptions = {
  readonly command: string
  readonly args: readonly string[]
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** Answers 2xx once it is ready. */
  readonly readyUrl: string
  /** The Host to ask it for, if it minds. */
  readonly readyHost?: string
  readonly timeoutMs: number
}

const KEPT_OUTPUT = 20_000
const STOP_MS = 10_000

/** Starts a program in a process group of its own and resolves when it answers. Throws, with its output, when it ends or is late. */
export async function startProgram(options: ProgramOptions): Promise<Program> {
  const { command, args, cwd, env, readyUrl, timeoutMs } = options
  const child = spawn(command, args, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...withoutRunner(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      output = (output + chunk).slice(-KEPT_OUTPUT)
    })
  let failure: Error | undefined
  child.once('error', (error) => {
    failure = error
  })
  let isOver = false
  const over = new Promise<void>((resolve) => child.once('close', () => resolve()))
  void over.then(() => {
    isOver = true
  })
  const signal = (name: NodeJS.Signals) => {
    try {
      if (!isOver && child.pid !== undefined) process.kill(-child.pid, name)
    } catch {
      // The group is gone.
    }
  }
  const killWithUs = () => signal('SIGKILL')
  process.once('exit', killWithUs)
  const program: Program = {
    pid: child.pid ?? 0,
    output: () => output,
    async stop() {
      signal('SIGTERM')
      await Promise.race([over, delay(STOP_MS, undefined, { ref: false })])
      signal('SIGKILL')
      await Promise.race([over, delay(STOP_MS, undefined, { ref: false })])
      process.off('exit', killWithUs)
    },
  }
  const deadline = performance.now() + timeoutMs
  while (!(await answers(readyUrl, options.readyHost))) {
    const isLate = performance.now() > deadline
    if (failure === undefined && !isOver && !isLate) {
      await delay(200)
      continue
    }
    await program.stop()
    const why = failure?.message ?? (isLate ? `not ready after ${timeoutMs} ms` : 'ended before it was ready')
    throw new Error(`${command}: ${why}\n${output.slice(-3000)}`)
  }
  return program
}

/** By node:http, because `fetch` sends no Host but the URL's. */
function answers(url: string, host: string | undefined): Promise<boolean> {
  return new Promise((resolve) => {
    const headers = host === undefined ? {} : { host }
    const asked = get(url, { headers, timeout: 2_000 }, (answer) => {
      answer.resume()
      answer.once('end', () => resolve(answer.statusCode !== undefined && answer.statusCode < 400))
      answer.once('error', () => resolve(false))
    })
    asked.once('timeout', () => asked.destroy())
    asked.once('error', () => resolve(false))
  })
}

/** Runs a command to its end. Throws, with what it printed, when it fails or takes longer than `timeoutMs`. */
export async function run(
  command: string,
  args: readonly string[],
  options: { timeoutMs: number; cwd?: string; env?: Readonly<Record<string, string>> },
): Promise<string> {
  const { timeoutMs, cwd, env } = options
  try {
    const { stdout } = await promisify(execFile)(command, args, {
      ...(cwd === undefined ? {} : { cwd }),
      ...{ timeout: timeoutMs, maxBuffer: 64 * 1024 * 1024, env: { ...withoutRunner(), ...env } },
    })
    return stdout
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    const said = `${stdout}\n${stderr}`.trim().slice(-1500)
    throw new Error(`${command} ${args.slice(0, 3).join(' ')} … failed: ${said || String(error)}`)
  }
}

/** Whether a command is on this machine: it runs and ends well. */
export function has(command: string, ...args: string[]): Promise<boolean> {
  return run(command, args, { timeoutMs: 30_000 }).then(
    () => true,
    () => false,
  )
}

/** A folder for what is downloaded once: `$XDG_CACHE_HOME` or `~/.cache`, then `cloakroom/providers/NAME`. */
export async function cacheFolder(name: string): Promise<string> {
  const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  const folder = join(base, 'cloakroom', 'providers', name)
  await mkdir(folder, { recursive: true })
  return folder
}

/** Runs `make` unless `path` is there already. */
export async function unlessThere(path: string, make: () => Promise<unknown>): Promise<string> {
  if (!existsSync(path)) await make()
  if (!existsSync(path)) throw new Error(`${path} was not made`)
  return path
}

/** Why something cannot be installed, or undefined once it is there. */
export function whyNot(install: () => Promise<unknown>): Promise<string | undefined> {
  return install().then(
    () => undefined,
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  )
}

/** A test runner's own variables would change what the program does. */
function withoutRunner(): Record<string, string | undefined> {
  const { NODE_TEST_CONTEXT: _context, NODE_OPTIONS: _options, ...rest } = process.env
  return rest
}
