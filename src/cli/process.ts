import { constants } from 'node:os'
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

const STOP_SIGNALS = ['SIGTERM', 'SIGINT'] as const

/** The signals that ask a process to stop. */
export type StopSignals = {
  /** Resolves with the first of them. */
  readonly first: Promise<NodeJS.Signals>
  /** Calls back at every later one, which is meant to hurry the end. */
  onAnother(listener: (signal: NodeJS.Signals) => void): void
}

/**
 * Catches SIGTERM and SIGINT from here on, and for good: a process that is not the first of its container would end at
 * a second one, with refreshes that are not stored.
 */
export function catchStopSignals(): StopSignals {
  const { promise: first, resolve } = Promise.withResolvers<NodeJS.Signals>()
  let another: ((signal: NodeJS.Signals) => void) | undefined
  for (const signal of STOP_SIGNALS) {
    process.on(signal, () => {
      resolve(signal)
      another?.(signal)
    })
  }
  return {
    first,
    onAnother(listener) {
      another = listener
    },
  }
}

/** Ends the process at SIGTERM and SIGINT, as a shell expects: the kernel does so for every process but the first of a container. */
export function endAtStopSignals(): void {
  for (const signal of STOP_SIGNALS) process.on(signal, () => process.exit(128 + constants.signals[signal]))
}

/** Resolves with the first signal that asks a development server to stop; a second one ends the process. */
export function untilStopped(stop: StopSignals = catchStopSignals()): Promise<NodeJS.Signals> {
  stop.first.then(() => stop.onAnother((signal) => process.exit(128 + constants.signals[signal])))
  return stop.first
}
