import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'

/**
 * Ends the process with exit code 1 at an error that belongs to no request. Node would end it too, but it would print the
 * error with all its properties: commands, response bodies, tokens.
 */
export function endOnUnexpected(log: Logger): void {
  process.on('uncaughtException', (error) => {
    log.error({ err: describeError(error), reason: placeOf(error) }, 'unexpected error: the process ends')
    process.exit(1)
  })
}

/** Where it was thrown, as `file:line`. */
function placeOf(error: unknown): string | undefined {
  const { stack } = error as { stack?: unknown }
  return typeof stack === 'string'
    ? /\/((?:src|dist|node_modules)\/[\w@./-]+:\d+)/.exec(stack)?.[1]
    : undefined
}

/**
 * The most files, sockets among them, that this process may have open (`ulimit -n`, as Node.js raised it at its start);
 * undefined where the system does not say.
 */
export function mostOpenFiles(): number | undefined {
  // Without this the report looks up a name for each address, and waits for it.
  Object.assign(process.report, { excludeNetwork: true })
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft?: number | string } } }
  const soft = report.userLimits?.open_files?.soft
  return typeof soft === 'number' ? soft : undefined
}

/** A warning for `limits.connections` when the system allows fewer open files; undefined when they are enough. */
export function openFilesWarning(connections: number, most: number | undefined): string | undefined {
  // One for the client, and one for the upstream that serves it.
  const needed = 2 * connections
  if (most === undefined || needed <= most) return undefined
  const cure = `raise it to ${needed} or more, or set limits.connections to ${Math.max(1, Math.floor(most / 2))}`
  return `is ${connections}, which needs ${needed} open files (one for a client, one for its upstream), but ulimit -n is ${most}: beyond it connections fail; ${cure}`
}

/** Resolves with the first signal that asks the process to stop. */
export function untilStopped(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal))
  })
}
