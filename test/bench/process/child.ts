import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'

/** A program of this folder in a process of its own. */
export type Child = {
  readonly process: ChildProcess
  readonly pid: number
  stop(): Promise<void>
}

/** Forks `test/bench/<file>`; it ends with us. */
export function startChild(
  file: string,
  env: Record<string, string> = {},
  stderr: 'inherit' | 'ignore' = 'inherit',
): Child {
  const child = fork(fileURLToPath(new URL(`../${file}`, import.meta.url)), {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', stderr, 'ipc'],
  })
  const endWithUs = () => child.kill('SIGKILL')
  process.once('exit', endWithUs)
  return {
    process: child,
    pid: child.pid!,
    async stop() {
      process.off('exit', endWithUs)
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = once(child, 'exit')
      child.kill('SIGTERM')
      await gone
    },
  }
}

/** Forks a program that calls `whenListening`; resolves with the port it listens on. */
export async function startServer(
  file: string,
  env: Record<string, string> = {},
  stderr: 'inherit' | 'ignore' = 'inherit',
) {
  const child = startChild(file, env, stderr)
  const port = await nextMessage<number>(child)
  return { ...child, port, origin: `http://127.0.0.1:${port}` }
}

const PATIENCE_MS = 20_000

/** Resolves with the next thing a child says; rejects when it ends before, or says nothing for so long. */
export async function nextMessage<T>({ process: child }: Child, patienceMs = PATIENCE_MS): Promise<T> {
  const impatience = AbortSignal.timeout(patienceMs)
  const outcome = Promise.withResolvers<T>()
  const onExit = () => outcome.reject(new Error(`${child.spawnargs.at(-1)} ended`))
  const onLate = () => outcome.reject(new Error(`${child.spawnargs.at(-1)} does not get done`))
  child.once('message', outcome.resolve).once('exit', onExit)
  impatience.addEventListener('abort', onLate)
  try {
    return await outcome.promise
  } finally {
    child.off('message', outcome.resolve).off('exit', onExit)
    impatience.removeEventListener('abort', onLate)
  }
}

/** In the child: listens on a free port of 127.0.0.1 and tells it to the parent. */
export function whenListening(server: Server): void {
  // An orderly exit writes the CPU profile, if one was asked for.
  process.once('SIGTERM', () => process.exit())
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as AddressInfo).port))
}
